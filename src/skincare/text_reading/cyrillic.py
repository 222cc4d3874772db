"""Cyrillic words as they come out of an OCR model that knows Latin letters only, or as a pack spells them in Latin."""

from collections.abc import Iterable
from typing import Final

_SHORTEST: Final = 4  # letters; shorter spellings are words of other languages

_LETTERS: Final = "абвгдежзийклмнопрстуфхцчшщъыьэюя"
# The Latin letters and digits that each is read as.
_LOOKS: Final = "a 6 b r d e * 3 u u k l m h o n p c t y f x u 4 w w b bi b 3 io r"
# As passports and as libraries spell them.
_SPELT: Final = (
    "a b v g d e zh z i i k l m n o p r s t u f kh ts ch sh shch - y - e yu ya",
    "a b v g d e z z i j k l m n o p r s t u f h c c s s - y - e ju ja",
)
_ALIKE: Final = frozenset("abcehkmoptxy0356894")
# What looks alike shares a class.
_CLASSES: Final = str.maketrans("6801ijnvs5g9", "bbollluycbrr")


def is_cyrillic(word: str) -> bool:
    """Tell whether a word begins with a Cyrillic letter."""
    return "\u0400" <= word[0] <= "\u04ff"


def looks_cyrillic(word: str) -> bool:
    """Tell whether every letter of a word of Latin letters and digits is also what a Cyrillic one is read as.

    Of the words of the catalogue's 1,126 names, one letter away from a Russian word of the table, none is.
    """
    return _ALIKE.issuperset(word)


def skeleton(word: str) -> str:
    """Return one spelling for all Latin readings of a word that look alike.

    "ckpab" and "ckpa6" (скраб) -> "ckpab"
    """
    return word.replace("jl", "l").replace("ji", "l").translate(_CLASSES)


def latin_spellings(words: Iterable[str]) -> dict[str, str]:
    """Return, for each way to write a Cyrillic word in Latin letters, the word; looks stand there as skeletons."""
    looks = dict(zip(_LETTERS, _LOOKS.split(), strict=True))
    tables = [dict(zip(_LETTERS, spelt.split(), strict=True)) for spelt in _SPELT]
    found: dict[str, str] = {}
    for word in sorted(words):
        ways = [skeleton("".join(looks.get(letter, "*") for letter in word))]
        ways += ["".join(table.get(letter, "") for letter in word).replace("-", "") for table in tables]
        for way in ways:
            if len(way) >= _SHORTEST:
                found.setdefault(way, word)
    return found

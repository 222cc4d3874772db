"""Latin spellings of Cyrillic words: misreadings by an OCR model without Cyrillic letters, and transliterations."""

from collections.abc import Iterable
from typing import Final

_MIN_LETTERS: Final = 4  # shorter spellings are words of other languages

_LETTERS: Final = "абвгдежзийклмнопрстуфхцчшщъыьэюя"
# The Latin letters and digits that OCR returns for each letter.
_LOOK_ALIKES: Final = "a 6 b r d e * 3 u u k l m h o n p c t y f x u 4 w w b bi b 3 io r"
# Transliteration as in passports (ICAO) and in library catalogues (ISO 9).
_TRANSLITERATIONS: Final = (
    "a b v g d e zh z i i k l m n o p r s t u f kh ts ch sh shch - y - e yu ya",
    "a b v g d e z z i j k l m n o p r s t u f h c c s s - y - e ju ja",
)
_LOOK_ALIKE_CHARACTERS: Final = frozenset("abcehkmoptxy0356894")
# Characters of similar outline map to one of them.
_CLASSES: Final = str.maketrans("6801ijnvs5g9", "bbollluycbrr")


def is_cyrillic(word: str) -> bool:
    """Return whether a word begins with a Cyrillic letter."""
    return "\u0400" <= word[0] <= "\u04ff"


def could_be_cyrillic(word: str) -> bool:
    """Return whether every character of a Latin word is one that OCR also returns for a Cyrillic letter.

    None of the catalogue's words that are one edit away from a Russian word of the phrase table passes this test.
    """
    return _LOOK_ALIKE_CHARACTERS.issuperset(word)


def skeleton(word: str) -> str:
    """Return the common form of all misreadings of a word in similar Latin letters.

    "ckpab" and "ckpa6" (скраб) -> "ckpab"
    """
    return word.replace("jl", "l").replace("ji", "l").translate(_CLASSES)


def latin_spellings(words: Iterable[str]) -> dict[str, str]:
    """Return Latin spelling -> Cyrillic word, for transliterations and for skeletons of misreadings."""
    look_alikes = dict(zip(_LETTERS, _LOOK_ALIKES.split(), strict=True))
    tables = [dict(zip(_LETTERS, spelling.split(), strict=True)) for spelling in _TRANSLITERATIONS]
    found: dict[str, str] = {}
    for word in sorted(words):
        ways = [skeleton("".join(look_alikes.get(letter, "*") for letter in word))]
        ways += ["".join(table.get(letter, "") for letter in word).replace("-", "") for table in tables]
        for way in ways:
            if len(way) >= _MIN_LETTERS:
                found.setdefault(way, word)
    return found

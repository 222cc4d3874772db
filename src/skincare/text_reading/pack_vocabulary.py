"""Words on packs that are not a brand by themselves: claims, ingredients, parts of the body (`pack_words.csv`).

The rows of kind `brand` are words that some brand consists of, but that packs use otherwise, too ("simple").

Brands may contain such words ("Pure Elements", "Baby Bright") but do not consist of them, apart from known ones
(`skincare.product.known_brands`).
"""

import csv
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

from skincare.labels import skincare_labels
from skincare.text_reading.misreadings import Misreadings, edit_distance
from skincare.text_reading.phrases import fold, phrases_of, tokenise

_MIN_MISREAD, _MAX_MISREAD = 7, 30
_MIN_COMPOUND, _MIN_PART = 8, 3
_TABLE: Final = Path(__file__).with_name("pack_words.csv")


@cache
def pack_words() -> frozenset[str]:
    """Return the words as `fold` writes them, with those of the category phrases."""
    with _TABLE.open(encoding="utf-8", newline="") as file:
        words = {word for row in csv.DictReader(file) for word in row["words"].split("|")}
    phrases = {word for phrase in phrases_of(skincare_labels()) for word in phrase.tokens}
    return frozenset(fold(word) for word in words | phrases)


@cache
def category_words() -> frozenset[str]:
    """Return the words that name a category by themselves, such as "cream" and "nettoyant"."""
    return frozenset(
        one.tokens[0] for one in phrases_of(skincare_labels()) if one.strength >= 2 and len(one.words) == 1
    )


def unusual_words(text: str) -> list[str]:
    """Return the words of a text, of two letters at least, that are not in the vocabulary.

    >>> unusual_words("Neutriderm Moisturising Lotion 50 ml")
    ['neutriderm']
    """
    return [word for word in tokenise(text) if len(word) > 1 and not word.isdecimal() and not _is_usual(word)]


@lru_cache(maxsize=20_000)
def _is_usual(word: str) -> bool:
    """Return whether a word is in the vocabulary, cut off, a compound of its words, or has a misread letter."""
    if (
        word in pack_words()
        or word in _cut_off_words()
        or (_MIN_COMPOUND <= len(word) <= _MAX_MISREAD and _is_compound(word))
    ):
        return True
    near = _misreadings().without_context(word) if _MIN_MISREAD <= len(word) <= _MAX_MISREAD else []
    return any(edit_distance(one, word) == 1 for one in near)


@cache
def _cut_off_words() -> frozenset[str]:
    """Return the beginnings of words that the edge of a pack hides the end of."""
    return frozenset(word[:-n] for word in pack_words() for n in (1, 2, 3) if len(word) - n >= max(5, 0.6 * len(word)))


def _is_compound(word: str) -> bool:
    """Return whether a word consists of words of the vocabulary: "allskintypes", "reinigungsgel"."""
    ends = {0}
    for end in range(_MIN_PART, len(word) + 1):
        if any(word[start:end] in pack_words() for start in ends if end - start >= _MIN_PART):
            ends.add(end)
    return len(word) in ends


@cache
def _misreadings() -> Misreadings:
    return Misreadings([word for word in pack_words() if len(word) >= _MIN_MISREAD and word.isascii()], n_deletions=1)

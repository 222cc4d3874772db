"""Approximate word lookup: known words within one or two edits (substitution, deletion, insertion) of a token."""

from collections.abc import Iterable
from typing import Final

# Letters of similar outline.
_CONFUSED: Final = ("ceoagqd", "iltfj", "nmurhw", "vyuwr", "sgz", "bhk", "prf", "dlo")
# Minimum number of letters; the shorter a word, the more other words are equally close.
_ONE_CONFUSED: Final = 5  # one substitution within a group of `_CONFUSED`
_ONE_LOST_OR_ADDED: Final = 7  # one deletion or insertion
_ONE_OF_ANY_KIND: Final = 8  # any one edit
_TWO_EDITS: Final = 9  # two edits
_ONE_EDIT_IN_CONTEXT: Final = 4  # any one edit, if the neighbouring words complete a phrase
_TWO_EDITS_IN_CONTEXT: Final = 6  # two edits, likewise


class Misreadings:
    """Finds vocabulary words by edit distance, with an index of deletion variants as in SymSpell."""

    def __init__(self, vocabulary: Iterable[str], *, n_deletions: int = 2, is_any_letter: bool = False) -> None:
        """Index the vocabulary.

        n_deletions: letters removed from long words for the index; 1 is faster to build and finds fewer matches.
        is_any_letter: accept any substitution in a short word, not only letters of similar outline.
        """
        self._is_any_letter = is_any_letter
        self._words: dict[str, tuple[str, ...]] = {}
        for word in vocabulary:
            if len(word) >= _ONE_EDIT_IN_CONTEXT:
                for variant in _deletion_variants(word, n_deletions if len(word) >= _TWO_EDITS else 1):
                    self._words[variant] = (*self._words.get(variant, ()), word)

    def without_context(self, word: str) -> list[str]:
        """Return the matches that are accepted regardless of neighbouring words, the closest first."""
        if len(word) < _ONE_CONFUSED:
            return []
        found = [one for one in self._near(word, 2 if len(word) >= _TWO_EDITS else 1) if len(one) >= _ONE_CONFUSED]
        if len(word) < _ONE_OF_ANY_KIND and not self._is_any_letter:
            found = [one for one in found if _is_confused(one, word)]
        return sorted(found, key=lambda one: (edit_distance(one, word), one))

    def in_context(self, word: str) -> list[str]:
        """Return the matches that are accepted only if the neighbours complete a phrase ("facial foal" -> foam)."""
        if len(word) < _ONE_EDIT_IN_CONTEXT:
            return []
        return sorted(self._near(word, 2 if len(word) >= _TWO_EDITS_IN_CONTEXT else 1))

    def _near(self, word: str, n_edits: int) -> list[str]:
        near = {one for variant in _deletion_variants(word, n_edits) for one in self._words.get(variant, ())}
        return [one for one in near if edit_distance(one, word) <= n_edits]


def edit_distance(one: str, other: str) -> int:
    """Return the Levenshtein distance."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        last, row[0] = row[0], i
        for j, its in enumerate(other, start=1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (letter != its))
    return row[-1]


def _is_confused(word: str, read: str) -> bool:
    if len(word) != len(read):
        return min(len(word), len(read)) >= _ONE_LOST_OR_ADDED
    differing = [(one, other) for one, other in zip(word, read, strict=True) if one != other]
    return not differing or any(differing[0][0] in group and differing[0][1] in group for group in _CONFUSED)


def _deletion_variants(word: str, n_letters: int) -> set[str]:
    """Return the word and all variants with up to `n_letters` letters deleted."""
    found = {word}
    for _ in range(n_letters):
        found |= {variant[:i] + variant[i + 1 :] for variant in found for i in range(len(variant))}
    return found

"""Which known words a word of letters may be, if OCR took one letter for another, lost one or added one."""

from collections.abc import Iterable
from typing import Final

# Letters of similar outline.
_CONFUSED: Final = ("ceoagqd", "iltfj", "nmurhw", "vyuwr", "sgz", "bhk", "prf", "dlo")
# The shorter a word, the likelier another word is as near: from so many letters on ...
_ALONE: Final = 5  # ... one confused letter is taken for a misreading,
_ALSO_LOST: Final = 7  # ... so is a lost or an added one,
_FREELY: Final = 8  # ... and any wrong one,
_TWICE: Final = 9  # ... and two at once.
_BESIDE_OTHERS: Final = 4  # Where the words beside it make a phrase of it, one wrong letter is enough ...
_TWICE_BESIDE_OTHERS: Final = 6  # ... or two.


class Misreadings:
    """Finds the words of a vocabulary that are near a word, by what is left when letters are taken out of both."""

    def __init__(self, vocabulary: Iterable[str], *, n_taken: int = 2, is_any_letter: bool = False) -> None:
        """Take up to `n_taken` letters out of long words: 1 makes a large vocabulary ready sooner and finds less.

        is_any_letter: any one letter of a short word may be wrong, not only one of similar outline.
        """
        self._is_any_letter = is_any_letter
        self._words: dict[str, tuple[str, ...]] = {}
        for word in vocabulary:
            if len(word) >= _BESIDE_OTHERS:
                for stump in _stumps(word, n_taken if len(word) >= _TWICE else 1):
                    self._words[stump] = (*self._words.get(stump, ()), word)

    def alone(self, word: str) -> list[str]:
        """Return the words that stand for `word` without further evidence, the nearest first."""
        if len(word) < _ALONE:
            return []
        found = [one for one in self._near(word, 2 if len(word) >= _TWICE else 1) if len(one) >= _ALONE]
        if len(word) < _FREELY and not self._is_any_letter:
            found = [one for one in found if _is_confused(one, word)]
        return sorted(found, key=lambda one: (edit_distance(one, word), one))

    def beside_others(self, word: str) -> list[str]:
        """Return the words that `word` may be where its neighbours make a phrase of them ("facial foal")."""
        if len(word) < _BESIDE_OTHERS:
            return []
        return sorted(self._near(word, 2 if len(word) >= _TWICE_BESIDE_OTHERS else 1))

    def _near(self, word: str, n_edits: int) -> list[str]:
        near = {one for stump in _stumps(word, n_edits) for one in self._words.get(stump, ())}
        return [one for one in near if edit_distance(one, word) <= n_edits]


def edit_distance(one: str, other: str) -> int:
    """Return how many letters must be changed, added or taken away (Levenshtein)."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        last, row[0] = row[0], i
        for j, its in enumerate(other, start=1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (letter != its))
    return row[-1]


def _is_confused(word: str, read: str) -> bool:
    if len(word) != len(read):
        return min(len(word), len(read)) >= _ALSO_LOST
    differing = [(one, other) for one, other in zip(word, read, strict=True) if one != other]
    return not differing or any(differing[0][0] in group and differing[0][1] in group for group in _CONFUSED)


def _stumps(word: str, n_letters: int) -> set[str]:
    """Return the word, and what is left without any one of its letters, or any `n_letters`."""
    found = {word}
    for _ in range(n_letters):
        found |= {stump[:i] + stump[i + 1 :] for stump in found for i in range(len(stump))}
    return found

"""Groups of lines that belong together on a pack: a word or name may continue in the line below.

PAULA'S        BABY
CHOICE         BRIGHT
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from skincare.text_reading.pack_text import TextLine

_MAX_LINES: Final = 3
# Gap between two lines of one name, as a share of the height of the letters, and the share of the narrower line's
# width that is above or below the wider one.
_MAX_GAP: Final = 1.2
_MIN_OVERLAP: Final = 0.5
_MIN_LETTERS: Final = 2
# Longer lines are cut, so that hostile text takes no time.
_MAX_LENGTH: Final = 200


class LineGroups:
    """The lines of a pack with their neighbours."""

    def __init__(self, lines: Sequence[TextLine]) -> None:
        self.lines = tuple(lines)
        self._below = _below(self.lines)
        self._place = {id(line): i for i, line in enumerate(self.lines)}

    def below(self, line: TextLine) -> TextLine | None:
        """Return the next line under a line, without much space between; None if there is none."""
        at = self._below[self._place[id(line)]]
        return None if at < 0 else self.lines[at]

    def __iter__(self) -> Iterator[tuple[TextLine, ...]]:
        """Yield each line, and each run of two or three that follow each other in reading order or downwards."""
        for i, line in enumerate(self.lines):
            yield (line,)
            for n in range(2, _MAX_LINES + 1):
                if i + n <= len(self.lines):
                    yield self.lines[i : i + n]
            chain = [line]
            while len(chain) < _MAX_LINES and (following := self.below(chain[-1])):
                chain.append(following)
                yield tuple(chain)


def is_lettered(line: TextLine) -> bool:
    """Return whether a line has two letters at least; a single one is mostly a logo, in larger print than any text."""
    return sum(map(str.isalpha, line.text[:_MAX_LENGTH])) >= _MIN_LETTERS


def extent(line: TextLine) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of a line's box."""
    across, down = zip(*line.box, strict=True)
    return min(across), min(down), max(across), max(down)


def _below(lines: Sequence[TextLine]) -> list[int]:
    """Return the number of the line below each line, -1 where there is none."""
    if not lines:
        return []
    left, top, right, bottom = np.array([extent(line) for line in lines]).T
    middle, height, width = (top + bottom) / 2, bottom - top, right - left
    overlap = np.minimum(right[:, None], right) - np.maximum(left[:, None], left)
    is_below = (top > middle[:, None]) & (middle >= middle[:, None])
    is_near = top - bottom[:, None] <= _MAX_GAP * height[:, None]
    is_aligned = overlap >= _MIN_OVERLAP * np.minimum(width[:, None], width)
    candidates = is_below & is_near & is_aligned
    np.fill_diagonal(candidates, False)
    nearest = np.where(candidates, top, np.inf).argmin(axis=1)
    return [int(one) if found else -1 for one, found in zip(nearest, candidates.any(axis=1), strict=True)]

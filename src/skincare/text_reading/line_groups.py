"""Groups of lines that belong together on a pack: a word or name may continue in the line below.

PAULA'S        BABY
CHOICE         BRIGHT
"""

from collections.abc import Iterator, Sequence
from typing import Final

from skincare.text_reading.pack_text import TextLine

_MAX_LINES: Final = 3
# Gap between two lines of one name, as a share of the height of the letters, and the share of the narrower line's
# width that is above or below the wider one.
_MAX_GAP: Final = 1.2
_MIN_OVERLAP: Final = 0.5


def joined_lines(lines: Sequence[TextLine]) -> Iterator[tuple[TextLine, ...]]:
    """Yield each line, and each run of two or three lines that follow each other in reading order or downwards."""
    below = {id(line): one for line in lines if (one := line_below(line, lines))}
    for i, line in enumerate(lines):
        yield (line,)
        for n in range(2, _MAX_LINES + 1):
            if i + n <= len(lines):
                yield tuple(lines[i : i + n])
        chain = [line]
        while len(chain) < _MAX_LINES and (following := below.get(id(chain[-1]))):
            chain.append(following)
            yield tuple(chain)


def line_below(line: TextLine, lines: Sequence[TextLine]) -> TextLine | None:
    """Return the next line under a line, without much space between; None if there is none."""
    left, top, right, bottom = extent(line)
    found = []
    for other in lines:
        its_left, its_top, its_right, its_bottom = extent(other)
        overlap = min(right, its_right) - max(left, its_left)
        is_near = (its_top + its_bottom - top - bottom) / 2 >= 0 and its_top - bottom <= _MAX_GAP * (bottom - top)
        is_aligned = overlap >= _MIN_OVERLAP * min(right - left, its_right - its_left)
        if other is not line and its_top > (top + bottom) / 2 and is_near and is_aligned:
            found.append(other)
    return min(found, key=lambda one: extent(one)[1], default=None)


def extent(line: TextLine) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of a line's box."""
    across, down = zip(*line.box, strict=True)
    return min(across), min(down), max(across), max(down)

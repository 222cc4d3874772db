"""The order in which people read the lines of a pack: rows from top to bottom, within a row from left to right.

Detectors list boxes by their top edge; two words of one row whose boxes differ by a pixel then change places. Here
lines belong to one row where their centres differ by less than half of the smaller line's height.
"""

from collections.abc import Iterable

from skincare.text_reading.pack_text import TextLine


def in_reading_order(lines: Iterable[TextLine]) -> list[TextLine]:
    """Return the lines row by row; the same lines in any order give the same result."""
    rows: list[list[TextLine]] = []
    for line in sorted(lines, key=lambda line: (_centre(line), line.box, line.text)):
        last = rows[-1][-1] if rows else None
        if last and _centre(line) - _centre(last) < min(_extent(line), _extent(last)) / 2:
            rows[-1].append(line)
        else:
            rows.append([line])
    return [line for row in rows for line in sorted(row, key=lambda line: (line.box[0][0], line.box, line.text))]


def _centre(line: TextLine) -> float:
    return sum(y for _, y in line.box) / 4


def _extent(line: TextLine) -> float:
    """Return how much of the image's height the box takes."""
    ys = [y for _, y in line.box]
    return max(ys) - min(ys)

"""Reading order of text lines: rows from top to bottom, within a row from left to right.

Lines belong to one row if their centres differ by less than half of the smaller line's height; sorting by the top edge
alone would swap words of a row whose boxes differ by a pixel. If most of the text is rotated, as on a pack that lies
on its side, the order is that of the rotated image.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from skincare.text_reading.pack_text import Point, TextLine

Turn = Callable[[float, float], Point]

# Coordinates along and across text that runs to the right, down, to the left and up.
_TURNS: Final[tuple[Turn, ...]] = (
    lambda x, y: (x, y),
    lambda x, y: (y, -x),
    lambda x, y: (-x, -y),
    lambda x, y: (-y, x),
)


def in_reading_order(lines: Iterable[TextLine]) -> list[TextLine]:
    """Return the lines row by row; the result does not depend on the order of the input."""
    lines = list(lines)
    turn = _TURNS[_usual_turn(lines)]
    places = {line: _place(line, turn) for line in lines}
    rows: list[list[TextLine]] = []
    for line in sorted(lines, key=lambda line: (places[line][1], line.box, line.text)):
        last = rows[-1][-1] if rows else None
        if last and _is_one_row(places[line], places[last]):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [line for row in rows for line in sorted(row, key=lambda line: (places[line][0], line.box, line.text))]


def quarter_turns(line: TextLine) -> int:
    """Return the clockwise rotation of a line in steps of 90 degrees: 0 upright, 1 running down, 2 upside down."""
    (left, top), (right, bottom) = line.box[:2]
    across, down = right - left, bottom - top
    if abs(across) >= abs(down):
        return 0 if across >= 0 else 2
    return 1 if down > 0 else 3


def _usual_turn(lines: Sequence[TextLine]) -> int:
    letters: Counter[int] = Counter()
    for line in lines:
        letters[quarter_turns(line)] += len(line.text)
    return max(range(4), key=lambda turn: (letters[turn], -turn))


def _place(line: TextLine, turn: Turn) -> tuple[float, float, float]:
    """Return the start of a line along the text, and its centre and extent across it."""
    corners = [turn(x, y) for x, y in line.box]
    across = [v for _, v in corners]
    return min(u for u, _ in corners), sum(across) / 4, max(across) - min(across)


def _is_one_row(place: tuple[float, float, float], last: tuple[float, float, float]) -> bool:
    return place[1] - last[1] < min(place[2], last[2]) / 2

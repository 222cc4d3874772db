"""The order in which people read the lines of a pack: rows from top to bottom, within a row from left to right.

Detectors list boxes by their top edge; two words of one row whose boxes differ by a pixel then change places. Here
lines belong to one row where their centres differ by less than half of the smaller line's height. Where most of the
text is turned, as on a pack that lies on its side, the whole image is read turned.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from skincare.text_reading.pack_text import Point, TextLine

Turn = Callable[[float, float], Point]

# Along and across the reading of text that runs to the right, down, to the left and up.
_TURNS: Final[tuple[Turn, ...]] = (
    lambda x, y: (x, y),
    lambda x, y: (y, -x),
    lambda x, y: (-x, -y),
    lambda x, y: (-y, x),
)


def in_reading_order(lines: Iterable[TextLine]) -> list[TextLine]:
    """Return the lines row by row; the same lines in any order give the same result."""
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
    """Return by how many quarter turns to the right a line is turned: 0 upright, 1 running down, 2 on its head."""
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
    """Return where a line begins, where its centre is across the reading, and how much it takes there."""
    corners = [turn(x, y) for x, y in line.box]
    across = [v for _, v in corners]
    return min(u for u, _ in corners), sum(across) / 4, max(across) - min(across)


def _is_one_row(place: tuple[float, float, float], last: tuple[float, float, float]) -> bool:
    return place[1] - last[1] < min(place[2], last[2]) / 2

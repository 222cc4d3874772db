"""Reads the size printed on a pack from lines with OCR errors: lines in, `Size` out.

Lines are repaired first (`skincare.text_reading.size_repair`). A lost digit is found by the quantity in the other unit:
"3 ml / 1.014 fl oz" -> 30 ml.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from skincare.product.sizes import Size, parse_size, quantities
from skincare.text_reading.line_groups import LineGroups
from skincare.text_reading.misreadings import edit_distance
from skincare.text_reading.pack_text import TextLine
from skincare.text_reading.size_repair import repair_size

# A quantity in the largest print wins over one that a sample or a gift states; those of one pack are this alike.
_ALIKE: Final = 0.06
_ALIKE_UNITS: Final = 0.25
# What a pack of cosmetics holds, in ml or g; other numbers are misread.
_PLAUSIBLE: Final = (0.4, 5000.0)
_LOST_DIGIT: Final = 0.03


@dataclass(frozen=True)
class _Printed:
    size: Size
    is_metric: bool
    height: float


def printed_size(lines: Sequence[TextLine]) -> Size | None:
    """Return the most frequent size of the lines, of equally frequent ones that in the largest print; None without one.

    A pack shown twice, or with its box, has its size twice.
    """
    found = list(_printed(lines))
    amounts = [one for one in found if one.size.unit != "pieces"] or found
    ranked = [one for one in amounts if one.is_metric] or amounts
    if not ranked:
        return None
    votes = {id(one): sum(_is_alike(one.size, other.size) for other in amounts) for one in ranked}
    best = max(ranked, key=lambda one: (votes[id(one)], one.height)).size
    return _with_lost_digit(best, [one.size for one in amounts if not one.is_metric]) or best


def _printed(lines: Sequence[TextLine]) -> Iterator[_Printed]:
    for group in LineGroups(lines):
        # A number and its unit may be two lines.
        if len(group) > 2 or (len(group) == 2 and not group[0].text.strip(" eE℮").isdecimal()):
            continue
        text = repair_size(" ".join(line.text for line in group))
        height = min(line.height for line in group)
        size = parse_size(text)
        if size and size.unit == "pieces":
            yield _Printed(size, True, height)
        elif size:
            yield from (
                _Printed(size if one.is_metric else one.size, one.is_metric, height)
                for one in quantities(text)
                if _PLAUSIBLE[0] <= one.size.total <= _PLAUSIBLE[1]
            )


def _is_alike(one: Size, other: Size) -> bool:
    if one.unit == other.unit:
        return one.equals(other, _ALIKE) or one.amount == other.amount
    return abs(one.amount - other.amount) <= _ALIKE_UNITS * max(one.amount, other.amount)


def _with_lost_digit(size: Size, others: Sequence[Size]) -> Size | None:
    """Return the size with one digit mended such that the only quantity in the other unit agrees; None if it does not.

    >>> str(_with_lost_digit(Size(3, "ml"), [Size(29.99, "ml")]))
    '30 ml'
    """
    distinct = {round(other.amount, 1): other for other in others}
    if len(distinct) != 1 or any(_is_alike(size, other) for other in others):
        return None
    target = others[0].amount
    numbers = range(round(target * (1 - _LOST_DIGIT)), round(target * (1 + _LOST_DIGIT)) + 1)
    near = [number for number in numbers if number and edit_distance(str(number), f"{size.amount:g}") == 1]
    return Size(float(min(near, key=lambda number: abs(number - target))), size.unit, size.n) if near else None

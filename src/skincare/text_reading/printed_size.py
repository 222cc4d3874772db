"""Reads the size printed on a pack from lines with OCR errors: lines in, `Size` out.

e 5Oml 1.7 FL.0Z.   -> 50 ml      letters for digits, the estimated sign, spaces lost
3 ml / 1.014 fl oz  -> 30 ml      a lost digit, by the quantity in the other unit
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from skincare.product.sizes import Size, parse_size, quantities
from skincare.text_reading.line_groups import LineGroups
from skincare.text_reading.misreadings import edit_distance
from skincare.text_reading.pack_text import TextLine

# The estimated sign of EU directive 76/211/EEC next to a quantity, which OCR reads as an e.
_SIGN: Final = "[eE℮ⓔ€©@]"
_UNIT_AFTER_DIGIT: Final = r"(?=\s?(?:ml|cl|g|gm|gr|kg|oz|fl|l)\b)"
_REPAIRS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        (rf"(?<=\d)(\s?(?:ml|cl|l|g|kg))\s?{_SIGN}(?![a-z])", r"\1 "),
        (rf"(?<![a-z]){_SIGN}(?=\d)", " "),
        # Units: "mI", "m1", "rnl", "m l"; "5Og" reads as "5Oq"; мл in similar Latin letters.
        (r"(?<=[\do])\s?(?:m[i1|!]|rn[l1i|]|m\sl|mji|mjl|mj|m/i)(?![a-z\d])", " ml"),
        (r"(?<=\d)\s?q\b", " g"),
        (r"(?<=\d)\s?f[li1|]?[.,]?\s?(?:us\s?)?[o0][z2]\b", " fl oz"),
        (r"(?<=\d)\s?[0][z]\b", " oz"),
        (r"(?<=oz)\.?\s?liq\b", " "),
        # Digits: "l00 ml", "5O ml", "S0 ml".
        (r"(?<![a-z\d.,])[il|](?=[\do]{1,3}\s?(?:ml|g\b|oz))", "1"),
        (r"(?<![a-z\d.,])s(?=[0o]{1,2}\s?(?:ml|g\b))", "5"),
        (r"(?<=\d)[o](?=[\do.,])", "0"),
        (rf"(?<=\d)[o]{_UNIT_AFTER_DIGIT}", "0"),
        (r"(?<=\d)[il|](?=\d{0,2}\s?(?:ml|g\b))", "1"),
    )
)
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
        text = repaired(" ".join(line.text for line in group))
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


def repaired(text: str) -> str:
    """Return a line with the misreadings of sizes mended; other text may change, too."""
    for pattern, replacement in _REPAIRS:
        text = pattern.sub(replacement, text)
    return text


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

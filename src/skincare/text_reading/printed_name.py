"""Reads the name of a product from a pack: the lines around the one that says what it is, without brand and claims."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from skincare.labels import skincare_labels
from skincare.product.normalisation import normalised
from skincare.product.sizes import parse_size
from skincare.text_reading.evidence import finder_of
from skincare.text_reading.line_groups import extent
from skincare.text_reading.pack_text import TextLine
from skincare.text_reading.size_repair import repair_size

_MAX_CHARACTERS: Final = 120
_MIN_CONFIDENCE: Final = 0.75
_MAX_WORDS: Final = 7
_MAX_ABOVE, _MAX_BELOW = 3, 2
# Print size of the lines of a name relative to the line with the category.
_MIN_HEIGHT_ABOVE, _MIN_HEIGHT_BELOW = 0.55, 0.85
# Print size, relative to the line with the category, of a variant that stands below it.
_VARIANT_HEIGHT: Final = 1.5
# The largest gap between two lines of a name, in line heights.
_MAX_GAP: Final = 2.5
# A category in print of less than this share of the largest other print belongs to a claim.
_MIN_CATEGORY_HEIGHT: Final = 0.25
# Minimum weight of the evidence in a line that names the category, and the share of the best weight from which a line
# names it as clearly.
_MIN_WEIGHT: Final = 0.6
_CLEAR: Final = 0.7
_CLAIM: Final = re.compile(
    r"\b(?:free|tested|certified|approved|all skin types?|skin types?|official store|since|made (?:in|with|from)|"
    r"net|www|laboratoires?|dermatologique|naturkosmetik|peaux|types de peau|hauttypen|no (?:parabens?|alcohol)|"
    r"vegan|cruelty|usda|enriched|clinically|gift from|with pure|sans|ohne|sin|senza)\b|"
    # The second part of a sentence, and whole sentences.
    r"^\W*(?:for|pour|für|to|with|and|mit|avec|innovative|clinical|0\s?%)\b|"
    r"(?-i:[a-z]{3}\.\s+[A-Z])|[a-zA-Z]{3}\.$|^[a-z]+(?:\s+[a-z]+){4}",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _NameLine:
    """A line of a pack. weight: that of its best category phrase, 0 without one; language: of that phrase."""

    line: TextLine
    is_namelike: bool
    weight: float
    language: str

    @property
    def names_category(self) -> bool:
        return self.weight > 0

    @property
    def height(self) -> float:
        return self.line.height


def printed_name(lines: Sequence[TextLine], brand: str, brand_lines: Collection[TextLine] = ()) -> str:
    """Return the brand and the lines of the name in reading order.

    Empty if no line is part of a name, or if neither a brand nor a category shows that the image has a product.
    """
    own = [one for one in _name_lines(lines, brand) if one.line not in brand_lines]
    anchor = _anchor([one for one in own if one.is_namelike])
    if anchor is None or not (brand or anchor.names_category):
        return ""
    parts = {normalised(brand): brand} if brand else {}
    for line in _block(own, anchor):
        parts.setdefault(normalised(line.text), line.text.strip())
    return " ".join(parts.values())[:_MAX_CHARACTERS].strip()


def _name_lines(lines: Sequence[TextLine], brand: str) -> list[_NameLine]:
    evidence = finder_of(skincare_labels()).find([line.text for line in lines], [line.height for line in lines])
    named = sorted((one for one in evidence if one.weight > _MIN_WEIGHT), key=lambda one: one.weight)
    best = {one.line: (one.weight, one.language) for one in named}
    return [_NameLine(line, _is_namelike(line, brand), *best.get(i, (0.0, ""))) for i, line in enumerate(lines)]


def _is_namelike(line: TextLine, brand: str) -> bool:
    is_read = line.confidence >= _MIN_CONFIDENCE and len(line.text.split()) <= _MAX_WORDS and is_wordlike(line.text)
    return is_read and not _CLAIM.search(line.text) and normalised(line.text) not in normalised(brand)


def is_wordlike(text: str) -> bool:
    """Return whether a line consists of words: three consecutive letters, mostly letters, and no size."""
    n_letters = sum(character.isalpha() for character in text)
    is_letters = n_letters >= 0.6 * len(text.replace(" ", ""))
    return is_letters and bool(re.search(r"[^\W\d_]{3}", text)) and not parse_size(repair_size(text))


def _anchor(lines: Sequence[_NameLine]) -> _NameLine | None:
    """Return the first of the lines that name the category most clearly; without one the largest line.

    A category in small print belongs to a claim.
    """
    largest = max(lines, key=lambda one: one.height, default=None)
    named = [one for one in lines if one.names_category]
    if largest is None or not named:
        return largest
    clearest = max(one.weight for one in named)
    first = next(one for one in named if one.weight >= _CLEAR * clearest)
    return first if first.height >= _MIN_CATEGORY_HEIGHT * largest.height else largest


def _block(lines: Sequence[_NameLine], anchor: _NameLine) -> list[TextLine]:
    """Return the lines of the name: the anchor and its neighbours above and below in similar or larger print.

    The name ends at a claim or a size. A line that names the category in another language is skipped. A larger line
    right below the anchor is the variant of a kind of product and comes first: "SHOWER CREAM / AVOCADO".
    """
    at = lines.index(anchor)
    above = [anchor.line]
    for one in reversed([one for one in lines[:at] if one.is_namelike]):
        is_small = one.height < _MIN_HEIGHT_ABOVE * anchor.height
        if len(above) > _MAX_ABOVE or is_small or not _follows(one.line, above[0]):
            break
        above.insert(0, one.line)
    below: list[TextLine] = []
    last = anchor.line
    for one in lines[at + 1 :]:
        if not _follows(last, one.line):
            continue
        if anchor.names_category and one.names_category and one.language != anchor.language:
            last = one.line
            continue
        is_part = one.names_category or one.height >= _MIN_HEIGHT_BELOW * anchor.height
        if len(below) == _MAX_BELOW or not is_part or not one.is_namelike:
            break
        if one.height >= _VARIANT_HEIGHT * anchor.height and len(above) == 1 and not below:
            above.insert(0, one.line)
        else:
            below.append(one.line)
        last = one.line
    return [*above, *below]


def _follows(line: TextLine, following: TextLine) -> bool:
    """Return whether a line comes next to or below another, without much space between."""
    left, top, right, bottom = extent(line)
    its_left, its_top, its_right, _ = extent(following)
    is_in_column = min(right, its_right) > max(left, its_left) or its_top < bottom
    return is_in_column and its_top - bottom <= _MAX_GAP * (bottom - top)

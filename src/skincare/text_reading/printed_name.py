"""Reads the name of a product from a pack: the lines around the one that says what it is, without brand and claims."""

import re
from collections.abc import Collection, Sequence
from typing import Final

from skincare.product.normalisation import normalised
from skincare.product.sizes import parse_size
from skincare.text_reading.line_groups import extent
from skincare.text_reading.pack_text import TextLine
from skincare.text_reading.pack_vocabulary import category_words
from skincare.text_reading.phrases import tokenise
from skincare.text_reading.size_repair import repair_size

_MAX_CHARACTERS: Final = 120
_MIN_CONFIDENCE: Final = 0.75
_MAX_WORDS: Final = 7
_MAX_ABOVE, _MAX_BELOW = 3, 2
# Print size of the lines of a name relative to the line with the category.
_MIN_HEIGHT_ABOVE, _MIN_HEIGHT_BELOW = 0.55, 0.85
# The largest gap between two lines of a name, in line heights.
_MAX_GAP: Final = 2.5
# A category in print of less than this share of the largest other print belongs to a claim.
_MIN_CATEGORY_HEIGHT: Final = 0.25
_CLAIM: Final = re.compile(
    r"\b(?:free|tested|certified|approved|all skin types?|skin types?|official store|since|made (?:in|with|from)|"
    r"net|www|laboratoires?|dermatologique|naturkosmetik|peaux|types de peau|hauttypen|no (?:parabens?|alcohol)|"
    r"vegan|cruelty|usda|enriched|clinically|gift from|with pure|sans|ohne|sin|senza)\b|"
    # The second part of a sentence, and whole sentences.
    r"^\W*(?:for|pour|für|to|with|and|mit|avec|innovative|clinical|0\s?%)\b|"
    r"\w\.\s+[A-Z]|[a-zA-Z]{3}\.$|^[a-z]+(?:\s+[a-z]+){4}",
    re.IGNORECASE,
)


def printed_name(lines: Sequence[TextLine], brand: str, brand_lines: Collection[TextLine] = ()) -> str:
    """Return the brand and the lines of the name in reading order.

    Empty if no line is part of a name, or if neither a brand nor a category shows that the image has a product.
    """
    own = [line for line in lines if line not in brand_lines and _is_namelike(line, brand)]
    anchor = _anchor(own)
    if anchor is None or not (brand or _names_category(anchor)):
        return ""
    parts = {normalised(brand): brand} if brand else {}
    for line in _block(own, anchor):
        parts.setdefault(normalised(line.text), line.text.strip())
    return " ".join(parts.values())[:_MAX_CHARACTERS].strip()


def _is_namelike(line: TextLine, brand: str) -> bool:
    is_read = line.confidence >= _MIN_CONFIDENCE and len(line.text.split()) <= _MAX_WORDS and is_wordlike(line.text)
    return is_read and not _CLAIM.search(line.text) and normalised(line.text) not in normalised(brand)


def _names_category(line: TextLine) -> bool:
    return bool(category_words() & set(tokenise(line.text)))


def is_wordlike(text: str) -> bool:
    """Return whether a line consists of words: three consecutive letters, mostly letters, and no size."""
    n_letters = sum(character.isalpha() for character in text)
    is_letters = n_letters >= 0.6 * len(text.replace(" ", ""))
    return is_letters and bool(re.search(r"[^\W\d_]{3}", text)) and not parse_size(repair_size(text))


def _anchor(lines: Sequence[TextLine]) -> TextLine | None:
    """Return the largest line with a category word, unless it is small print; without one the largest line."""
    largest = max(lines, key=lambda line: line.height, default=None)
    named = [line for line in lines if _names_category(line)]
    best = max(named, key=lambda line: line.height, default=None)
    if largest is None or best is None or best.height < _MIN_CATEGORY_HEIGHT * largest.height:
        return largest
    return best


def _block(lines: Sequence[TextLine], anchor: TextLine) -> list[TextLine]:
    """Return the lines of the name: the anchor and its neighbours above and below in similar or larger print."""
    at = lines.index(anchor)
    above = [anchor]
    for line in reversed(lines[:at]):
        if len(above) > _MAX_ABOVE or not _follows(line, above[0]) or line.height < _MIN_HEIGHT_ABOVE * anchor.height:
            break
        above.insert(0, line)
    below: list[TextLine] = []
    for line in lines[at + 1 :]:
        is_part = _names_category(line) or line.height >= _MIN_HEIGHT_BELOW * anchor.height
        if len(below) == _MAX_BELOW or not is_part or not _follows((below or [anchor])[-1], line):
            break
        below.append(line)
    return [*above, *below]


def _follows(line: TextLine, following: TextLine) -> bool:
    """Return whether a line comes next to or below another, without much space between."""
    left, top, right, bottom = extent(line)
    its_left, its_top, its_right, _ = extent(following)
    is_in_column = min(right, its_right) > max(left, its_left) or its_top < bottom
    return is_in_column and its_top - bottom <= _MAX_GAP * (bottom - top)

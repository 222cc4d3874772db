"""Rule-based extraction of a product from the text of its pack, without a model: lines in, `Product` out.

    ["ESTÉE LAUDER", "Nutritious", "2-in-1 Cleansing Foam", "4.2 FL. OZ. LIQ./125ml e"]
    -> Product(brand="Estée Lauder", category="Cleanser", name="Estée Lauder Nutritious 2-in-1 ...", size="125 ml")

It is the baseline of fine-tuned models, and the predictor before one is trained. `benchmarks/pack_fields.py` measures
it on real photos.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from skincare.product.brands import well_known_brands
from skincare.product.facts import shortened, split_ingredients
from skincare.product.origin import stated_manufacturer, stated_origin
from skincare.product.schema import Product
from skincare.product.use_time import UseTime, use_time_in_directions, use_time_in_name
from skincare.text_reading.known_brands import KnownBrands
from skincare.text_reading.pack_text import TextLine
from skincare.text_reading.printed_name import printed_name
from skincare.text_reading.printed_size import printed_size
from skincare.text_reading.unknown_brands import unknown_brand

# Longer lines are claims and directions, not names.
_MAX_NAME_WORDS: Final = 6
_MIN_INGREDIENTS: Final = 3

_HEADINGS: Final = {
    "ingredients": r"(?:full\s+|key\s+)?(?:ingredients|inci|ingr[ée]dients|zutaten|ingredientes|ingredienti|składniki|"
    r"состав|sastojci|thành phần|composition|içindekiler|全成分|成分|전성분)\b(?!\s+(?:inside|you|of|from|that))",
    "directions": r"(?:directions?(?:\s+for\s+use)?|how\s+to\s+use|usage|anwendung|conseils?\s+d['’]utilisation|"
    r"mode\s+d['’]emploi|modo\s+de\s+(?:empleo|uso)|modo\s+d['’]uso|sposób\s+użycia|способ\s+применения|cách\s+dùng|"
    r"hướng\s+dẫn\s+sử\s+dụng|kullanım|使用方法|사용방법|사용법)",
    "other": r"(?:caution|warnings?|precautions?|storage|achtung|attention|made\s*in|manufactured|mfg|mfd|"
    r"distributed|dist\.|"
    r"best\s+before|exp\b|batch|lot\b|net\b|www\.|benefits|results?\b)",
}
_HEADING: Final = re.compile(
    r"^\W*(?:" + "|".join(f"(?P<{name}>{pattern})" for name, pattern in _HEADINGS.items()) + r")\W*", re.IGNORECASE
)
_APPLY: Final = re.compile(r"^\W*(?:apply|use|massage|smooth)\b", re.IGNORECASE)


class ProductReader:
    """Extracts products from the text of packs.

    brands: further known brands in their canonical spelling, such as those of a catalogue. common_words: words that
    are not a brand by themselves, such as those that product names of several brands share
    (`skincare.product.brands.common_words`).
    """

    def __init__(self, brands: Iterable[str] = (), common_words: frozenset[str] = frozenset()) -> None:
        self.brands = tuple(brands)
        self.common_words = common_words
        self._known = KnownBrands([*self.brands, *well_known_brands()])

    def read(self, lines: Sequence[TextLine], category: str | None) -> Product:
        """Return the product extracted from the lines of a pack; category: the predicted label, if any."""
        brand, brand_lines = self._brand(lines)
        texts = [line.text for line in lines]
        joined = "\n".join(texts)
        sections = _sections(texts)
        origin = stated_origin(joined)
        return Product(
            brand=brand or None,
            category=category,
            country=origin or None,
            howToUse=shortened(sections.get("directions", "")) or None,
            ingredients=_listed(sections.get("ingredients", "")),
            manufacturer=stated_manufacturer(joined) or None,
            name=printed_name(lines, brand, brand_lines) or None,
            origin=origin or None,
            size=str(printed_size(lines) or "") or None,
            forNightOrMorning=_use_time(texts, sections.get("directions", "")),
        )

    def _brand(self, lines: Sequence[TextLine]) -> tuple[str, Sequence[TextLine]]:
        """Return the brand and the lines that hold it; empty if there is none."""
        known = self._known.find(lines)
        return (known.brand, known.lines) if known else unknown_brand(lines, self.common_words)


def _sections(texts: Sequence[str]) -> dict[str, str]:
    """Return heading -> text below it, until the next heading."""
    found: dict[str, list[str]] = {}
    current = ""
    for text in texts:
        if match := _HEADING.match(text):
            current = match.lastgroup or ""
            text = text[match.end() :]
            if current in found:
                current = ""
        if current and text.strip():
            found.setdefault(current, []).append(text.strip())
    return {heading: " ".join(parts) for heading, parts in found.items()}


def _listed(text: str) -> tuple[str, ...] | None:
    """Return the first ingredients of a list; None if it is none."""
    found = split_ingredients(text)
    return found if found and len(found) >= _MIN_INGREDIENTS else None


def _use_time(texts: Sequence[str], directions: str) -> UseTime | None:
    """Return when the product is used by its name, else by its directions."""
    short = [text for text in texts if len(text.split()) <= _MAX_NAME_WORDS and not _APPLY.match(text)]
    return use_time_in_name(" ".join(short)) or use_time_in_directions(directions)

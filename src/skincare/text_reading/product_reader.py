"""Rule-based extraction of a product from the text of its pack, without a model: lines in, `Product` out.

    ["ESTÉE LAUDER", "Nutritious", "2-in-1 Cleansing Foam", "4.2 FL. OZ. LIQ./125ml e"]
    -> Product(brand="Estée Lauder", category="Cleanser", name="Estée Lauder Nutritious 2-in-1 ...", size="125 ml")

It is the baseline of fine-tuned models, and the predictor before one is trained.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from skincare.product.facts import split_ingredients, stated_origin
from skincare.product.normalisation import normalised
from skincare.product.schema import Product
from skincare.product.sizes import Size, parse_size
from skincare.product.use_time import use_time_in_name
from skincare.text_reading.pack_text import TextLine

# Lines of small print hold claims and directions, never the name; the rest of a pack is at most this much smaller.
_MIN_NAME_HEIGHT: Final = 0.5
_MAX_NAME_LINES: Final = 4
_MAX_NAME_CHARACTERS: Final = 120
# A known brand has to fill this share of its line's characters: "Origins" in "the origins of beauty" is none.
_MIN_BRAND_SHARE: Final = 0.6
# Shorter brands count only as a whole line: "MAC" is in many words.
_MIN_BRAND_CHARACTERS: Final = 5
_MAX_BRAND_LINES: Final = 2

# The estimated sign of EU directive 76/211/EEC next to a quantity, which OCR reads as an e.
_ESTIMATED_SIGN: Final = re.compile(r"(?<=\d)(\s?(?:ml|cl|l|g|kg))\s?[e℮](?![a-z])|(?<![a-z])[e℮](?=\d)", re.IGNORECASE)
_ZERO: Final = re.compile(r"(?<=\d)[oO](?=\d|\s?(?:ml|g|oz)\b)")
_INGREDIENTS: Final = re.compile(
    r"^\W*(?:full\s+)?(?:ingredients|inci|ingr[ée]dients|zutaten|ingredientes)\b", re.IGNORECASE
)
_EDGES: Final = " .,+®™°|*\"'"


@dataclass(frozen=True)
class ProductReader:
    """Extracts products from the text of packs.

    brands: the known brands in their canonical spelling. common_words: words that are not a brand by themselves,
    such as those that product names of several brands share (`skincare.product.brands.common_words`).
    """

    brands: tuple[str, ...] = ()
    common_words: frozenset[str] = frozenset()

    def read(self, lines: Sequence[TextLine], category: str | None) -> Product:
        """Return the product extracted from the lines of a pack; category: the predicted label, if any."""
        texts = [line.text for line in lines]
        brand = known_brand(texts, self.brands) or unknown_brand(lines, self.common_words)
        return Product(
            brand=brand or None,
            category=category,
            ingredients=printed_ingredients(texts),
            name=printed_name(lines, brand) or None,
            origin=stated_origin(" ".join(texts)) or None,
            size=str(printed_size(lines) or "") or None,
            forNightOrMorning=use_time_in_name(" ".join(line.text for line in _large_lines(lines))),
        )


def printed_size(lines: Sequence[TextLine]) -> Size | None:
    """Return the most frequent size of the lines, of equally frequent ones that in the largest print; None without one.

    A pack shown twice, or with its box, has its size twice.
    """
    found = [(size, line.height) for line in lines if (size := parse_size(_repaired(line.text)))]
    quantities = [one for one in found if one[0].unit != "pieces"] or found
    if not quantities:
        return None
    votes = [sum(size.equals(other, 0.06) for other, _ in quantities) for size, _ in quantities]
    ranked = zip(votes, quantities, strict=True)
    return max(ranked, key=lambda one: (one[0], one[1][1]))[1][0]


def known_brand(texts: Sequence[str], brands: Iterable[str]) -> str:
    """Return the longest known brand that fills a line or two consecutive lines; empty if there is none."""
    spelled = {normalised(brand).replace(" ", ""): brand for brand in brands}
    best = ("", "")
    for n in range(1, _MAX_BRAND_LINES + 1):
        for start in range(len(texts) - n + 1):
            joined = normalised(" ".join(texts[start : start + n])).replace(" ", "")
            for key, brand in spelled.items():
                fills = key == joined or (len(key) >= max(_MIN_BRAND_CHARACTERS, _MIN_BRAND_SHARE * len(joined)))
                if fills and key in joined and len(key) > len(best[0]):
                    best = (key, brand)
    return best[1]


def unknown_brand(lines: Sequence[TextLine], common_words: frozenset[str] = frozenset()) -> str:
    """Return the first large line of words that are not all common; empty if there is none."""
    for line in _large_lines(lines):
        if _is_wordlike(line.text) and not set(normalised(line.text).split()) <= common_words:
            return line.text.strip(_EDGES)
    return ""


def printed_name(lines: Sequence[TextLine], brand: str) -> str:
    """Return brand and the largest lines in reading order, without sizes and repetitions."""
    chosen = sorted((line for line in _large_lines(lines) if _is_wordlike(line.text)), key=lambda line: -line.height)[
        : _MAX_NAME_LINES + 1
    ]
    parts = {normalised(brand): brand} if brand else {}
    for line in lines:
        if line in chosen and (key := normalised(line.text)) not in normalised(brand):
            parts.setdefault(key, line.text.strip())
    return " ".join(list(parts.values())[: _MAX_NAME_LINES + 1])[:_MAX_NAME_CHARACTERS].strip()


def printed_ingredients(texts: Sequence[str]) -> tuple[str, ...] | None:
    """Return the first ingredients of a list on the pack; None if no line begins one."""
    start = next((i for i, text in enumerate(texts) if _INGREDIENTS.match(text)), None)
    return None if start is None else split_ingredients(" ".join(texts[start:]))


def _large_lines(lines: Sequence[TextLine]) -> list[TextLine]:
    tallest = max((line.height for line in lines), default=0.0)
    return [line for line in lines if line.height >= _MIN_NAME_HEIGHT * tallest]


def _is_wordlike(text: str) -> bool:
    """Return whether a line consists of words: three consecutive letters, mostly letters, and no size."""
    n_letters = sum(character.isalpha() for character in text)
    is_letters = n_letters >= 0.6 * len(text.replace(" ", ""))
    return is_letters and bool(re.search(r"[^\W\d_]{3}", text)) and not parse_size(_repaired(text))


def _repaired(text: str) -> str:
    return _ZERO.sub("0", _ESTIMATED_SIGN.sub(lambda match: match[1] or "", text))

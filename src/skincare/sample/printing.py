"""The text printed on the packs of the sample shop.

The shares are chosen so that OCR is useful but not sufficient: 60 % of the products print their type in English. The
others print only the brand, the type in another language, or additionally the name of another category, as usage
instructions on real packs do.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Final, Literal

PrintKind = Literal["english", "brand_only", "foreign", "other_category"]
_SHARES: Final[dict[PrintKind, float]] = {"english": 0.6, "brand_only": 0.15, "foreign": 0.15, "other_category": 0.1}

_FOREIGN: Final[dict[str, tuple[str, ...]]] = {
    "Mask": ("Gesichtsmaske", "Masque visage"),
    "Body Wash": ("Gel douche", "Duschgel"),
    "Moisturiser": ("Tagescreme", "Creme hydratante"),
    "Cleanser": ("Gel nettoyant", "Reinigungsgel"),
    "Serum": ("Gesichtsserum", "Serum visage"),
    "Eye Care": ("Augencreme", "Contour des yeux"),
    "Mist": ("Brume visage", "Gesichtsspray"),
    "Oil": ("Huile seche", "Gesichtsol"),
    "Toner": ("Gesichtswasser", "Lotion tonique"),
    "Balm": ("Baume a levres", "Lippenbalsam"),
    "Exfoliator": ("Gommage", "Korperpeeling"),
    "Bath Salts": ("Badesalz", "Sels de bain"),
    "Bath Oil": ("Huile de bain", "Badeol"),
    "Peel": ("Peeling chimique", "Fruchtsaurepeeling"),
}
_USAGE: Final = ("use before {}", "use after {}", "pairs with our {}")
MAX_LINES: Final = 4


def printed_lines(brand: str, category: str, nouns: Mapping[str, Sequence[str]], seed: str) -> tuple[str, ...]:
    """Return the lines on a pack from top to bottom, the brand first; `nouns`: product types by category.

    The same seed gives the same lines; no shared random state is used.
    """
    rng = random.Random(f"print-{seed}")
    kind = rng.choices(list(_SHARES), list(_SHARES.values()))[0]
    if kind == "brand_only":
        return (brand,)
    if kind == "foreign":
        return (brand, rng.choice(_FOREIGN[category]))
    noun = rng.choice(nouns[category])
    if kind == "english":
        return (brand, noun)
    other = rng.choice(sorted(set(nouns) - {category}))
    return (brand, noun, rng.choice(_USAGE).format(rng.choice(nouns[other]).lower()))


def lines_of_name(name: str) -> tuple[str, ...]:
    """Return a product's name as lines: the first word alone, then two words per line."""
    brand, *words = name.split()
    pairs = [" ".join(words[i : i + 2]) for i in range(0, len(words), 2)]
    return (brand[:12], *pairs[: MAX_LINES - 1])

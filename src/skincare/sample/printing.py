"""What is printed on the packs of the sample shop, as on real ones: mostly what it is, now and then not.

Shares of products, chosen so that reading the pack helps and does not settle everything: three of five print their
product type in English, the rest only the brand, the type in another language, or beside it the name of another
category (what to use before or after), as hints and usage lines of real packs do.
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
    """Return the lines on a pack from top to bottom, the brand first; `nouns`: a category's words for it.

    The same seed gives the same lines; the caller's other random choices are left alone.
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
    """Return a product's name as a pack prints it: the first word large on its own, the rest in lines of two words."""
    brand, *words = name.split()
    pairs = [" ".join(words[i : i + 2]) for i in range(0, len(words), 2)]
    return (brand[:12], *pairs[: MAX_LINES - 1])

"""The 14 product categories: the names a model must answer with, and the families they belong to.

Every other module takes the names from here; to recognise something else, change CATEGORIES and PARENTS
(and the aliases of `skincare.inference.answer_parser`), nothing more.
"""

from typing import Final

CATEGORIES: Final[tuple[str, ...]] = (
    "Moisturiser",
    "Exfoliator",
    "Bath Salts",
    "Body Wash",
    "Eye Care",
    "Cleanser",
    "Bath Oil",
    "Serum",
    "Toner",
    "Mist",
    "Balm",
    "Mask",
    "Peel",
    "Oil",
)

# The column of a table or matrix that holds answers which name no category. It is never a category itself.
UNKNOWN: Final = "Unknown"

# Families by use and texture. Measured on the reference's errors, 48 % stay inside one family.
PARENTS: Final[dict[str, tuple[str, ...]]] = {
    "Bath & body": ("Bath Salts", "Bath Oil", "Body Wash"),
    "Cleanse & tone": ("Cleanser", "Toner", "Mist"),
    "Exfoliate & mask": ("Exfoliator", "Peel", "Mask"),
    "Leave-on care": ("Moisturiser", "Serum", "Eye Care"),
    "Oils & balms": ("Oil", "Balm"),
}


def parent_of(category: str) -> str:
    """Return the family of a category; KeyError for a name that is none of the 14."""
    for parent, children in PARENTS.items():
        if category in children:
            return parent
    raise KeyError(category)

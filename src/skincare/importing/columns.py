"""Detection of the columns of a table that hold the image, the category, the product, ..., unless the user gives them.

Columns are detected by name; image and category also by content if no name matches.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final, Literal

from skincare.errors import StageError
from skincare.file_formats import SUFFIXES
from skincare.importing.category_names import normalised

Role = Literal["image", "category", "product", "name", "licence", "attribution", "origin"]

# In order of preference.
_NAMES: Final[dict[Role, tuple[str, ...]]] = {
    "image": ("file name", "filename", "file", "image", "image path", "image file", "path", "img", "photo", "picture"),
    "category": ("category", "label", "labels", "class", "product type", "target", "type"),
    "product": ("product id", "product key", "product", "sku", "gtin", "ean", "barcode", "item id", "group"),
    "name": ("product name", "name", "title"),
    "licence": ("licence", "license"),
    "attribution": ("attribution", "author", "credit", "photographer"),
    "origin": ("source url", "origin", "url", "image url", "source"),
}  # fmt: skip
# Minimum share of the sampled cells that are images or labels.
_MIN_SHARE: Final = 0.5


def choose_columns(
    header: Sequence[str], sample: Sequence[Mapping[str, str]], given: Mapping[Role, str],
    is_category: Callable[[str], bool],
) -> dict[str, str]:  # fmt: skip
    """Return role -> column. Raises StageError if a given column or the image column is missing.

    sample: the first rows. The category column is optional: without it the folder of the image gives the category.
    """
    for role, column in given.items():
        if column not in header:
            raise StageError(f"--columns {role} {column}: there is no such column. Columns: {', '.join(header)[:1000]}")
    chosen: dict[str, str] = {str(role): column for role, column in given.items()}
    by_name = {normalised(column): column for column in reversed(header)}
    for role, names in _NAMES.items():
        found = next((by_name[name] for name in names if name in by_name), None)
        if role not in chosen and found and found not in chosen.values():
            chosen[role] = found
    for role, accepts in (("image", _is_image_name), ("category", is_category)):
        if role not in given and _share(sample, chosen.get(role), accepts) < _MIN_SHARE:
            best = max(header, key=lambda column: _share(sample, column, accepts), default="")
            if _share(sample, best, accepts) >= _MIN_SHARE:
                chosen = {key: column for key, column in chosen.items() if column != best} | {role: best}
    if "image" not in chosen:
        raise StageError(f"no column holds the images; specify it with --columns image NAME. Columns: "
                         f"{', '.join(header)[:1000]}")  # fmt: skip
    return chosen


def _share(sample: Sequence[Mapping[str, str]], column: str | None, accepts: Callable[[str], bool]) -> float:
    return sum(accepts(row.get(column, "")) for row in sample) / len(sample) if column and sample else 0.0


def _is_image_name(cell: str) -> bool:
    return PurePosixPath(cell.replace("\\", "/")).suffix.lower() in SUFFIXES

"""The file name of a product's image: `<slug>_<product-id>_<n>.jpg`; its image id is `<product-id>_<n>`, n from 1."""

import re
from pathlib import Path
from typing import Final

_FILE_NAME: Final = re.compile(r"[^/\\]*_(?P<product_id>[^/\\_]+)_(?P<n>[0-9]+)\.jpg")


def file_name(slug: str, product_id: str, n: int) -> str:
    """Return the file name of the n-th image of a product."""
    return f"{slug}_{product_id}_{n}.jpg"


def is_file_name(name: str) -> bool:
    """Return whether a file is named like a product's image."""
    return _FILE_NAME.fullmatch(name) is not None


def parse_path(path: str) -> tuple[str, str]:
    """Return product id and image id of a path below the root; ValueError for another name or a path that leaves it."""
    folder, _, name = path.rpartition("/")
    found = _FILE_NAME.fullmatch(name)
    if found is None or Path(folder).is_absolute() or ".." in folder.split("/"):
        raise ValueError(f"{path!r} is not a path like clean_dataset/images/<slug>_<product-id>_<n>.jpg")
    return found["product_id"], f"{found['product_id']}_{found['n']}"

"""A layout with a catalogue and scraped images, as scrape.py leaves it."""

import hashlib
import io
import random
from collections.abc import Mapping

from PIL import Image

from skincare.dataset import chat
from skincare.dataset.chat import Example
from skincare.labels import skincare_labels
from skincare.paths import Layout
from skincare.sample import drawing
from skincare.tables import CATALOGUE, IMAGES, CatalogueRow, ImageRow

CATEGORIES = skincare_labels().names

SHOP = "https://www.sample-shop.example"


def pack(seed: int, side_px: int = 480, *, view_seed: int | None = None) -> Image.Image:
    """A drawn pack: `seed` decides the packaging, `view_seed` another view than the front."""
    packaging = drawing.random_packaging(random.Random(seed))
    view = drawing.View() if view_seed is None else drawing.random_view(random.Random(view_seed))
    return drawing.draw(packaging, view, side_px, f"BRAND{seed}").image


def jpeg(image: Image.Image, quality: int = 92) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def url(product_id: str) -> str:
    return f"{SHOP}/pack-{product_id}/{product_id}.html"


def write_catalogue(layout: Layout, categories: Mapping[str, str], names: Mapping[str, str] | None = None) -> None:
    """Write a catalogue of product id -> category."""
    CATALOGUE.write(
        layout.catalogue,
        [
            CatalogueRow((names or {}).get(product_id, f"Pack {product_id}"), url(product_id), category)
            for product_id, category in categories.items()
        ],
    )


def write_images(layout: Layout, images: Mapping[str, bytes]) -> None:
    """Write images, given as image id -> bytes, and their table."""
    layout.product_images.mkdir(parents=True, exist_ok=True)
    rows = []
    for image_id, content in images.items():
        product_id = image_id.rpartition("_")[0]
        file = layout.product_images / f"pack-{product_id}_{image_id}.jpg"
        file.write_bytes(content)
        rows.append(
            ImageRow(
                url(product_id), image_id, product_id, layout.relative(file), f"{SHOP}/{image_id}.jpg", 0, 0,
                len(content), hashlib.sha256(content).hexdigest(),
            )
        )  # fmt: skip
    IMAGES.write(layout.images_table, rows)


def write_dataset_files(layout: Layout, sizes: Mapping[str, int], *, first: int = 0) -> dict[str, list[Example]]:
    """Write train, val and test files of drawn packs, categories in turn; return their examples."""
    layout.clean_images.mkdir(parents=True, exist_ok=True)
    parts: dict[str, list[Example]] = {}
    n = first
    for split, size in sizes.items():
        parts[split] = []
        for _ in range(size):
            file = layout.clean_images / f"pack_{20_000_000 + n}_1.jpg"
            file.write_bytes(jpeg(pack(n, 224)))
            parts[split].append(chat.example(layout.relative(file), CATEGORIES[n % len(CATEGORIES)], skincare_labels()))
            n += 1
        chat.write_dataset(layout, split, parts[split])
    return parts

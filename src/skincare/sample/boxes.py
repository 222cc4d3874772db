"""Where the products are in the sample shop's pictures: drawn again, and the drawing's own box taken."""

import json
from collections.abc import Collection
from typing import Final

from skincare.paths import Layout
from skincare.sample import drawing
from skincare.sample.products import Picture, Product, sample_products

# Boxes are shares of the side, and so hardly depend on it.
_SIDE_PX: Final = 200


def product_boxes(layout: Layout, image_ids: Collection[str]) -> dict[str, tuple[float, float, float, float]]:
    """Return image id -> (left, top, right, bottom) as shares of the side; empty where no sample shop was stocked."""
    if not layout.shop_truth.is_file():
        return {}
    seed = json.loads(layout.shop_truth.read_text(encoding="utf-8"))["seed"]
    products = {one.product_id: one for one in sample_products(seed)}
    return {
        f"{product.product_id}_{picture.n}": _box(*_original(product, picture, products))
        for product in products.values()
        for picture in product.pictures
        if f"{product.product_id}_{picture.n}" in image_ids
    }


def _original(product: Product, picture: Picture, products: dict[str, Product]) -> tuple[Product, Picture]:
    """Return the photo that a picture is, or that it copies."""
    while picture.copy_of is not None:
        product = products[picture.copy_of[0]]
        picture = product.pictures[picture.copy_of[1] - 1]
    return product, picture


def _box(product: Product, picture: Picture) -> tuple[float, float, float, float]:
    left, top, right, bottom = drawing.draw(product.packaging, picture.view, _SIDE_PX).box
    return left / _SIDE_PX, top / _SIDE_PX, right / _SIDE_PX, bottom / _SIDE_PX

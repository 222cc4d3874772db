"""Ground-truth product boxes of the sample shop's images, from drawing them again."""

import json
from collections.abc import Collection
from typing import Final

from skincare.paths import Layout
from skincare.sample import drawing
from skincare.sample.products import Product, ShopImage, sample_products

# Boxes are relative to the side and hardly depend on it.
_SIDE_PX: Final = 200


def product_boxes(layout: Layout, image_ids: Collection[str]) -> dict[str, tuple[float, float, float, float]]:
    """Return image id -> (left, top, right, bottom) relative to the side; empty without a sample shop."""
    if not layout.shop_truth.is_file():
        return {}
    seed = json.loads(layout.shop_truth.read_text(encoding="utf-8"))["seed"]
    products = {one.product_id: one for one in sample_products(seed)}
    return {
        f"{product.product_id}_{image.n}": _box(*_original(product, image, products))
        for product in products.values()
        for image in product.images
        if f"{product.product_id}_{image.n}" in image_ids
    }


def _original(product: Product, image: ShopImage, products: dict[str, Product]) -> tuple[Product, ShopImage]:
    """Return the photo itself, or the original of a duplicate."""
    while image.copy_of is not None:
        product = products[image.copy_of[0]]
        image = product.images[image.copy_of[1] - 1]
    return product, image


def _box(product: Product, image: ShopImage) -> tuple[float, float, float, float]:
    left, top, right, bottom = drawing.draw(product.packaging, image.view, _SIDE_PX).box
    return left / _SIDE_PX, top / _SIDE_PX, right / _SIDE_PX, bottom / _SIDE_PX

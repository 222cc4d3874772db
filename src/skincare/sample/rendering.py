"""The responses of the sample shop: pages in the format of LookFantastic, images with their planted defects."""

import html
import io
import json
from collections.abc import Mapping
from typing import Any, Final

from PIL import Image, ImageFilter

from skincare.sample import drawing
from skincare.sample.products import Product, ShopImage

ERROR_PAGE: Final = b"<!doctype html><html><head><title>Oops</title></head><body>We could not find that.</body></html>"
START_PAGE: Final = (
    b"<!doctype html><html><head><title>The sample shop</title></head><body><h1>Welcome</h1>"
    b"<p>A made-up shop with drawn products.</p></body></html>"
)
CHALLENGE_PAGE: Final = b"<!doctype html><title>Just a moment...</title><form id='challenge-form'></form>"
_SMALL_SIDE_PX: Final = 120


def image_path(product: Product, image: ShopImage) -> str:
    """Return the path under which the shop serves an image."""
    return f"/productimg/original/{product.product_id}-{image.n}.jpg"


def page(product: Product) -> bytes:
    """Return a product's page, variant B: the images in a script constant, and once more in JSON-LD."""
    paths = [image_path(product, image) for image in product.images]
    sized = [{"original": path, "thumbnail": path.replace("original", "130/130")} for path in paths]
    script = "" if product.behaviour == "no_script" else f"const selected = 0;\nconst images = {_script_json(sized)};"
    block = {
        "@context": "https://schema.org",
        "@type": "Product",
        "name": product.name,
        "sku": product.product_id,
        "brand": {"@type": "Brand", "name": product.brand},
        "image": paths,
        "offers": [{"@type": "Offer", "priceCurrency": "GBP", "price": "12.00"}],
    }
    name = html.escape(product.name)
    return f"""<!doctype html>
<html lang="en-gb"><head><meta charset="utf-8"><title>{name} | The sample shop</title>
<script type="application/ld+json">{_script_json(block)}</script></head>
<body><main id="view-item-container" data-track-push="{product.product_id}">
<div><div><script>{script}</script></div></div>
<div><h1 id="product-title">{name}</h1><p id="product-price">&pound;12.00</p></div>
<button data-tracking-push="How to Use" aria-controls="use">How to Use</button>
<div id="use"><div class="attribute-content">Use it as often as you like.</div></div>
</main></body></html>""".encode()


def image_bytes(product: Product, one: ShopImage, products: Mapping[str, Product]) -> bytes:
    """Return the bytes of an image as served; `products`: all products by id, to find the original of a duplicate."""
    if one.copy_of is not None:
        product_id, n = one.copy_of
        owner = products[product_id]
        original = image_bytes(owner, owner.images[n - 1], products)
        return _copied(original, one)
    if one.kind == "html":
        return ERROR_PAGE
    image = drawing.draw(product.packaging, one.view, one.side_px, *product.printed, full=product.full_print).image
    if one.kind == "blurred":
        image = image.filter(ImageFilter.GaussianBlur(one.side_px / 40))
    elif one.kind == "small":
        image = image.resize((_SMALL_SIDE_PX, _SMALL_SIDE_PX), Image.Resampling.LANCZOS)
    if one.kind in ("webp", "png"):
        return _encoded(image, one.kind.upper(), quality=90)
    content = _encoded(image, "JPEG", quality=92)
    return content[: len(content) * 3 // 5] if one.kind == "truncated" else content


def _copied(original: bytes, one: ShopImage) -> bytes:
    if one.kind.startswith("copy"):
        return original
    image = Image.open(io.BytesIO(original)).convert("RGB")
    if one.kind == "rescaled":
        side = round(image.width * 0.75)
        return _encoded(image.resize((side, side), Image.Resampling.LANCZOS), "JPEG", quality=88)
    return _encoded(image, "JPEG", quality=45)


def _encoded(image: Image.Image, kind: str, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality)
    return buffer.getvalue()


def _script_json(value: Any) -> str:
    """Return JSON that is safe inside a script element."""
    return json.dumps(value).replace("<", "\\u003c")

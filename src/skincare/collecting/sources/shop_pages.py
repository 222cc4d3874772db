"""Shared by sources of HTML pages: product types and the parser."""

from typing import Final
from urllib.parse import urlsplit

from skincare.catalogue import Product
from skincare.collecting.pages import parse_product_page
from skincare.collecting.scrape_state import Failure, ListedImage
from skincare.collecting.sources.source import ParsedProduct

NO_LICENCE: Final = "none stated"

# Product types of English-language shops by category, in lower case. Ambiguous types ("body lotion or oil", "gift set")
# are omitted, so that their products are reported as of unknown category.
SHOP_TYPES: Final[dict[str, str]] = {
    **dict.fromkeys(
        ("moisturiser", "moisturisers", "moisturizer", "moisturizers", "face cream", "face creams", "day cream",
         "night cream", "night creams", "face moisturisers", "face moisturizers", "body lotion", "body lotions",
         "body moisturisers"), "Moisturiser"),
    **dict.fromkeys(
        ("exfoliator", "exfoliators", "exfoliant", "exfoliants", "face scrub", "face scrubs", "body scrub",
         "body scrubs", "scrub", "scrubs"), "Exfoliator"),
    **dict.fromkeys(("bath salts", "bath salt", "bath soak", "bath soaks"), "Bath Salts"),
    **dict.fromkeys(("body wash", "body washes", "shower gel", "shower gels", "shower cream"), "Body Wash"),
    **dict.fromkeys(("eye care", "eye cream", "eye creams", "eye serum", "eye gel", "eye masks"), "Eye Care"),
    **dict.fromkeys(
        ("cleanser", "cleansers", "face wash", "face washes", "cleansing gel", "micellar water", "micellar waters",
         "face cleansers"), "Cleanser"),
    **dict.fromkeys(("bath oil", "bath oils"), "Bath Oil"),
    **dict.fromkeys(("serum", "serums", "face serum", "face serums"), "Serum"),
    **dict.fromkeys(("toner", "toners", "tonic", "face toners"), "Toner"),
    **dict.fromkeys(("mist", "mists", "face mist", "face mists", "facial spray"), "Mist"),
    **dict.fromkeys(("balm", "balms", "lip balm", "lip balms"), "Balm"),
    **dict.fromkeys(("mask", "masks", "face mask", "face masks", "sheet mask", "sheet masks"), "Mask"),
    **dict.fromkeys(("peel", "peels", "face peel", "face peels", "chemical peel"), "Peel"),
    **dict.fromkeys(("oil", "oils", "face oil", "face oils", "body oil", "body oils"), "Oil"),
}  # fmt: skip


def read_web_page(content: bytes, url: str, product: Product) -> ParsedProduct:
    """Parse the page of a product that was fetched from `url`."""
    page = parse_product_page(content, url)
    if not page.is_product_page:
        reason = "challenge" if page.kind == "challenge" else "not_a_product_page"
        return ParsedProduct(failure=Failure(reason, page.title[:100]))
    if not page.image_urls:
        return ParsedProduct(metadata=page.metadata, failure=Failure("no_images"))
    shop = urlsplit(product.url).hostname or ""
    images = tuple(ListedImage(image_url, NO_LICENCE, shop) for image_url in page.image_urls)
    return ParsedProduct(images, page.metadata, NO_LICENCE)

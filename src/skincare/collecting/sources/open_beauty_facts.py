"""Open Beauty Facts: open data on cosmetics, by barcode or by category tag, through its API, version 2.

Data under ODbL 1.0, images under CC BY-SA 3.0 with attribution of the uploader. The API requires a contact address and
allows 15 product requests and 10 searches a minute. The product id is the barcode, zero-padded to 13 digits.
Source: https://openfoodfacts.github.io/openfoodfacts-server/api/ and .../api/how-to-download-images/
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlencode

from skincare import urls
from skincare.catalogue import Product
from skincare.collecting.metadata import clean, clean_text, merge
from skincare.collecting.scrape_state import Failure, ListedImage
from skincare.collecting.sources.source import Listing, ParsedProduct, category_of
from skincare.tables import CatalogueRow

SITE: Final = "https://world.openbeautyfacts.org"
IMAGES: Final = "https://images.openbeautyfacts.org"
IMAGE_LICENCE: Final = "CC BY-SA 3.0"
DATA_LICENCE: Final = "ODbL 1.0"
PAGE_SIZE: Final = 100

_PRODUCT_FIELDS: Final = (
    "code,lang,product_name,product_name_en,generic_name,generic_name_en,brands,quantity,ingredients_text,"
    "ingredients_text_en,manufacturing_places,images"
)
_LISTING_FIELDS: Final = "code,product_name,product_name_en,brands,categories_tags"
_BARCODE: Final = re.compile(r"/product/([0-9]{4,20})(?:/|$)")
_MAX_IMAGES: Final = 20

# Tags of the cosmetics taxonomy; the most specific known tag of a product decides.
CATEGORY_TAGS: Final[dict[str, str]] = {
    **dict.fromkeys(
        ("en:face-creams", "en:facial-creams", "en:moisturizers", "en:moisturisers", "en:face-moisturizers",
         "en:day-creams", "en:night-creams", "en:body-creams", "en:body-lotions", "en:body-milks", "en:hand-creams",
         "en:moisturizing-creams"), "Moisturiser"),
    **dict.fromkeys(
        ("en:exfoliants", "en:exfoliators", "en:scrubs", "en:face-scrubs", "en:facial-scrubs", "en:body-scrubs"),
        "Exfoliator"),
    **dict.fromkeys(("en:bath-salts",), "Bath Salts"),
    **dict.fromkeys(("en:shower-gels", "en:body-washes", "en:body-wash", "en:shower-creams"), "Body Wash"),
    **dict.fromkeys(("en:eye-creams", "en:eye-care", "en:eye-gels", "en:eye-contour-creams"), "Eye Care"),
    **dict.fromkeys(
        ("en:cleansers", "en:face-cleansers", "en:facial-cleansers", "en:micellar-waters", "en:cleansing-milks",
         "en:cleansing-gels", "en:face-washes"), "Cleanser"),
    **dict.fromkeys(("en:bath-oils",), "Bath Oil"),
    **dict.fromkeys(("en:serums", "en:face-serums", "en:facial-serums"), "Serum"),
    **dict.fromkeys(("en:toners", "en:face-toners", "en:facial-toners", "en:tonic-lotions"), "Toner"),
    **dict.fromkeys(("en:face-mists", "en:facial-mists", "en:thermal-waters"), "Mist"),
    **dict.fromkeys(("en:balms", "en:lip-balms"), "Balm"),
    **dict.fromkeys(("en:face-masks", "en:facial-masks", "en:sheet-masks"), "Mask"),
    **dict.fromkeys(("en:peels", "en:peelings", "en:chemical-peels"), "Peel"),
    **dict.fromkeys(("en:face-oils", "en:body-oils", "en:massage-oils", "en:facial-oils"), "Oil"),
}  # fmt: skip


class OpenBeautyFacts:
    """Products by barcode or category tag."""

    name: Final = "open_beauty_facts"
    delays_s: Final[Mapping[str, float]] = {SITE: 4.0, IMAGES: 1.0}
    listing_delay_s: Final = 6.0
    needs_contact: Final = True

    def page_url(self, product: Product) -> str:
        """Return the API URL of a product."""
        return f"{SITE}/api/v2/product/{_barcode(product.url)}.json?fields={_PRODUCT_FIELDS}"

    def read(self, content: bytes, url: str, product: Product) -> ParsedProduct:
        """Parse the API response for one product: its front images and metadata."""
        answer = _json_object(content)
        if "/product/" not in url:
            return ParsedProduct(failure=Failure("redirected_away"))
        found = answer.get("product")
        if not isinstance(found, dict) or answer.get("status") not in (1, "1", "success"):
            return ParsedProduct(failure=Failure("not_found" if "status" in answer else "not_an_answer"))
        code = str(answer.get("code") or found.get("code"))
        if code.lstrip("0") != product.product_id.lstrip("0"):
            return ParsedProduct(failure=Failure("other_product", clean_text(code, 30)))
        metadata = merge([("api", _stated(found))])
        images = tuple(_front_images(found, product.product_id))
        return ParsedProduct(images, metadata, DATA_LICENCE, None if images else Failure("no_images"))

    def catalogue_row(self, row: CatalogueRow) -> CatalogueRow:
        """Return the row with the id of its barcode, given directly or in the product URL."""
        given = row.product_url.strip()
        barcode = given if re.fullmatch(r"[0-9]{4,20}", given) else _barcode(given)
        category = category_of(row.product_type, CATEGORY_TAGS)
        row = dataclasses.replace(row, product_type=category, source=self.name)
        return _with_barcode(row, barcode) if barcode else row

    def listing_url(self, query: str, page: int) -> str:
        """Return the search URL for products with a front image and a category tag such as en:face-creams."""
        parameters = {"categories_tags": query, "states_tags": "en:front-photo-selected", "fields": _LISTING_FIELDS,
                 "page_size": PAGE_SIZE, "page": page}  # fmt: skip
        return f"{SITE}/api/v2/search?{urlencode(parameters, safe=':,')}"

    def read_listing(self, content: bytes) -> Listing:
        """Parse a search response; raises ValueError if it is invalid."""
        answer = _json_object(content)
        products, count = answer.get("products"), answer.get("count")
        if not isinstance(products, list) or not isinstance(count, int) or isinstance(count, bool):
            raise ValueError("invalid search response")
        rows = (_listed(one) for one in products[:PAGE_SIZE] if isinstance(one, dict))
        return Listing(tuple(row for row in rows if row), -(-max(count, 0) // PAGE_SIZE))


def image_folder(barcode: str) -> str:
    """Return the folder URL of a product's images.

    "42015086" -> https://images.openbeautyfacts.org/images/products/000/004/201/5086
    """
    padded = barcode.zfill(13)
    return f"{IMAGES}/images/products/{padded[:3]}/{padded[3:6]}/{padded[6:9]}/{padded[9:]}"


def _front_images(product: Mapping[str, Any], barcode: str) -> Iterator[ListedImage]:
    """Yield the selected front images, the product's own language first."""
    images = product.get("images")
    if not isinstance(images, dict):
        return
    own = f"front_{product.get('lang')}"
    fronts = sorted((key for key in images if re.fullmatch(r"front_[a-z]{2,3}", str(key))), key=lambda k: (k != own, k))
    seen = set()
    for key in fronts[:_MAX_IMAGES]:
        selected = images[key] if isinstance(images[key], dict) else {}
        photo, revision = str(selected.get("imgid")), str(selected.get("rev"))
        # Languages often share one image.
        if photo in seen or not re.fullmatch(r"[0-9]{1,6}", revision):
            continue
        seen.add(photo)
        raw = images.get(photo)
        uploader = clean_text(raw.get("uploader"), 100) if isinstance(raw, dict) else ""
        address = f"{image_folder(barcode)}/{key}.{revision}.full.jpg"
        yield ListedImage(address, IMAGE_LICENCE, f"{uploader or 'contributors'}, Open Beauty Facts")


def _stated(product: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": product.get("product_name_en") or product.get("product_name"),
        "brand": product.get("brands"),
        "description": product.get("generic_name_en") or product.get("generic_name"),
        "size": product.get("quantity"),
        "ingredients": product.get("ingredients_text_en") or product.get("ingredients_text"),
        "country": product.get("manufacturing_places"),
    }


def _listed(product: Mapping[str, Any]) -> CatalogueRow | None:
    """Return the catalogue row of a listed product; None without a barcode."""
    code = str(product.get("code"))
    if not re.fullmatch(r"[0-9]{4,20}", code):
        return None
    name = clean("name", product.get("product_name_en")) or clean("name", product.get("product_name"))
    brand = clean("brand", product.get("brands")).partition(",")[0]
    full_name = name if name.casefold().startswith(brand.casefold()) else f"{brand} {name}"
    tags = product.get("categories_tags")
    row = CatalogueRow(full_name, "", _category(tags if isinstance(tags, list) else []), source=OpenBeautyFacts.name)
    return _with_barcode(row, code)


def _category(tags: list[Any]) -> str:
    """Return the category of the most specific known tag, else the last tag; tags go from general to specific."""
    named = [clean_text(tag, 100) for tag in tags]
    known = [CATEGORY_TAGS[tag] for tag in named if tag in CATEGORY_TAGS]
    return known[-1] if known else (named[-1] if named else "")


def _with_barcode(row: CatalogueRow, barcode: str) -> CatalogueRow:
    words = urls.safe_name(row.product_name)
    return dataclasses.replace(row, product_url=f"{SITE}/product/{barcode}/{words}", product_id=barcode.zfill(13))


def _barcode(url: str) -> str:
    found = _BARCODE.search(url)
    return found[1] if found else ""


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}

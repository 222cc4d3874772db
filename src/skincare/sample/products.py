"""The products of the sample shop, with planted defects and expected outcomes, generated from a seed.

As in a real shop, packs indicate the category without determining it. Container, colour and mark of a product are
drawn from the style of its category, and categories share styles. A classifier that knows `_STYLES` reaches 62 % with
the container alone, 87 % with container and colour, and 96 % with all three.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

from skincare.labels import skincare_labels
from skincare.sample import drawing
from skincare.sample.containers import CONTAINERS
from skincare.sample.drawing import Packaging, View
from skincare.sample.full_labels import FullPrint
from skincare.sample.marks import MARKS
from skincare.sample.printing import lines_of_name, printed_lines

ORIGIN: Final = "https://www.sample-shop.example"
_FIRST_ID: Final = 10_000_000

# Products per category: a sixth of the real catalogue's rows, which are as unbalanced.
N_PRODUCTS: Final[dict[str, int]] = {
    "Mask": 22, "Body Wash": 22, "Moisturiser": 20, "Cleanser": 20, "Serum": 20, "Eye Care": 18, "Mist": 14,
    "Oil": 13, "Toner": 13, "Balm": 11, "Exfoliator": 10, "Bath Salts": 7, "Bath Oil": 6, "Peel": 6,
}  # fmt: skip


class Style(NamedTuple):
    """Typical packs of a category, in order of decreasing probability, and its product types."""

    containers: tuple[str, ...]
    colours: tuple[str, ...]
    marks: tuple[str, ...]
    nouns: tuple[str, ...]


_STYLES: Final[dict[str, Style]] = {
    "Mask": Style(("sachet", "jar"), ("green", "black", "pink"), ("smile", "leaf"), ("Face Mask", "Sheet Mask")),
    "Body Wash": Style(("bottle", "pump"), ("blue", "yellow", "white"), ("bubble", "flower"), ("Shower Gel", "Wash")),
    "Moisturiser": Style(("jar", "pump"), ("white", "pink", "blue"), ("drop", "sun"), ("Day Cream", "Moisturiser")),
    "Cleanser": Style(("pump", "tube"), ("green", "white", "blue"), ("bubble", "wave"), ("Gel Cleanser", "Face Wash")),
    "Serum": Style(("dropper", "pump"), ("amber", "purple", "white"), ("drop", "star"), ("Serum", "Booster Serum")),
    "Eye Care": Style(("tube", "stick"), ("purple", "black", "white"), ("iris", "moon"), ("Eye Cream", "Eye Gel")),
    "Mist": Style(("atomiser", "bottle"), ("blue", "pink", "green"), ("flake", "wave"), ("Face Mist", "Body Spray")),
    "Oil": Style(("dropper", "flask"), ("yellow", "amber", "green"), ("leaf", "sun"), ("Face Oil", "Body Oil")),
    "Toner": Style(("bottle", "atomiser"), ("pink", "white", "green"), ("wave", "star"), ("Toner", "Tonic")),
    "Balm": Style(("tin", "stick"), ("yellow", "pink", "amber"), ("flower", "sun"), ("Lip Balm", "Rescue Balm")),
    "Exfoliator": Style(("tube", "jar"), ("amber", "black", "yellow"), ("crystal", "star"), ("Face Scrub", "Polish")),
    "Bath Salts": Style(("sachet", "tin"), ("purple", "blue", "white"), ("crystal", "flake"), ("Bath Salts", "Soak")),
    "Bath Oil": Style(("flask", "bottle"), ("purple", "green", "amber"), ("moon", "flower"), ("Bath Oil", "Elixir")),
    "Peel": Style(("dropper", "sachet"), ("black", "white", "pink"), ("flake", "iris"), ("Peel", "Peel Pads")),
}  # fmt: skip
_TYPICAL_PROBABILITIES: Final = (0.8, 0.15, 0.05)
_ATYPICAL_SHARE: Final = 0.05

_BRANDS: Final = (
    "Halden", "Oru", "Verity Lane", "Fjord & Fern", "Marlowe", "Sole Mio", "Petrichor", "Kindred", "Atelier Nu",
    "Bramble", "Lumen", "Salt Row", "Noor", "Willowby", "Tidal", "Casa Verde",
)  # fmt: skip
_WORDS: Final = (
    "Calming", "Daily", "Radiance", "Overnight", "Deep", "Gentle", "Vitamin C", "Rose", "Hyaluronic", "Green Tea",
    "Oat", "Citrus", "Repair", "Silk", "Clarifying", "Cloud",
)  # fmt: skip
_INGREDIENTS: Final = ("aqua", "glycerin", "squalane", "niacinamide", "parfum", "panthenol", "limonene", "tocopherol")

# Behaviour of product pages, how often each is planted, and the expected outcome; all others are "fine".
PageBehaviour = Literal[
    "fine", "slow", "unavailable_twice", "busy_once", "moved", "no_script",
    "gone", "not_found_with_status_200", "moved_to_the_start_page", "no_images", "challenge", "only_broken_images",
]  # fmt: skip
PAGE_DEFECTS: Final[dict[PageBehaviour, tuple[int, str]]] = {
    "slow": (4, "scraped"),
    "unavailable_twice": (6, "scraped"),
    "busy_once": (2, "scraped"),
    "moved": (6, "scraped"),
    "no_script": (6, "scraped"),
    "gone": (5, "http_404"),
    "not_found_with_status_200": (2, "not_a_product_page"),
    "moved_to_the_start_page": (2, "redirected_away"),
    "no_images": (1, "no_images"),
    "challenge": (1, "challenge"),
    "only_broken_images": (1, "no_image_saved"),
}

# Defects of images: how often each is planted, and the expected outcome.
ImageKind = Literal[
    "photo", "webp", "png", "unavailable_twice", "copy", "recompressed", "rescaled", "copy_of_other_product",
    "recompressed_of_other_product", "copy_in_other_category", "blurred", "small", "truncated", "html", "gone",
]  # fmt: skip
IMAGE_DEFECTS: Final[dict[ImageKind, tuple[int, str]]] = {
    "webp": (5, "kept"),
    "png": (4, "kept"),
    "unavailable_twice": (3, "kept"),
    "copy": (12, "duplicate_bytes"),
    "recompressed": (10, "near_duplicate"),
    "rescaled": (6, "near_duplicate"),
    "copy_of_other_product": (6, "duplicate_bytes"),
    "recompressed_of_other_product": (4, "near_duplicate"),
    "copy_in_other_category": (2, "category_conflict"),
    "blurred": (20, "blurred"),
    "small": (12, "too_small"),
    "truncated": (8, "truncated"),
    "html": (6, "not_an_image"),
    "gone": (5, "http_404"),
}
_DUPLICATES: Final = {"copy", "recompressed", "rescaled"}
_DUPLICATES_OF_OTHERS: Final = {"copy_of_other_product", "recompressed_of_other_product", "copy_in_other_category"}


@dataclass(frozen=True)
class ShopImage:
    """One image of a product's page; `copy_of`: (product id, number) of the original of a duplicate."""

    n: int
    kind: ImageKind
    view: View
    side_px: int
    copy_of: tuple[str, int] | None = None


@dataclass(frozen=True)
class Product:
    """One product of the shop."""

    product_id: str
    name: str
    brand: str
    category: str
    path: str
    packaging: Packaging
    images: tuple[ShopImage, ...]
    behaviour: PageBehaviour = "fine"
    printed: tuple[str, ...] = ()
    """Lines on the pack, the brand first."""
    full_print: FullPrint | None = None
    """Print of a full label, instead of these lines."""


def sample_products(seed: int) -> list[Product]:
    """Return the shop's products with their planted defects; the same seed gives the same shop."""
    rng = random.Random(seed)
    categories = [category for category in skincare_labels().names for _ in range(N_PRODUCTS[category])]
    rng.shuffle(categories)
    used: set[Packaging] = set()
    products: list[Product] = []
    for i, category in enumerate(categories):
        product_id = str(_FIRST_ID + 37 * i + rng.randrange(37))
        older = next((one for one in products[-12:] if one.category == category), None)
        if older is not None and rng.random() < 0.12 and _is_first_size(older, products):
            products.append(_other_size(older, product_id, rng))
        else:
            products.append(_product(product_id, category, used, rng))
    products = _plant_page_defects(products, rng)
    return _plant_image_defects(products, rng)


def product_types(category: str) -> tuple[str, ...]:
    """Return the product types that names of a category contain."""
    return _STYLES[category].nouns


def catalogue_product(product_id: str, name: str, category: str, path: str) -> Product:
    """Return a product without defects for a row of another catalogue."""
    rng = random.Random(product_id)
    packaging, photos = _packaging(category, rng), _photos(rng)
    brand, printed = name.split()[0][:12], lines_of_name(name)
    return Product(product_id, name, brand, category, path, packaging, photos, printed=printed)


def expected_outcomes(products: Sequence[Product]) -> dict[str, str]:
    """Return image id -> expected outcome of each listed image: "kept" or the reason of its rejection."""
    outcomes: dict[str, str] = {}
    for product in products:
        for image in product.images:
            outcome = IMAGE_DEFECTS.get(image.kind, (0, "kept"))[1]
            outcomes[f"{product.product_id}_{image.n}"] = outcome
    for product in products:
        for image in product.images:
            if image.kind == "copy_in_other_category" and image.copy_of:
                outcomes["{}_{}".format(*image.copy_of)] = "category_conflict"
    return outcomes


def _product(product_id: str, category: str, used: set[Packaging], rng: random.Random) -> Product:
    packaging = _packaging(category, rng)
    while packaging in used:
        packaging = _packaging(category, rng)
    used.add(packaging)
    brand = rng.choice(_BRANDS)
    words = " ".join(rng.sample(_WORDS, 2))
    name = f"{brand} {words} {rng.choice(_STYLES[category].nouns)} {rng.choice((30, 50, 75, 100, 200))}ml"
    printed = printed_lines(brand, category, {key: style.nouns for key, style in _STYLES.items()}, product_id)
    return Product(product_id, name, brand, category, _path(name, product_id), packaging, _photos(rng), printed=printed)


def _is_first_size(product: Product, products: Sequence[Product]) -> bool:
    return sum(one.packaging == product.packaging for one in products) == 1


def _other_size(older: Product, product_id: str, rng: random.Random) -> Product:
    """Return another size of a product: same pack, same name except for the size, other photos."""
    name = f"{older.name.rpartition(' ')[0]} {rng.choice((15, 25, 150, 250))}ml"
    photos = tuple(replace(one, view=drawing.random_view(rng)) for one in _photos(rng))
    return replace(older, product_id=product_id, name=name, path=_path(name, product_id), images=photos)


def _packaging(category: str, rng: random.Random) -> Packaging:
    style = _STYLES[category]

    def pick(favoured: Sequence[str], everything: Sequence[str]) -> str:
        if rng.random() < _ATYPICAL_SHARE:
            return rng.choice(everything)
        return rng.choices(favoured, _TYPICAL_PROBABILITIES[: len(favoured)])[0]

    return replace(
        drawing.random_packaging(rng),
        container=pick(style.containers, list(CONTAINERS)),
        body_colour=pick(style.colours, list(drawing.BODY_COLOURS)),
        mark=pick(style.marks, list(MARKS)),
    )


def _photos(rng: random.Random) -> tuple[ShopImage, ...]:
    """Return one to five photos: the front view on white, then random views."""
    n_photos = rng.choices((1, 2, 3, 4, 5), (1, 3, 4, 3, 1))[0]
    views = [View(), *(drawing.random_view(rng) for _ in range(n_photos - 1))]
    return tuple(ShopImage(n, "photo", view, rng.randrange(448, 641, 16)) for n, view in enumerate(views, start=1))


def _plant_page_defects(products: list[Product], rng: random.Random) -> list[Product]:
    chosen = rng.sample(range(len(products)), sum(n for n, _ in PAGE_DEFECTS.values()))
    for behaviour, (n, _) in PAGE_DEFECTS.items():
        for _ in range(n):
            i = chosen.pop()
            products[i] = replace(products[i], behaviour=behaviour)
            if behaviour == "only_broken_images":
                images = tuple(replace(one, kind="html") for one in products[i].images)
                products[i] = replace(products[i], images=images)
            elif behaviour == "no_images":
                products[i] = replace(products[i], images=())
    return products


def _plant_image_defects(products: list[Product], rng: random.Random) -> list[Product]:
    """Append defective images to scraped products; no photo is duplicated twice."""
    scraped = [i for i, one in enumerate(products) if PAGE_DEFECTS.get(one.behaviour, (0, "scraped"))[1] == "scraped"]
    free = [(i, image) for i in scraped for image in products[i].images]
    rng.shuffle(free)
    for kind, (n, _) in IMAGE_DEFECTS.items():
        for _ in range(n):
            owner, photo = free.pop()
            product = products[owner]
            if kind in ("webp", "png", "unavailable_twice"):
                images = tuple(replace(one, kind=kind) if one == photo else one for one in product.images)
                products[owner] = replace(product, images=images)
                continue
            if kind in _DUPLICATES_OF_OTHERS:
                # Append to a later product: of two equal files the one with the lower id is kept.
                taker = rng.choice(_takers(products, scraped, owner, same=kind != "copy_in_other_category"))
            else:
                taker = owner
            source = (product.product_id, photo.n) if kind in _DUPLICATES | _DUPLICATES_OF_OTHERS else None
            extra = ShopImage(len(products[taker].images) + 1, kind, _view(kind, photo, rng), photo.side_px, source)
            products[taker] = replace(products[taker], images=(*products[taker].images, extra))
    return products


def _takers(products: Sequence[Product], scraped: Sequence[int], owner: int, *, same: bool) -> list[int]:
    category = products[owner].category
    found = [i for i in scraped if i > owner and (products[i].category == category) == same]
    return found or [owner]


def _view(kind: ImageKind, photo: ShopImage, rng: random.Random) -> View:
    return photo.view if kind in _DUPLICATES | _DUPLICATES_OF_OTHERS else drawing.random_view(rng)


def _path(name: str, product_id: str) -> str:
    return f"/{'-'.join(name.lower().replace('&', '').split())}/{product_id}.html"


def catalogue_rows(products: Sequence[Product], seed: int) -> list[dict[str, str]]:
    """Return the shop's catalogue: one row per product, some repeated with another price, one URL with `#`."""
    rng = random.Random(f"catalogue-{seed}")
    rows = []
    for i, product in enumerate(products):
        row = {
            "product_name": product.name,
            "product_url": ORIGIN + product.path + ("#" if i == 7 else ""),
            "product_type": product.category,
            "clean_ingreds": str(rng.sample(_INGREDIENTS, 4)),
            "price": f"£{rng.randrange(5, 60)}.{rng.choice(('00', '50', '99'))}",
        }
        rows.append(row)
        if i % 67 == 5:
            rows.append({**row, "price": f"£{rng.randrange(60, 90)}.00"})
    return rows

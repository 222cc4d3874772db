"""The sample shop is deterministic, unbalanced like a real one, and has the defects of its ground truth."""

import random
from collections import Counter

import pytest
import requests

from skincare import file_formats, images
from skincare.catalogue import read_products
from skincare.collecting.pages import parse_product_page
from skincare.inference.answer_parser import parser_of
from skincare.labels import skincare_labels
from skincare.paths import Layout
from skincare.sample import drawing, products, rendering, shop

CATEGORIES = skincare_labels().names


@pytest.fixture(scope="module")
def sold():
    return products.sample_products(seed=0)


def test_the_same_seed_is_the_same_shop(sold):
    assert products.sample_products(seed=0) == sold
    assert products.sample_products(seed=1) != sold


def test_the_shop_is_as_unbalanced_as_the_real_catalogue(sold):
    counts = Counter(product.category for product in sold)
    assert set(counts) == set(CATEGORIES)
    assert len(sold) == 202
    assert max(counts.values()) >= 3 * min(counts.values())
    assert all(1 <= sum(one.kind in ("photo", "webp", "png", "unavailable_twice") for one in product.images) <= 5
               for product in sold if product.behaviour not in ("no_images", "only_broken_images"))  # fmt: skip


def test_packs_overlap_between_categories(sold):
    """No single feature determines the category."""
    by_container = Counter((product.packaging.container, product.category) for product in sold)
    containers = {container for container, _ in by_container}
    best = sum(max(n for (one, _), n in by_container.items() if one == container) for container in containers)
    assert best / len(sold) < 0.7


def test_every_defect_is_planted_in_the_stated_number(sold):
    kinds = Counter(image.kind for product in sold for image in product.images)
    for kind, (n, _) in products.IMAGE_DEFECTS.items():
        assert kinds[kind] >= n, kind
    behaviours = Counter(product.behaviour for product in sold)
    assert {name: behaviours[name] for name in products.PAGE_DEFECTS} == {
        name: n for name, (n, _) in products.PAGE_DEFECTS.items()
    }


def test_duplicates_refer_to_an_existing_photo(sold):
    by_id = {product.product_id: product for product in sold}
    for product in sold:
        for image in product.images:
            if image.copy_of:
                owner, n = image.copy_of
                assert by_id[owner].images[n - 1].kind in ("photo", "webp", "png", "unavailable_twice")
                same = by_id[owner].category == product.category
                assert same == (image.kind != "copy_in_other_category")


def test_descriptions_name_no_category():
    """The tiny model's training answers contain no category, so that zero-shot is not correct by accident."""
    rng = random.Random(0)
    for _ in range(300):
        text = drawing.describe(drawing.random_packaging(rng))
        assert parser_of(skincare_labels()).parse(text, is_finished=True).category is None, text


def test_drawings_are_deterministic():
    packaging, view = drawing.random_packaging(random.Random(1)), drawing.random_view(random.Random(2))
    one, other = (drawing.draw(packaging, view, 480, "NOOR") for _ in range(2))
    assert one.image.tobytes() == other.image.tobytes()
    left, top, right, bottom = one.box
    assert 0 <= left < right <= 480
    assert 0 <= top < bottom <= 480


def test_pages_behave_as_in_the_ground_truth(sold):
    with shop.serve(sold) as origin:
        for product in sold:
            path = rendering.image_path(product, product.images[0]) if product.images else product.path
            if product.behaviour == "unavailable_twice":
                assert [requests.get(origin + product.path, timeout=5).status_code for _ in range(3)] == [503, 503, 200]
            elif product.behaviour == "busy_once":
                busy = requests.get(origin + product.path, timeout=5)
                assert (busy.status_code, busy.headers["Retry-After"]) == (429, "1")
                assert requests.get(origin + product.path, timeout=5).ok
            elif product.behaviour == "moved":
                assert "/p/" in requests.get(origin + product.path, timeout=5).url
            elif product.behaviour == "gone":
                assert requests.get(origin + product.path, timeout=5).status_code == 404
            elif product.behaviour == "no_script":
                page = requests.get(origin + product.path, timeout=5).text
                assert "const images" not in page
                assert "application/ld+json" in page
            elif product.behaviour == "only_broken_images":
                assert requests.get(origin + path, timeout=5).text.startswith("<!doctype html>")
        assert requests.get(f"{origin}/no-such-thing", timeout=5).status_code == 404


def test_page_lists_its_images_in_script_and_json_ld(sold):
    product = next(one for one in sold if one.behaviour == "fine")
    listed = parse_product_page(rendering.page(product), products.ORIGIN + product.path)
    assert [url.removeprefix(products.ORIGIN) for url in listed.image_urls] == [
        rendering.image_path(product, image) for image in product.images
    ]


def test_images_have_the_size_and_format_of_their_kind(sold):
    by_id = {product.product_id: product for product in sold}
    seen = {}
    for product in sold:
        for image in product.images:
            seen.setdefault(image.kind, (product, image))
    for kind, (product, image) in seen.items():
        content = rendering.image_bytes(product, image, by_id)
        if kind == "html":
            assert file_formats.sniff_format(content) is None
        elif kind == "truncated":
            with pytest.raises(images.BrokenImageError, match="truncated"):
                images.decode(content)
        else:
            expected = {"webp": "WEBP", "png": "PNG"}.get(kind, "JPEG")
            assert file_formats.sniff_format(content) == expected
            assert min(images.displayed_size(content)) >= (
                336 if kind == "rescaled" else 120 if kind == "small" else 448
            )


def test_catalogue_is_readable(tmp_path):
    layout = Layout(tmp_path)
    sold = shop.stock(layout, seed=0)
    catalogue = read_products(layout.catalogue, skincare_labels())
    assert not catalogue.problems
    assert catalogue.n_rows > len(catalogue.products) == len(sold)
    assert "#" in layout.catalogue.read_text()
    assert {one.product_id: one.category for one in catalogue.products} == {
        one.product_id: one.category for one in sold
    }


def test_product_name_is_escaped_in_the_page():
    hostile = products.catalogue_product("12345678", '</script><script>alert("x")</script>', "Oil", "/x/12345678.html")
    page = rendering.page(hostile).decode()
    assert "<script>alert" not in page
    assert parse_product_page(page.encode(), "https://shop.example/x/12345678.html").image_urls

"""Each source end to end against a local server with pages of its formats, and the parsing of its responses."""

import gzip
import json
import zlib
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scrape
from skincare.catalogue import Product
from skincare.collecting.sources import SOURCES, source_named
from skincare.collecting.sources.open_beauty_facts import CATEGORY_TAGS, OpenBeautyFacts, image_folder
from skincare.collecting.sources.shop_pages import SHOP_TYPES
from skincare.collecting.sources.source import PageRecord, category_of, page_record, read_page_record
from skincare.errors import StageError
from skincare.labels import skincare_labels
from skincare.paths import Layout
from skincare.runlog import Summary
from skincare.tables import CATALOGUE, FAILURES, IMAGES, METADATA, CatalogueRow
from tests.dataset_helpers import jpeg, pack
from tests.local_server import ok, serving
from tests.other_pages import CHALLENGES, LISTS
from tests.test_page_metadata import VARIANT_A, VARIANT_B, json_ld

CATEGORIES = skincare_labels().names

LOOKFANTASTIC = "https://www.lookfantastic.com"
IMAGE = ok(jpeg(pack(1, 320)), content_type="image/jpeg")


def run(layout, server, **config):
    return scrape.run(scrape.Config(root=layout.root, shop_url=server.url, delay_s=0, **config), layout)


def metadata_of(layout):
    return {row.product_id: row for row in METADATA.read(layout.metadata_table)}


# -- LookFantastic


def test_the_three_page_formats_of_lookfantastic_are_parsed(tmp_path):
    layout = Layout(tmp_path)
    CATALOGUE.write(layout.catalogue, [
        CatalogueRow("A", f"{LOOKFANTASTIC}/skin-food/11111111.html", "Moisturiser"),
        CatalogueRow("B", f"{LOOKFANTASTIC}/p/rose-toner/22222222/", "Toner"),
        CatalogueRow("C", f"{LOOKFANTASTIC}/p/range/33333333/", "Serum"),
    ])  # fmt: skip
    script = "<script>const images = [{'original': '/b-1.jpg', 'sizes': [[1]]}, {'original': '/b-2.jpg'},];</script>"
    group = json_ld(**{"@type": "ProductGroup", "name": "Range", "hasVariant": [
        {"sku": "33333334", "image": "/c-1.jpg", "offers": {"price": "9", "priceCurrency": "GBP"}}]})  # fmt: skip
    pages = {
        "/skin-food/11111111.html": VARIANT_A,
        "/p/rose-toner/22222222/": VARIANT_B.replace("{json_ld}", script),
        "/p/range/33333333/": f"{group}<h1 id='product-title'>Range - All Sizes</h1>",
    }
    answers = {path: ok(page.encode()) for path, page in pages.items()}
    answers |= dict.fromkeys(("/a.jpg", "/b-1.jpg", "/b-2.jpg", "/c-1.jpg"), IMAGE)
    with serving(answers) as server:
        summary = run(layout, server)
    assert summary.counts == {"scraped": 3, "failed": 0, "not_tried": 0}
    assert [row.image_id for row in IMAGES.read(layout.images_table)] == [
        "11111111_1", "22222222_1", "22222222_2", "33333333_1",
    ]  # fmt: skip
    found = metadata_of(layout)
    assert found["11111111"].how_to_use == "Apply to dry areas."
    assert found["22222222"].sources == (
        "name=page price=page currency=page description=open_graph size=name ingredients=page how_to_use=page"
    )
    assert (found["33333333"].name, found["33333333"].price, found["33333333"].brand) == (
        "Range - All Sizes", "9.00", "",
    )  # fmt: skip
    assert summary.results["metadata_coverage"]["price"] == 3
    assert summary.results["metadata_coverage"]["ingredients"] == 2
    assert summary.results["metadata_coverage"]["country"] == 0


def test_metadata_is_written_from_the_state_without_requests(tmp_path):
    layout = Layout(tmp_path)
    CATALOGUE.write(layout.catalogue, [CatalogueRow("A", f"{LOOKFANTASTIC}/a/11111111.html", "Oil")])
    with serving({"/a/11111111.html": ok(VARIANT_A.encode()), "/a.jpg": IMAGE}) as server:
        run(layout, server)
        first = layout.metadata_table.read_bytes()
        layout.metadata_table.unlink()
        assert run(layout, server).results["n_requests"] == 0
    assert layout.metadata_table.read_bytes() == first


# -- any shop


@pytest.mark.parametrize("source", ["web_page", "json_ld"])
def test_products_of_a_shop_without_ids_are_identified_by_url(tmp_path, source):
    layout, shop = Layout(tmp_path), "https://shop.example"
    given = tmp_path / "mine.csv"
    CATALOGUE.write(given, [
        CatalogueRow("Rose 50ml", f"{shop}/products/rose-50ml", "Face Moisturizers"),
        CatalogueRow("Lily 50ml", f"{shop}/products/lily-50ml", "Toners"),
        CatalogueRow("Gift", f"{shop}/products/gift", "Gift Sets"),
        CatalogueRow("Bad", "javascript:alert(1)", "Toners"),
    ])  # fmt: skip
    answers = {
        "/products/rose-50ml": ok(json_ld(name="Rose", image=["/r.jpg"], offers={"price": 5}).encode()),
        "/products/lily-50ml": lambda request: request.reply(b"", 302, Location="/products/rose-50ml"),
        "/r.jpg": IMAGE,
    }
    with serving(answers) as server:
        summary = run(layout, server, source=source, catalogue=given)
    assert summary.counts == {"scraped": 1, "failed": 1, "not_tried": 0}
    (image,) = IMAGES.read(layout.images_table)
    assert image.file.startswith("product_images/rose-50ml_")
    assert (image.licence, image.attribution) == ("none stated", "shop.example")
    reasons = {row.product_url.rpartition("/")[2]: row.reason for row in FAILURES.read(layout.failures_table)}
    assert reasons == {"lily-50ml": "redirected_away", "gift": "unknown_category", "javascript:alert(1)": "bad_url"}
    # The catalogue for the next stages has the same ids and the 14 categories.
    rows = {row.product_name: row for row in CATALOGUE.read(layout.listed_products("web_page"))}
    assert rows["Rose 50ml"].product_id == image.product_id
    assert rows["Rose 50ml"].product_type == "Moisturiser"


def test_encoded_and_compressed_pages_are_parsed(tmp_path):
    layout, shop = Layout(tmp_path), "https://shop.example"
    page = f"{json_ld(name='Rose', image=['/r.jpg'])}<h1>Rose</h1>"
    raw = zlib.compressobj(wbits=-15)
    answers = {
        "/p/gzip": ok(gzip.compress(page.encode()), Content_Encoding="gzip"),
        "/p/deflate": ok(raw.compress(page.encode()) + raw.flush(), Content_Encoding="deflate"),
        "/p/utf16": ok(page.encode("utf-16"), content_type="text/html; charset=utf-16"),
        "/p/loop": lambda request: request.reply(b"", 302, Location="/p/loop"),
        "/p/list": ok(LISTS["cards with buttons"].encode()),
        "/p/wall": ok(CHALLENGES["perimeter"].encode()),
        "/p/bare": ok(json_ld(name="Rose", image=[]).encode()),
        "/r.jpg": IMAGE,
    }
    kinds = [path.removeprefix("/p/") for path in answers if path.startswith("/p/")]
    CATALOGUE.write(layout.catalogue, [CatalogueRow(kind, f"{shop}/p/{kind}", "Serum") for kind in kinds])
    with serving(answers) as server:
        summary = run(layout, server, source="web_page")
    assert summary.counts == {"scraped": 3, "failed": 4, "not_tried": 0}
    reasons = {row.product_url.rpartition("/")[2]: row.reason for row in FAILURES.read(layout.failures_table)}
    assert reasons == {
        "loop": "too_many_redirects",
        "list": "not_a_product_page",
        "wall": "challenge",
        "bare": "no_images",
    }


def test_only_the_reference_catalogue_is_compared_with_the_reference(tmp_path):
    summary = Summary("scraped 2 of 1,126 products (0.2%), 0 images", {}, {"n_products": 1126})
    assert "990 of 1,126 published" in scrape._compared(summary).headline
    assert scrape._compared(replace(summary, results={"n_products": 1127})).headline == summary.headline
    layout = Layout(tmp_path)
    CATALOGUE.write(layout.catalogue, [CatalogueRow("A", "https://shop.example/p/a", "Serum")])
    with serving({}) as server:
        found = run(layout, server, source="web_page")
    assert "published" not in found.headline
    assert "reference" not in found.results


def test_real_json_ld_of_another_shop_gives_images_and_metadata(real_data):
    blocks = json.loads((real_data / "cultbeauty_jsonld_products.json").read_text(encoding="utf-8"))
    for block in blocks:
        url = f"https://www.cultbeauty.co.uk/x/{block['sku']}.html"
        product = Product(block["sku"], url, "x", block["name"], "Exfoliator")
        reading = source_named("web_page").read(json_ld(**block).encode(), url, product)
        assert reading.images[0].url.startswith("https://static.thcdn.com/productimg/original/")
        assert reading.metadata["brand"].value == block["brand"]["name"]


# -- Open Beauty Facts


def beauty_product(code, **changes):
    """Return a product in the format of version 2 of the API."""
    images = {
        "1": {"uploader": "kiliweb", "uploaded_t": "1527184614", "sizes": {"full": {"w": 850, "h": 1200}}},
        "2": {"uploader": "ada", "uploaded_t": 1548685211, "sizes": {"full": {"w": 900, "h": 1200}}},
        "front_fr": {"imgid": "1", "rev": "4", "geometry": "0x0-0-0", "sizes": {"400": {"w": 283, "h": 400}}},
        "front_en": {"imgid": "1", "rev": "9", "sizes": {}},
        "front_de": {"imgid": 2, "rev": 7, "sizes": {}},
        "ingredients_fr": {"imgid": "2", "rev": "7", "sizes": {}},
    }
    return {
        "code": code, "lang": "fr", "product_name": "Crème Soin", "brands": "Nivea, Beiersdorf", "quantity": "400 ml",
        "ingredients_text": "Aqua, Paraffinum Liquidum", "generic_name": "", "manufacturing_places": "Allemagne",
        "categories_tags": ["en:beauty", "en:face-creams"], "images": images, **changes,
    }  # fmt: skip


class BeautyServer:
    """The responses of the API to product and search requests, by path."""

    def __init__(self, products, page_size=100):
        self.products = {one["code"]: one for one in products}
        self.page_size = page_size

    def answers(self, found):
        by_path = {"/robots.txt": ok(b"User-agent: *\nDisallow: /cgi\n", content_type="text/plain")}
        for code in self.products:
            for key in ("front_fr.4", "front_de.7"):
                by_path[urlsplit(f"{image_folder(code)}/{key}.full.jpg").path] = IMAGE
        return by_path.get(found.path) or (lambda request: self._api(request, urlsplit(request.path)))

    def _api(self, request, parts):
        query = parse_qs(parts.query)
        if parts.path == "/api/v2/search":
            tagged = [one for one in self.products.values() if query["categories_tags"][0] in one["categories_tags"]]
            first = (int(query["page"][0]) - 1) * self.page_size
            fields = query["fields"][0].split(",")
            page = [{key: one[key] for key in fields if key in one} for one in tagged[first : first + self.page_size]]
            self._send(request, {"count": len(tagged), "page": query["page"][0], "page_size": 100, "products": page})
        elif (code := parts.path.removeprefix("/api/v2/product/").removesuffix(".json")) in self.products:
            product = self.products[code]
            self._send(request, {"code": code, "status": 1, "status_verbose": "product found", "product": product})
        else:
            self._send(request, {"code": code, "status": 0, "status_verbose": "product not found"}, 404)

    @staticmethod
    def _send(request, value, status=200):
        request.reply(json.dumps(value).encode(), status, "application/json")


class _Paths(dict):
    """Handlers by path for URLs with queries."""

    def __init__(self, server):
        self.server = server

    def get(self, path, default=None):
        return self.server.answers(urlsplit(path))


def serving_beauty(*products):
    return serving(_Paths(BeautyServer(products)))


def test_open_beauty_facts_is_listed_and_collected(tmp_path):
    layout = Layout(tmp_path)
    products = [
        beauty_product("3274040544047"),
        beauty_product("42015086", product_name="Q10", categories_tags=["en:face-creams", "en:serums"]),
        beauty_product("4005808000000", images={}),
        beauty_product("4005808000001", categories_tags=["en:face-creams", "en:shower-gels", "en:gel-thing"]),
        beauty_product("4005900000000", categories_tags=["en:lipsticks"]),
    ]
    with serving_beauty(*products) as server:
        query = "en:face-creams,en:lipsticks"
        summary = run(layout, server, source="open_beauty_facts", query=query)
        again = run(layout, server, source="open_beauty_facts", query=query)
        agents = {headers["User-Agent"] for headers in server.headers_seen}
    assert summary.counts == {"scraped": 3, "failed": 1, "not_tried": 0}
    assert again.results["n_requests"] == 0
    assert len(agents) == 1
    images = {row.image_id: row for row in IMAGES.read(layout.images_table)}
    assert set(images) == {
        f"{code}_{n}" for code in ("3274040544047", "0000042015086", "4005808000001") for n in (1, 2)
    }
    first = images["0000042015086_1"]
    assert first.source_url == (
        "https://images.openbeautyfacts.org/images/products/000/004/201/5086/front_fr.4.full.jpg"
    )
    assert (first.licence, first.attribution) == ("CC BY-SA 3.0", "kiliweb, Open Beauty Facts")
    assert images["0000042015086_2"].attribution == "ada, Open Beauty Facts"
    row = metadata_of(layout)["3274040544047"]
    assert (row.name, row.brand, row.size, row.country, row.description) == (
        "Crème Soin", "Nivea, Beiersdorf", "400 ml", "Allemagne", "",
    )  # fmt: skip
    assert (row.source, row.licence) == ("open_beauty_facts", "ODbL 1.0")
    assert row.sources.startswith("name=api brand=api")
    failures = {row.product_id: (row.reason, row.detail) for row in FAILURES.read(layout.failures_table)}
    assert failures["4005808000000"][0] == "no_images"
    assert failures[""] == ("unknown_category", "catalogue row 5: 'en:lipsticks'")
    path = layout.listed_products("open_beauty_facts_en-face-creams-en-lipsticks")
    types = {row.product_id: row.product_type for row in CATALOGUE.read(path)}
    assert types["0000042015086"] == "Serum"
    assert types["4005808000001"] == "Body Wash"


def test_a_catalogue_may_hold_barcodes_or_urls(tmp_path):
    layout, given = Layout(tmp_path), tmp_path / "mine.csv"
    CATALOGUE.write(given, [
        CatalogueRow("Crème", "3274040544047", "en:face-creams"),
        CatalogueRow("Gone", "https://world.openbeautyfacts.org/product/4005808999999/gone-50-ml", "Serum"),
        CatalogueRow("No code", "https://world.openbeautyfacts.org/about", "Serum"),
    ])  # fmt: skip
    with serving_beauty(beauty_product("3274040544047")) as server:
        summary = run(layout, server, source="open_beauty_facts", catalogue=given)
    assert summary.counts == {"scraped": 1, "failed": 1, "not_tried": 0}
    reasons = {row.product_id: row.reason for row in FAILURES.read(layout.failures_table)}
    assert reasons == {"4005808999999": "http_404", "": "no_product_id"}


def test_a_listing_of_many_pages_is_complete(tmp_path):
    layout = Layout(tmp_path)
    products = [beauty_product(str(4_005_808_000_000 + n)) for n in range(250)]
    with serving_beauty(*products) as server:
        run(layout, server, source="open_beauty_facts", query="en:face-creams", limit=0)
        assert sum(path.startswith("/api/v2/search") for path in server.count) == 3
    path = layout.listed_products("open_beauty_facts_en-face-creams")
    assert len(CATALOGUE.read(path)) == 250


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"source": "open_beauty_facts", "query": "en:serums"}, "--contact"),
        ({"source": "json_ld", "query": "x"}, "cannot be searched"),
        ({"source": "ebay"}, "no source; there are lookfantastic, web_page, open_beauty_facts"),
    ],
)
def test_an_impossible_request_to_a_source_is_an_error(tmp_path, config, message):
    with pytest.raises(StageError, match=message):
        scrape.run(scrape.Config(root=tmp_path, **config), Layout(tmp_path))


def test_an_invalid_listing_is_an_error_and_writes_no_catalogue(tmp_path):
    with serving({}) as server, pytest.raises(StageError, match="http_404"):
        run(Layout(tmp_path), server, source="open_beauty_facts", query="en:serums")
    with serving(_Html({})) as server, pytest.raises(StageError, match="invalid search response"):
        run(Layout(tmp_path), server, source="open_beauty_facts", query="en:serums")
    assert not list(tmp_path.glob("csv_data/products_*"))


class _Html(dict):
    def get(self, path, default=None):
        return ok(b"<h1>Maintenance</h1>")


def test_the_delays_respect_the_rate_limits_of_the_api():
    source = OpenBeautyFacts()
    assert source.needs_contact
    assert 60 / source.delays_s["https://world.openbeautyfacts.org"] <= 15
    assert 60 / source.listing_delay_s <= 10


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "not_an_answer"),
        (b"<h1>Maintenance</h1>", "not_an_answer"),
        (b'{"status": 0, "code": "1"}', "not_found"),
        (b'{"status": 1, "code": "999", "product": {"product_name": "X"}}', "other_product"),
        (b'{"status": 1, "code": "3274040544047", "product": []}', "not_found"),
        (b'{"status": 1, "code": "3274040544047", "product": {"images": {"front_fr": {"rev": "../x"}}}}', "no_images"),
    ],
)
def test_a_response_without_a_product_has_a_reason(answer, reason):
    assert read_beauty(answer).failure.reason == reason


def read_beauty(content):
    source = OpenBeautyFacts()
    row = source.catalogue_row(CatalogueRow("X", "3274040544047", "Serum"))
    product = Product(row.product_id, row.product_url, "x", "X", "Serum")
    return source.read(content, source.page_url(product), product)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8) | st.sampled_from(["1", "9"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["1", "front_fr", "front_en", "imgid", "rev", "uploader", "code"]), inner),
    max_leaves=10,
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(
    ("images", "lang", "product_name", "brands", "quantity", "categories_tags", "code"), ANY_JSON)))  # fmt: skip
def test_any_response_is_parsed_or_rejected(product):
    answer = {"status": 1, "code": "3274040544047", "product": product, "count": 1, "products": [product]}
    content = json.dumps(answer).encode()
    reading = read_beauty(content)
    assert (reading.failure is None) == bool(reading.images)
    assert all(image.url.startswith("https://images.openbeautyfacts.org/images/") for image in reading.images)
    kept = read_page_record(page_record("x", reading))
    assert kept == PageRecord("x", reading.licence, dict(reading.metadata))
    for row in OpenBeautyFacts().read_listing(content).rows:
        assert len(row.product_id) >= 13


# -- all sources


@pytest.mark.parametrize("name", SOURCES)
def test_any_bytes_are_parsed_without_an_exception(name):
    for content in (b"", b"\xff\xfe\x00", b"[" * 100_000, b"<" * 1000, b"{}", b"null"):
        product = Product("1", "https://a.example/x/1.html", "x", "X", "Oil")
        assert SOURCES[name].read(content, product.url, product).images == ()


def test_category_tables_map_to_labels_only():
    assert {*SHOP_TYPES.values()} == {*CATEGORY_TAGS.values()} == set(CATEGORIES)
    assert category_of("  Face   MOISTURIZERS ", SHOP_TYPES) == "Moisturiser"
    assert category_of("Gift Sets", SHOP_TYPES) == "Gift Sets"


@pytest.mark.parametrize(
    ("barcode", "folder"),
    [("3435660768163", "343/566/076/8163"), ("42015086", "000/004/201/5086"), ("12345678901234", "123/456/789/01234")],
)
def test_image_folder_of_a_barcode(barcode, folder):
    assert image_folder(barcode) == f"https://images.openbeautyfacts.org/images/products/{folder}"

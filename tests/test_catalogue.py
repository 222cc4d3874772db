"""The catalogue: distinct products, invalid rows with a reason, name families; and canonical URLs."""

import csv
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skincare import urls
from skincare.catalogue import Catalogue, read_products
from skincare.errors import MissingInputError, StageError
from skincare.labels import skincare_labels
from skincare.paths import REPOSITORY
from skincare.product.sizes import name_family

REAL_CATALOGUE = REPOSITORY.parent / "shared" / "data" / "skincare_products_clean.csv"
SHOP = "https://www.lookfantastic.com"
HOSTILE_URLS = (
    "", " ", "not a url", "ftp://a.example/x/1.html", "file:///etc/passwd", "javascript:alert(1)", "http://",
    "https://user:secret@a.example/x/1.html", "https://a.example:99999/x/1.html", "https://a.example:port/1.html",
    "http://[::1/x/1.html", "http://a b.example/1.html", "http://a\\b/1.html", "https://" + "a" * 300 + ".example/1",
    "https://a.example/" + "x" * 5000 + "/1.html", "http://\ud800.example/1", "https://a.example/\ud800/1.html",
)  # fmt: skip


def read(tmp_path: Path, *rows: tuple[str, str, str]) -> Catalogue:
    path = tmp_path / "catalogue.csv"
    with path.open("w", encoding="utf-8", newline="", errors="surrogatepass") as file:
        csv.writer(file).writerows([("product_name", "product_url", "product_type"), *rows])
    return read_products(path, skincare_labels())


def test_sizes_of_one_page_are_one_product(tmp_path: Path) -> None:
    catalogue = read(
        tmp_path,
        ("Genifique 30ml", f"{SHOP}/genifique-various-sizes/12218773.html", "Serum"),
        ("Genifique 50ml", f"{SHOP}/genifique-various-sizes/12218773.html?variation=12218775&rctxt=a#", "Serum"),
    )
    (product,) = catalogue.products
    assert (product.product_id, product.name, catalogue.n_rows) == ("12218773", "Genifique 30ml", 2)
    assert product.url == f"{SHOP}/genifique-various-sizes/12218773.html"
    assert catalogue.problems == ()


def test_variation_is_kept_apart_from_the_url(tmp_path: Path) -> None:
    (product,) = read(tmp_path, ("A", f"{SHOP}/p/a/12218773/?bvstate=1&variation=12218775", "Oil")).products
    assert (product.url, product.variation) == (f"{SHOP}/p/a/12218773/", "12218775")


@pytest.mark.parametrize(
    ("url", "category", "reason"),
    [
        (f"{SHOP}/a/1.html", "Lipstick", "unknown_category"),
        (f"{SHOP}/a/1.html", "", "unknown_category"),
        (f"{SHOP}/about-us.html", "Oil", "no_product_id"),
        (f"{SHOP}/", "Oil", "no_product_id"),
        (f"{SHOP}/a/{'1' * 21}.html", "Oil", "no_product_id"),
        *((url, "Oil", "bad_url") for url in HOSTILE_URLS if "\ud800" not in url),
    ],
)
def test_bad_row_is_a_problem_with_its_reason(tmp_path: Path, url: str, category: str, reason: str) -> None:
    catalogue = read(tmp_path, ("Good", f"{SHOP}/good/2.html", "Oil"), ("Bad", url, category))
    assert [product.name for product in catalogue.products] == ["Good"]
    assert [(problem.row, problem.reason) for problem in catalogue.rejected] == [(2, reason)]


def test_first_row_wins_and_contradictions_are_reported(tmp_path: Path) -> None:
    catalogue = read(
        tmp_path,
        ("Balm", f"{SHOP}/balm/11.html", "Balm"),
        ("Balm", f"{SHOP}/balm/11.html", "Cleanser"),
        ("Balm", f"{SHOP}/p/new-balm/11/", "Balm"),
    )
    assert [product.category for product in catalogue.products] == ["Balm"]
    assert [(p.row, p.reason) for p in catalogue.problems] == [(2, "conflicting_category"), (3, "conflicting_url")]
    assert catalogue.rejected == ()


def test_names_lose_line_breaks_and_no_break_spaces(tmp_path: Path) -> None:
    (product,) = read(tmp_path, ("\nErno\xa0Laszlo \0 Cream\n", f"{SHOP}/a/1.html", "Moisturiser")).products
    assert product.name == "Erno Laszlo Cream"


def test_absent_catalogue_names_its_source(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="Kaggle"):
        read_products(tmp_path / "absent.csv", skincare_labels())


def test_missing_columns_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.csv"
    path.write_text("name,link\na,b\n", encoding="utf-8")
    with pytest.raises(
        StageError, match="no column product_name, product_url, product_type; the first line is 'name,link'"
    ):
        read_products(path, skincare_labels())


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Weleda Skin Food (75ml)", "weleda skin food"),
        ("Egyptian Magic All Purpose Skin Cream 118ml/4oz", "egyptian magic all purpose skin cream"),
        ("Clinique Moisture Surge 72-Hour Hydrator 15 ml", "clinique moisture surge 72 hour hydrator"),
        ("Embryolisse Lait-Crème Concentré 30ML", "embryolisse lait creme concentre"),
        ("Menaji Lip Balm Agent 0.15oz. 4.2g", "menaji lip balm agent"),
        ("Oh K! Undereye Mask (2 x 1.5g)", "oh k undereye mask"),
        ("Ceramide Capsules - 60 Pieces (Sleeved)", "ceramide capsules sleeved"),
        ("PIXI Sheet Mask (Pack of 3)", "pixi sheet mask"),
        ("DayWear Creme SPF 15 30ml", "daywear creme spf 15"),
        ("The Ordinary Lactic Acid 10% + HA 2%", "the ordinary lactic acid 10 ha 2"),
        ("Trio of 3 L'Oréal Oils 1L", "trio of 3 l oreal oils"),
        ("50ml", "50ml"),
        ("", ""),
    ],
)
def test_family_is_the_name_without_size(name: str, family: str) -> None:
    assert name_family(name) == family


@pytest.mark.parametrize(
    ("url", "product_id", "slug"),
    [
        (f"{SHOP}/dr.-pawpaw-balm-25ml/12060101.html", "12060101", "dr.-pawpaw-balm-25ml"),
        (f"{SHOP}/p/dr-pawpaw/balm-25ml/12060101/", "12060101", "dr-pawpaw-balm-25ml"),
        (f"{SHOP}/12060101.html", "12060101", "product"),
        (f"{SHOP}/../../etc/passwd/7.html", "7", "etc-passwd"),
        (f"{SHOP}/%2e%2e%2f%00con/7.html", "7", "product-con"),
        (f"{SHOP}/NUL.txt/7.html", "7", "product-nul.txt"),
        (f"{SHOP}/cr%C3%A8me-%E5%8C%96%E5%A6%86/7.html", "7", "creme"),
        (f"{SHOP}/{'x' * 300}/7.html", "7", "x" * 120),
    ],
)
def test_id_and_slug_are_parsed_from_the_end(url: str, product_id: str, slug: str) -> None:
    canonical = urls.canonical_url(url)
    assert (urls.product_id(canonical), urls.product_slug(canonical)) == (product_id, slug)


@pytest.mark.parametrize("url", HOSTILE_URLS)
def test_an_invalid_url_raises_value_error(url: str) -> None:
    with pytest.raises(ValueError):
        urls.canonical_url(url)


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("HTTPS://WWW.Shop.Example:443/A%20b/1.html?x=1#top", "https://www.shop.example/A%20b/1.html"),
        ("http://shop.example:8080", "http://shop.example:8080/"),
        (" http://shop.example/a b/ü/1.html\n", "http://shop.example/a%20b/%C3%BC/1.html"),
        ("http://[::1]:8000/1.html", "http://[::1]:8000/1.html"),
        ("http://bücher.example/1.html", "http://xn--bcher-kva.example/1.html"),
    ],
)
def test_canonical_url(url: str, canonical: str) -> None:
    assert urls.canonical_url(url) == canonical


def test_moving_changes_only_urls_of_that_origin() -> None:
    local = "http://127.0.0.1:8000"
    assert urls.move(f"{SHOP}/a/1.html", SHOP, local) == f"{local}/a/1.html"
    assert urls.move(f"{SHOP}.evil.example/a", SHOP, local) == f"{SHOP}.evil.example/a"
    assert urls.move("https://static.thcdn.com/1.jpg", SHOP, local) == "https://static.thcdn.com/1.jpg"


@given(st.text(max_size=60) | st.from_regex(r"https?://[\w.:@\[\]%/-]{0,40}", fullmatch=True))
def test_any_text_gives_a_stable_url_or_a_value_error(text: str) -> None:
    try:
        url = urls.canonical_url(text)
    except ValueError:
        return
    assert urls.canonical_url(url) == url
    assert url.isascii()


@given(st.text(max_size=400))
def test_any_text_gives_a_safe_file_name(text: str) -> None:
    name = urls.safe_name(text)
    assert 0 < len(name) <= 128
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")
    assert not name.startswith(".") and ".." not in name


@pytest.mark.skipif(not REAL_CATALOGUE.is_file(), reason="the real catalogue is not part of the repository")
def test_real_catalogue_has_1126_products_in_1138_rows() -> None:
    catalogue = read_products(REAL_CATALOGUE, skincare_labels())
    assert (catalogue.n_rows, len(catalogue.products), catalogue.problems) == (1138, 1126, ())
    families = defaultdict(list)
    for product in catalogue.products:
        families[name_family(product.name)].append(product)
    shared = [family for family in families.values() if len(family) > 1]
    assert (len(shared), sum(map(len, shared))) == (40, 84)
    assert [f[0].name for f in shared if len({p.category for p in f}) > 1] == [
        "Clinique Take The Day Off Cleansing Balm 125ml"
    ]
    assert Counter(product.category for product in catalogue.products)["Peel"] == 32


def test_url_length_and_id_length_have_limits() -> None:
    longest = f"{SHOP}/{'a' * (2047 - len(SHOP))}"
    assert urls.canonical_url(longest) == longest
    with pytest.raises(ValueError, match="no usable web address"):
        urls.canonical_url(f"{longest}a")
    assert urls.product_id(f"{SHOP}/p/{'1' * 20}/") == "1" * 20
    with pytest.raises(ValueError, match="no product id"):
        urls.product_id(f"{SHOP}/p/{'1' * 21}/")


def test_query_is_kept_on_request() -> None:
    assert urls.canonical_url(f"{SHOP}/a?b=ü&c=1#top", keep_query=True) == f"{SHOP}/a?b=%C3%BC&c=1"
    assert urls.canonical_url(f"{SHOP}/a?", keep_query=True) == f"{SHOP}/a"


@pytest.mark.parametrize("path", ["rose-toner", "rose-toner.html", "rose-toner.php/", "en/x.html/rose-toner.htm//"])
def test_last_words_are_the_last_path_segment_without_its_suffix(path: str) -> None:
    assert urls.last_words(f"{SHOP}/{path}") == "rose-toner"


@pytest.mark.parametrize(
    ("text", "name"),
    [("", "product"), ("--", "product"), ("COM1", "product-com1"), ("a...b", "a.b"), (".Été n°1-.", "ete-n1")],
)
def test_safe_name(text: str, name: str) -> None:
    assert urls.safe_name(text) == name

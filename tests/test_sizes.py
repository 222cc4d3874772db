"""A size is read as the quantity that the text states, or not at all."""

import pytest

from skincare.product.sizes import Size, name_family, parse_size, size_in_name
from skincare.tables import CATALOGUE


@pytest.fixture(scope="module")
def pint_units():
    pint = pytest.importorskip("pint", reason="pint is in requirements-dev.txt")
    return pint.UnitRegistry()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("Genifique Serum 30ml", "30 ml"),
        ("Eye Cream (15 ml)", "15 ml"),
        ("Face Mask 2x8ml", "2 x 8 ml"),
        ("Duo Cleanser (2 × 150ml) (Worth £30)", "2 x 150 ml"),
        ("Night Cream 50ml x 2", "2 x 50 ml"),
        ("Liquid Care 70ml 2 Pack Exclusive", "2 x 70 ml"),
        ("Pack of 3, 15 g", "3 x 15 g"),
        ("Toner 100 ml Twin Pack", "2 x 100 ml"),
        ("6.7 fl oz / 200 ml", "200 ml"),
        ("118ml/4oz", "118 ml"),
        ("NET WT. 4 OZ (113 g)", "113 g"),
        ("0.15oz.-4.2g", "4.2 g"),
        ("3.4 FL. OZ.", "100.55 ml"),
        ("1,5 L", "1500 ml"),
        ("0.125 l", "125 ml"),
        ("1,000ml", "1000 ml"),
        ("Salts 1.5kg", "1500 g"),
        ("200 мл", "200 ml"),
        ("Capsules (90 Capsules)", "90 pieces"),
        ("Sheet Mask (Pack of 3)", "3 pieces"),
        ("SPF 50+ Cream 200ml", "200 ml"),
        ("3x15ml (45ml)", "3 x 15 ml"),
        ("Face Wipes x 25", "25 pieces"),
        ("Mask Pack -1 Ea", "1 pieces"),
        ("容量20mL入り", "20 ml"),
        ("100克x2", "2 x 100 g"),
        ("１００ｍｌ", "100 ml"),
        ("50ml® Serum", "50 ml"),
        ("50ml™ Serum", "50 ml"),
        ("1½ oz", "42.52 g"),
        ("1⅓ ml", "1.33 ml"),
        ("2⅖ fl oz", "70.98 ml"),
        ("1/2 oz", "14.18 g"),
        ("NET WT. 2 1/2 OZ", "70.87 g"),
        ("15 ml / 1/2 fl oz", "15 ml"),
        ("50ml/1 fl oz", "50 ml"),
        ("1.014 fl oz", "29.99 ml"),
    ],
)
def test_a_stated_size_is_read(text, size):
    assert str(parse_size(text)) == size


@pytest.mark.parametrize(
    "text",
    ["", "SPF 50", "No.7 L'Oréal", "Vitamin E 5,000iu", "72 Hour Hydrator", "24K Gold", "2% BHA", "C+ 15 Glow",
     "30ml + 50ml", "Set 15 ml, 200 ml", "0ml", "0.001 ml", "99999 kg", "B5 Gel", "10 Minute Mask"],
)  # fmt: skip
def test_what_states_no_size_or_several_has_none(text):
    assert parse_size(text) is None


def test_equal_quantities_are_equal_in_any_unit_and_count():
    assert parse_size("100 ml").equals(parse_size("3.4 fl oz"))
    assert parse_size("2 x 50 ml").equals(parse_size("100ml"))
    assert not parse_size("100 ml").equals(parse_size("103 ml"))
    assert not parse_size("100 ml").equals(parse_size("100 g"))


@pytest.mark.parametrize(
    ("unit", "in_pint"),
    [("ml", "milliliter"), ("cl", "centiliter"), ("l", "liter"), ("fl oz", "US_fluid_ounce"), ("g", "gram"),
     ("kg", "kilogram"), ("oz", "ounce"), ("lb", "pound")],
)  # fmt: skip
@pytest.mark.parametrize("amount", [0.5, 1, 3.4, 12])
def test_units_are_converted_as_by_pint(amount, unit, in_pint, pint_units):
    size = parse_size(f"{amount} {unit}")
    expected = pint_units.Quantity(amount, in_pint).to("milliliter" if size.unit == "ml" else "gram").magnitude
    assert size.amount == pytest.approx(expected, rel=1e-5, abs=6e-4), "amounts have three decimals"


def test_the_canonical_text_is_read_as_the_same_size():
    for size in (Size(30, "ml"), Size(99.96, "ml"), Size(1.5, "g", 2), Size(90, "pieces"), Size(1000, "ml", 12)):
        assert parse_size(str(size)) == size
    for text in ("0.02 g", "99999 ml", "1.014 fl oz"):
        assert parse_size(str(parse_size(text))).equals(parse_size(text))


def test_a_long_text_takes_no_time():
    assert parse_size("9" * 100_000) is None
    assert parse_size("1 x " * 50_000) is None


def test_sizes_of_the_real_catalogue(real_data):
    """1,000 of 1,126 products state one in their name; all were read by eye against the names."""
    rows = CATALOGUE.read(real_data / "skincare_products_clean.csv")
    found = {row.product_url: parse_size(row.product_name) for row in reversed(rows)}
    assert sum(size is not None for size in found.values()) == 1000


@pytest.mark.parametrize(
    "size", ["30ml", "(2 x 150 ml)", "118ml/4oz", "0.15oz.-4.2g", "200 мл", "Pack of 6", "60 Pads"]
)
def test_a_family_is_the_name_without_any_size_that_is_parsed(size):
    assert parse_size(size)
    assert name_family(f"Crème Nº5 {size}") == name_family("CREME Nº5") == "creme no5"


@pytest.mark.parametrize(
    ("name", "size"),
    [("Exfoliant (118ml)", "118ml"), ("Balm (0.15oz./4.2g)", "0.15oz"), ("Mask (Pack of 3)", "Pack of 3"),
     ("SPF 50 Cream", ""), ("No.7 L'Oréal", "")],
)  # fmt: skip
def test_the_size_in_a_name_is_as_written(name, size):
    assert size_in_name(name) == size

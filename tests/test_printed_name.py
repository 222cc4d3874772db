"""A product's name is the lines around its category, without brand, claims and size."""

import pytest

from skincare.text_reading.printed_name import printed_name
from tests.pack_lines import pack_lines


@pytest.mark.parametrize(
    ("texts", "name"),
    [
        ([("fresh", 2), "ROSE", "DEEP HYDRATION", "FACIAL TONER", ("250ml", 0.5)],
         "Acme ROSE DEEP HYDRATION FACIAL TONER"),
        ([("AVALON", 2), "Revitalizing", "Peppermint", "BATH & SHOWER GEL", ("Gently purifies", 0.5)],
         "Acme AVALON Revitalizing Peppermint BATH & SHOWER GEL"),
        (["Coffee Scrub", ("cruelty free", 1), ("for all skin types", 0.8)], "Acme Coffee Scrub"),
        (["CRÈME MAINS", "HAND CREAM"], "Acme CRÈME MAINS"),
        (["SHOWER CREAM", "CRÈME DOUCHE", ("AVOCADO", 2)], "Acme AVOCADO SHOWER CREAM"),
        (["FACEPACK", "NEEM TULSI"], "Acme FACEPACK NEEM TULSI"),
        (["GENTLE DEEP", "CLEANSINGFOAM", ("ACME STORE", 0.4)], "Acme GENTLE DEEP CLEANSINGFOAM"),
        (["Gentle Skin Cleanser", "All Skin Types", "No Harmful Ingredients"], "Acme Gentle Skin Cleanser"),
        (["FULL NIGHT", "Booster Serum", "10% Ceramide B5 Complex"],
         "Acme FULL NIGHT Booster Serum 10% Ceramide B5 Complex"),
        (["Night Cream", "30 ml", "Eye Cream"], "Acme Night Cream"),
        (["Night Cream", "Night Cream", "NIGHT CREAM"], "Acme Night Cream"),
        (["Dr. Hauschka Rose Day Cream", "Rich cream. Made for you"], "Acme Dr. Hauschka Rose Day Cream"),
        (["12345", "50%", "30 ml"], ""),
        ([], ""),
    ],
)  # fmt: skip
def test_a_name(texts, name):
    lines = pack_lines(*texts)
    brand_lines = [line for line in lines if line.text == "fresh"]
    assert printed_name(lines, "Acme", brand_lines) == name


def test_text_without_brand_and_category_is_no_name():
    assert printed_name(pack_lines("DIỆN MẠO MỚI"), "") == ""
    assert printed_name(pack_lines("Rose Toner"), "") == "Rose Toner"


def test_a_line_in_another_column_is_no_part_of_the_name():
    toner, other = pack_lines("Rose Toner", "Zorbi")
    moved = other.__class__(other.text, other.confidence, tuple((x / 10, y) for x, y in other.box), other.height)
    assert printed_name([toner, moved], "Acme") == "Acme Rose Toner"

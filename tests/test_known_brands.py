"""Known brands are found in lines with OCR errors, and not in words that merely hold their letters."""

from dataclasses import replace

import pytest

from skincare.product.brands import well_known_brands
from skincare.text_reading.known_brands import KnownBrands
from tests.pack_lines import pack_lines

BRANDS = KnownBrands(
    ["The Ordinary", "La Roche-Posay", "MAC", "The Body Shop", "Babor", "Doctor Babor", "Simple", "Fresh", "Anua",
     "Paula's Choice", "Origins", "Huxley", "Skin1004", "Organic Shop"]
)  # fmt: skip


def brand_of(*texts, confidence=0.99):
    found = BRANDS.find(pack_lines(*texts, confidence=confidence))
    return found.brand if found else ""


@pytest.mark.parametrize(
    ("texts", "brand"),
    [
        (["The", "Ordinary.", "Niacinamide 10%"], "The Ordinary"),
        (["LAROCHE-POSAY", "EFFACLAR"], "La Roche-Posay"),
        (["PAULA'S", "CHOICE", "10%"], "Paula's Choice"),
        (["THE BOOY SHOP", "Himalayan Charcoal"], "The Body Shop"),
        (["SKINIO04", "Ampoule"], "Skin1004"),
        (["DOCTOR", "BABOR", "Lifting"], "Doctor Babor"),
        (["Heartleaf", "ANUA HEARTLEAF QUERCETINOL"], ""),
        (["ORGANIC SHOP Organic Papaya..."], "Organic Shop"),
        (["MAC"], "MAC"),
        (["Simple", "Facial Wash"], "Simple"),
        (["fresh®", "ROSE TONER"], "Fresh"),
    ],
)
def test_a_brand_is_a_line_or_begins_one(texts, brand):
    assert brand_of(*texts) == brand


@pytest.mark.parametrize(
    "texts",
    [
        ["an extraordinary cream for the face"],
        ["MACADAMIA"],
        ["MAC OIL"],
        [("BODY WASH", 2), ("a fresh feeling", 0.4)],
        [("ACME", 3), ("simple", 0.5)],
        ["the body", "lotion"],
        ["the origins of beauty"],
        [],
        ["", "   ", "®"],
    ],
)
def test_ordinary_words_are_no_brand(texts):
    assert brand_of(*texts) == ""


def test_a_misread_letter_in_a_short_brand_counts_if_the_line_was_read_badly():
    assert brand_of("Huxiey", confidence=0.9) == "Huxley"
    assert brand_of("Huxiey", confidence=0.99) in ("", "Huxley")
    assert brand_of("Hudley", confidence=0.99) == ""
    assert brand_of("Hudley", confidence=0.9) == "Huxley"


def test_a_sign_next_to_an_unknown_brand_does_not_make_it_a_misread_known_one():
    assert brand_of("*", "Huxle", confidence=0.99) == ""
    sign, brand = pack_lines("*", "Huxle")
    assert BRANDS.find([replace(sign, confidence=0.8), brand]) is None


def test_the_larger_of_two_brands_wins():
    assert brand_of(("Babor", 1), ("Huxley", 3)) == "Huxley"


def test_the_longer_of_two_brands_wins_over_the_upper_one():
    assert brand_of("Babor", "Toner", "Paula's Choice") == "Paula's Choice"


def test_a_brand_at_the_start_of_a_line_wins_over_one_inside():
    assert brand_of("with Babor oil", "Toner", "Lotion", "Mask", "Huxley grape oil") == "Huxley"


def test_first_letters_may_be_cut_off():
    assert brand_of("ULA'S CHOICE", "Toner") == "Paula's Choice"


def test_one_badly_read_line_of_two_is_enough_for_a_misread_letter():
    first, second = pack_lines("Hud", "ley")
    assert BRANDS.find([replace(first, confidence=0.9), second]).brand == "Huxley"


def test_a_word_of_packs_is_no_misread_brand():
    brands = KnownBrands(["Hydras"])
    assert brands.find(pack_lines("hydra", confidence=0.9)) is None
    assert brands.find(pack_lines("hydrus", confidence=0.9)).brand == "Hydras"


def test_the_list_of_brands_is_sorted_and_without_repetitions():
    brands = well_known_brands()
    assert len(brands) > 1000
    assert len({"".join(filter(str.isalnum, one.casefold())) for one in brands}) == len(brands)
    assert all(one == one.strip() and one for one in brands)


def test_hostile_lines_end_in_time():
    assert brand_of(*["a" * 5000] * 3, "9" * 500, "\ufeff\x00") == ""

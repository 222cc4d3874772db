"""A brand that no list knows is the line printed like one; claims, ingredients and other scripts are none."""

import random
import string
import time

import pytest

from skincare.text_reading.pack_vocabulary import unusual_words
from skincare.text_reading.unknown_brands import unknown_brand
from tests.pack_lines import pack_lines


def brand_of(*texts, confidence=0.99, common=frozenset()):
    return unknown_brand(pack_lines(*texts, confidence=confidence), common)[0]


@pytest.mark.parametrize(
    ("texts", "brand"),
    [
        (["GENTLE", "Zorbiderm", "Face Cream"], "Zorbiderm"),
        ([("ZORBI", 1.5), ("HERBALS", 1), "Neem Face Wash"], "ZORBI HERBALS"),
        ([("PURE", 1.2), ("ZORBIS", 1.2), "Duschgel", "200 ml"], "PURE ZORBIS"),
        ([("Z O R B I S", 1), "Toner"], "ZORBIS"),
        (["Dr. Zorbi", "Anti-Pollution Cleansing Gel"], "Dr. Zorbi"),
        ([("Laboratoire Zorbi", 0.6), "Huile de", "massage"], "Laboratoire Zorbi"),
        (["BOTANICAL BASED", "INTENSIVE SKIN REPAIR", "TREATMENT MASK", "ZORBISU"], "ZORBISU"),
        ([("ARABICA", 1.2), "COFFEE SCRUB", ("ZORBI®", 0.9)], "ZORBI"),
        ([("O", 4), "Zorbis", "Eye Gel"], "Zorbis"),
        ([("木", 4), "Zorbis Row"], "Zorbis Row"),
        (["Rose Water", ("zorbis", 0.8), ("www.zorbis.com", 0.3)], "zorbis"),
    ],
)
def test_the_line_printed_like_a_brand(texts, brand):
    assert brand_of(*texts) == brand


@pytest.mark.parametrize(
    "texts",
    [
        ["NEW", "VEGAN", "Face Cream", "50 ml"],
        ["99%", "SPF 50+", "24H"],
        ["CÔNG THỨC THẨM THẤU NHANH"],
        ["24H DUÖNG ÄM LIÊN TUC"],
        ["BRIGHTENINQ", "MOISTURISINC", "NIACINAMlDE"],
        ["Reduces the appearance of dark circles and zorbi lines"],
        ["50 ml", "pH 5.5"],
        ["q", "ab", "--"],
        [],
    ],
)
def test_claims_ingredients_and_numbers_are_no_brand(texts):
    assert brand_of(*texts) == ""


def test_badly_read_lines_are_no_brand():
    assert brand_of("MAPHIN", "CK A", "HTAPHBI", confidence=0.7) == ""


def test_common_words_of_a_catalogue_are_no_brand():
    assert brand_of("Zorbiderm", "Face Cream", common=frozenset(["zorbiderm"])) == ""


def test_unusual_words():
    assert unusual_words("Zorbiderm Moisturising Lotion 50 ml") == ["zorbiderm"]
    assert unusual_words("MOISTUR1SINC purifiying creme") == ["moistur1sinc"]


def test_a_crowded_image_takes_little_time():
    rng = random.Random(0)
    words = ["".join(rng.choices(string.ascii_lowercase, k=9)) for _ in range(300)]
    lines = pack_lines(*[(word, 0.05) for word in words])
    started = time.process_time()
    unknown_brand(lines)
    assert time.process_time() - started < 2

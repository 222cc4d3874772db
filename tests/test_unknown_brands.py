"""A brand that no list knows is the line printed like one; claims, ingredients and other scripts are none."""

import random
import string
import time
from dataclasses import replace

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


def six_lines(at, first="Zorbimax", other="Qwixel", **changes):
    """A pack of six lines of equal print: a brand-like word at the top, another one in line `at` (from 0)."""
    texts = [first, "Toner", "Lotion", "Mask", "Serum", "Face Cream"]
    texts[at] = other
    return [(changes.get(f"text{i}", text), changes.get(f"size{i}", 1)) for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("texts", "brand"),
    [
        (six_lines(2, first="Zorbim", other="Qwixelor"), "Zorbim"),  # the upper one
        ([*six_lines(3)[1:], ("Zorbim", 1)], "Zorbim"),  # one of the two lowest
        (six_lines(2, text4="Qwixel Serum"), "Qwixel"),  # repeated
        (six_lines(2, other="Qwixel®"), "Qwixel"),  # a trade mark
        (six_lines(2, text3="Paris"), "Qwixel"),  # a word of companies below
        (six_lines(2, size2=0.5, text4="www.qwixel.com"), "Qwixel"),  # a domain
        (six_lines(2, other="Dr. Qwix"), "Dr. Qwix"),  # a doctor
        (six_lines(2, size0=0.5), "Qwixel"),  # larger print
        ([("Face Cream", 1), ("Pure Zorbima", 1), *six_lines(2)[2:]], "Qwixel"),  # no usual word
        ([("Zorbim", 1), ("Face Cream", 1), ("Zorbimax", 0.6)], "Zorbimax"),  # the whole of a word that is cut off
        ([("NEW", 1), ("ZORBI", 1), ("Face Cream", 1)], "ZORBI"),  # no claim before it
        ([*six_lines(4, first="Mask", other="Toner"), ("Zorbi", 0.3), ("Mask", 1), ("Serum", 1)], ""),  # too few signs
        (["Zorbi, Qwix", "Toner"], ""),
        (["Zorbi Serum"], ""),
        (["DƯỠNG ZORBI"], ""),
    ],
)
def test_each_sign_decides_between_two_lines(texts, brand):
    assert brand_of(*texts) == brand


def test_the_better_read_of_two_lines_counts():
    lines = pack_lines(*["Toner"] * 10, "zorbimax", "QWIXEL", *["Toner"] * 8)
    read_badly = [replace(line, confidence=0.93) if line.text == "zorbimax" else line for line in lines]
    assert [unknown_brand(found)[0] for found in (lines, read_badly)] == ["zorbimax", "QWIXEL"]


def test_a_line_below_the_confidence_of_its_script_is_no_brand():
    assert [brand_of("Zorbima", "Toner", confidence=confidence) for confidence in (0.91, 0.93)] == ["", "Zorbima"]


def test_badly_read_lines_are_no_brand():
    assert brand_of("MAPHIN", "CK A", "HTAPHBI", confidence=0.7) == ""


def test_common_words_of_a_catalogue_are_no_brand():
    assert brand_of("Zorbiderm", "Face Cream", common=frozenset(["zorbiderm"])) == ""


def test_unusual_words():
    assert unusual_words("Zorbiderm Moisturising Lotion 50 ml") == ["zorbiderm"]
    # Compounds, words that are cut off, and a misread letter.
    assert unusual_words("allskintypes Reinigungsgel MOISTURIS BRIGHTENINQ") == []
    assert unusual_words("zorbigel BRIGHTERINQ") == ["zorbigel", "brighterinq"]
    assert unusual_words("MOISTUR1SINC purifiying creme") == ["moistur1sinc"]


def test_a_crowded_image_takes_little_time():
    rng = random.Random(0)
    words = ["".join(rng.choices(string.ascii_lowercase, k=9)) for _ in range(300)]
    lines = pack_lines(*[(word, 0.05) for word in words])
    started = time.process_time()
    unknown_brand(lines)
    assert time.process_time() - started < 2

"""The size on a pack is read through OCR errors; other numbers are no size."""

import pytest

from skincare.text_reading.printed_size import printed_size
from tests.pack_lines import pack_lines


def size_of(*texts):
    found = printed_size(pack_lines(*texts))
    return str(found) if found else None


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("e 50 ml", "50 ml"), ("e75 ml", "75 ml"), ("200mle", "200 ml"), ("50ml e 1.7 fl oz", "50 ml"),
        ("50mle1.7floz", "50 ml"), ("2 x 50 ml", "2 x 50 ml"), ("100 мл", "100 ml"), ("1,7 fl oz", "50.27 ml"),
        ("0.5 fl. oz. / 15 mL", "15 ml"), ("5OmI", "50 ml"), ("5Oml", "50 ml"), ("l00 ml", "100 ml"),
        ("IOOml", "100 ml"), ("1OO ML", "100 ml"), ("S0ml", "50 ml"), ("30 rnl", "30 ml"), ("50 m l", "50 ml"),
        ("100MJI", "100 ml"), ("200mL ℮ 6.7 fl.oz.", "200 ml"), ("4.2 FL. OZ. LIQ./125ml e", "125 ml"),
        ("8.45 US FL OZ - 250 ML", "250 ml"), ("e 125 ml 4.2 FL. 0Z.", "125 ml"), ("3.38F.02", "99.96 ml"),
        ("75 g NET WT. 2.6 OZ.", "75 g"), ("10 gm. / 0.35 oz.", "10 g"), ("200 ml 6.4 OZ (184 g)", "200 ml"),
        ("容量20mL", "20 ml"), ("内容量：１２０ｇ", "120 g"), ("20毫升", "20 ml"), ("ปริมาณ 50 มล.", "50 ml"),
        ("3 ml/1.014 floz.", "30 ml"), ("Vitamin C 10% 30ml", "30 ml"), ("12 pads", "12 pieces"),
        ("50 m1", "50 ml"), ("1.7 fl. 0z", "50.27 ml"), ("1.7 flL oz", "50.27 ml"), ("l.O FL.OZ", "29.57 ml"),
        ("1.70Z", "48.19 g"), ("8.OZ", "226.8 g"), (".5 fl oz", "14.79 ml"), ("1S0 ml", "150 ml"), ("2O0ml", "200 ml"),
        ("Z00 ml", "200 ml"), ("30 nl", "30 ml"), ("5Omle", "50 ml"), ("50 mlC", "50 ml"), ("5Og", "50 g"),
        ("5 0 ml", "50 ml"), ("2 00 ml", "200 ml"), ("1 5 0 ml", "150 ml"), ("15 0 g", "150 g"),
        ("200ML/6.7FLOZ", "200 ml"), ("50ML1.7FL.OZ", "50 ml"), ("1.7FLOZ50ML", "50 ml"), ("3.4 Fl.Oz.100ml", "100 ml"),
        ("30ML1FLOZ", "30 ml"), ("NETWT.50g", "50 g"), ("Net wt:50g1.7oz", "50 g"), ("Inhalt50ml", "50 ml"),
        ("ml 50", "50 ml"), ("ML50 e", "50 ml"), ("250m", "250 ml"), ("e250 m", "250 ml"), ("SPF 30 50 ml", "50 ml"),
    ],
)  # fmt: skip
def test_a_printed_size(text, size):
    assert size_of("ACME", text) == size


@pytest.mark.parametrize(
    "text",
    ["SPF 50", "48H", "24 h", "10 %", "pH 5.5", "12 M", "36 months", "B5 gel", "Q10", "No.1 L'eau", "5 in 1", "2021",
     "1930", "50+", "PA++++", "138.000d", "99999 ml", "", "24h", "pH5.5", "10 % Vitamin C", "3-in-1", "SPF 5O",
     "SPF 3 0", "EXP 12.2025", "01/2024", "4005900123456", "8 809 123 456 789", "12M", "24 M", "ml 10 %",
     "150 m deep", "OIL ML", "SO G", "lO g", "Solml", "Vol. 3", "0.5 % Retinol", "Est. 1851", "72 HR", "No. 5", "50 9"],
)  # fmt: skip
def test_other_numbers_are_no_size(text):
    assert size_of("ACME", text) is None


@pytest.mark.parametrize(
    ("texts", "size"),
    [
        (["150", "ml"], "150 ml"),
        (["150 ML", ("NET WT 5.2OZ", 2)], "150 ml"),
        (["255 ml", "12 fl oz"], "355 ml"),
        ([("30 ml", 0.6), ("50 ml", 1)], "50 ml"),
        ([("30 ml", 0.6), ("50 ml", 1), ("30ML / 1 FL OZ", 0.4)], "30 ml"),
        (["50 g", "12 pads"], "50 g"),
        ([], None),
    ],
)
def test_lines_together(texts, size):
    assert size_of(*texts) == size


def test_the_most_frequent_size_wins_over_the_largest_print():
    assert size_of(("30 ml", 0.6), ("75 ml", 1), ("30ML", 0.4)) == "30 ml"


def test_a_quantity_wins_over_a_count_before_it():
    assert size_of("12 pads", "50 g") == "50 g"


def test_a_digit_is_added_only_where_the_other_unit_confirms_it():
    assert size_of("3 ml / 2 fl oz") == "3 ml"


def test_hostile_lines_end_in_time():
    assert size_of("9" * 100_000, "1 x " * 50_000, "o" * 10_000) is None

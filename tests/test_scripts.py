import pytest

from skincare.text_reading.pack_text import TextLine
from skincare.text_reading.scripts import misread_script, script_of

BOX = ((0.1, 0.2), (0.5, 0.2), (0.5, 0.3), (0.1, 0.3))


def lines(*texts, confidence=0.75):
    return [TextLine(text, confidence, BOX, 0.1) for text in texts]


@pytest.mark.parametrize(
    ("text", "script"),
    [("Clay Mask 50", "latin"), ("СКРАБ AHA", "cyrillic"), ("面膜", "chinese"), ("マスク", "japanese"),
     ("สลีปปิ้ง", "thai"), ("마스크", "hangul"), ("100 %", ""), ("", "")],
)  # fmt: skip
def test_the_script_of_most_letters(text, script):
    assert script_of(text) == script


@pytest.mark.parametrize("texts", [("AHTAPHBI", "KOPO"), ("CKPA5", "OHNLEHNE N TOHYC"), ("C 3ΦΦEKTOM CKPAA",)])
def test_misread_cyrillic_is_detected(texts):
    assert misread_script(lines(*texts)) == "cyrillic"
    # The same letters with high confidence are Latin.
    assert misread_script(lines(*texts, confidence=0.99)) == ""


def test_misread_thai_line_next_to_english_is_detected():
    english = lines("Overnight Gel Mask", "10% Niacinamide, 1% Tranexamic Acid", confidence=0.99)
    assert misread_script(english + lines("whumsnatou", confidence=0.7)) == "thai"
    assert misread_script(english) == ""


@pytest.mark.parametrize(
    "texts", [("Gentle Clay Mask",), ("BODY LOTION", "with argan oil"), ("12.08.2021",), ("COCOA", "MILK BUTTER"), ()]
)  # fmt: skip
def test_low_confidence_alone_is_not_a_sign(texts):
    assert misread_script(lines(*texts)) == ""

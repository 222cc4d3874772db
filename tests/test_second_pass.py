"""The second OCR pass runs on images with little text only, and each line is kept once."""

import numpy as np
import pytest

from skincare.text_reading import ocr, second_pass
from skincare.text_reading.rapid_ocr import MIN_CONFIDENCE
from tests.test_ocr import pack


@pytest.fixture(scope="module")
def engine():
    return ocr.make_engine()


def line(text, left, top, confidence=0.9, width=100, height=20):
    corners = [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]
    return text, confidence, np.array(corners, np.float32)


def texts(lines):
    return [text for text, _, _ in lines]


def merged(first, second):
    return second_pass.merged(first, second, MIN_CONFIDENCE)


@pytest.mark.parametrize(
    ("lines", "is_sparse"),
    [
        ([], True),
        ([line("ACME", 0, 0)], True),
        ([line("a" * 39 + " ,.-", 0, 0)], True),
        ([line("a" * 40, 0, 0)], False),
        ([line("a" * 20, 0, 0), line("b" * 20, 0, 50)], False),
        ([line("a" * 20, 0, 0), line("b" * 20, 0, 50, confidence=0.4)], True),
    ],
)
def test_an_image_with_little_legible_text_is_sparse(lines, is_sparse):
    assert second_pass.is_sparse(lines, MIN_CONFIDENCE) == is_sparse


def test_a_new_line_is_added_and_the_largest_comes_first():
    assert texts(merged([line("ACME", 0, 0)], [line("50 ml", 0, 100, height=30)])) == ["50 ml", "ACME"]


@pytest.mark.parametrize(
    ("again", "kept"),
    [
        (line("ACME", 2, 1), "ACM"),  # one letter more at a lower confidence
        (line("ACME SERUM", 2, 1, confidence=0.97), "ACME SERUM"),
        (line("ACME SERUM", 2, 1, confidence=0.6), "ACM"),
        (line("AC", 2, 1, confidence=0.99), "ACM"),
        (line("ACME SERUM", 2, 1, confidence=0.4), "ACM"),
    ],
)
def test_of_two_readings_of_a_line_the_longer_and_clearer_one_is_kept(again, kept):
    assert texts(merged([line("ACM", 0, 0, confidence=0.95)], [again])) == [kept]


def test_a_whole_line_replaces_its_parts():
    parts = [line("body", 0, 0, width=40), line("oil", 60, 0, width=40)]
    assert texts(merged(parts, [line("body oil spf", 0, 0)])) == ["body oil spf"]


def test_an_illegible_line_is_kept_until_it_is_read():
    illegible = line("??", 0, 0, confidence=0.3)
    assert texts(merged([illegible], [])) == ["??"]
    assert texts(merged([illegible], [line("ACME", 0, 0)])) == ["ACME"]


def test_a_small_pack_in_a_large_image_is_searched_again(engine, monkeypatch):
    image = np.full((1000, 1000, 3), 255, np.uint8)
    image[400:700, 400:620] = pack(["AURELIA", "Body Wash"], (220, 300), ground="#c0c0d0", top=80)
    seen = []
    detect = engine.detect
    monkeypatch.setattr(engine, "detect", lambda pixels, **how: (seen.append(how), detect(pixels, **how))[1])
    found = [one.text for one in engine.read(image)]
    assert seen == [{}, {"is_enlarged": True}]
    assert sorted("".join(found).replace(" ", "").lower()) == sorted("aureliabodywash")


def test_content_that_fills_the_detector_is_not_searched_again(engine):
    noise = np.random.default_rng(0).integers(0, 255, (1200, 1200, 3), dtype=np.uint8)
    assert engine.detect(noise, is_enlarged=True) == []

"""Category evidence in lines of text, including text with OCR errors and unrelated phrases."""

import pytest

from skincare.labels import skincare_labels
from skincare.text_reading.evidence import EvidenceFinder, scores
from skincare.text_reading.phrases import phrases_of

CATEGORIES = skincare_labels().names


@pytest.fixture(scope="module")
def finder():
    return EvidenceFinder(phrases_of(skincare_labels()))


def category(finder, lines, heights=None):
    found = scores(finder.find(lines, heights), skincare_labels())
    return CATEGORIES[found.argmax()] if found.max() > 0 else None


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        # phrases, also over lines
        (["ACME", "Neem", "FACE", "WASH", "100 ml"], "Cleanser"),
        (["ACME", "Coconut Body Butter with oil"], "Moisturiser"),
        (["gentle face and body cleanser", "250 ml"], "Body Wash"),
        (["face polisher", "removes dead cells"], "Exfoliator"),
        (["Bath & Shower Oil"], "Bath Oil"),
        (["Shower Oil"], "Body Wash"),
        (["Huile de douche", "amande"], "Body Wash"),
        (["Rose Floral Water"], "Mist"),
        (["Hydrating Bright Eye Contour Cream"], "Eye Care"),
        (["Eye & Lip Make-up Remover"], "Eye Care"),
        (["Lip Sleeping Mask"], "Mask"),
        (["Cleansing Oil"], "Oil"),
        (["Cleansing Balm"], "Balm"),
        # claims, ingredients and usage instructions name no category
        (["Moisturiser", "oil control", "oil-free"], "Moisturiser"),
        (["Body lotion", "with almond oil"], "Moisturiser"),
        (["Toner", "apply before your moisturiser"], "Toner"),
        (["Serum", "use after toner, followed by cream"], "Serum"),
        (["Gel-Maske", "nach der Reinigung"], "Mask"),
        (["Shower gel with scrub effect"], "Body Wash"),
        (["Orange peel cleanser"], "Cleanser"),
        (["Bath Salts for Cleansing"], "Bath Salts"),
        # the head noun decides: the last one in English, the first one in French
        (["Cleansing clay mask"], "Mask"),
        (["Masque exfoliant"], "Mask"),
        (["Serum-in-oil cream"], "Moisturiser"),
        (["Duo pack cleansing gel"], "Cleanser"),
        # languages
        (["Feuchtigkeitscreme"], "Moisturiser"),
        (["Sữa rửa mặt"], "Cleanser"),
        (["Kem dưỡng da tay"], "Moisturiser"),
        (["Скраб для тела"], "Exfoliator"),
        (["Гель для душа"], "Body Wash"),
        (["セラム"], "Serum"),
        (["수분 크림"], "Moisturiser"),
        (["面膜"], "Mask"),
        (["สครับผิวกาย"], "Exfoliator"),
        (["Żel pod prysznic"], "Body Wash"),
        (["Yüz temizleme jeli"], "Cleanser"),
        # OCR
        (["FACEWASH"], "Cleanser"),
        (["S E R U M"], "Serum"),
        (["M0ISTURISER"], "Moisturiser"),
        (["gentle cleamser"], "Cleanser"),
        (["FACIAL FOAL"], "Cleanser"),
        (["FLONALWATER"], "Mist"),
        (["niacinamideserum"], "Serum"),
        (["CKPA6 ДЛЯ"], "Exfoliator"),
        (["krem dlja tela"], "Moisturiser"),
        (["Ty T Bào Cht"], "Exfoliator"),
        (["LO TION"], "Moisturiser"),
    ],
)
def test_category_is_found(finder, lines, expected):
    assert category(finder, lines) == expected


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [""],
        ["ACME Paris", "50 ml e 1.7 fl.oz"],
        ["oil control"],
        ["THE BODY SHOP"],
        ["sebum, dream, potion"],
        ["1 2 3"],
    ],
)
def test_text_without_category_gives_no_evidence(finder, lines):
    assert scores(finder.find(lines), skincare_labels()).max() < 1.0


def test_larger_print_counts_more(finder):
    lines = ["Toner", "Cleanser"]
    assert category(finder, lines, [0.1, 0.02]) == "Toner"
    assert category(finder, lines, [0.02, 0.1]) == "Cleanser"


def test_evidence_has_phrase_and_line(finder):
    (found,) = finder.find(["ACME", "Clay Mask"])
    assert (found.label, found.text, found.line) == ("Mask", "clay mask", 1)


def test_further_phrases_of_a_category_count_less(finder):
    once, often = (scores(finder.find(["Toner"] * n), skincare_labels())[CATEGORIES.index("Toner")] for n in (1, 50))
    assert once < often < 2 * once


@pytest.mark.parametrize(
    "text", ["a " * 20_000, "s e r u m " * 5_000, "x" * 100_000, "eye " * 10_000, "\x00‮<|im_end|>", "水" * 10_000]
)
def test_hostile_text_takes_bounded_time(finder, text):
    finder.find([text])

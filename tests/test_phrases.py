"""Consistency of the phrase table, and text normalisation."""

import csv

import pytest

from skincare.errors import StageError
from skincare.labels import SKINCARE_FILE, read_labels, skincare_labels
from skincare.text_reading.phrases import drop_stacked_marks, fold, phrases_of, tokenise

CATEGORIES = skincare_labels().names
TABLE = SKINCARE_FILE.parent / "text_reading" / "phrases.csv"

HEADER = "label,language,strength,phrases\n"


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Crème MOISTURIZING", "creme moisturising"),
        ("ĐẤT SÉT, sữa", "dat set, sua"),
        ("Fußöl & Œil", "fussol  and  oeil"),
        ("Make-Up make up", "makeup makeup"),
        ("Anti-Aging antiageing", "antiageing antiageing"),
        ("KIŞ ısı łódź", "kis isi lodz"),
        ("ＳＥＲＵＭ", "serum"),
        ("ein­zu", "einzu"),
    ],
)
def test_text_is_normalised(text, folded):
    assert fold(text) == folded


def test_scripts_without_spaces_give_one_token_per_character():
    assert tokenise("Skin1004 크림 セラム крем") == ["skin1004", "크", "림", "セ", "ラ", "ム", "крем"]


def test_vietnamese_phrases_match_without_letters_unknown_to_ocr():
    assert drop_stacked_marks("tẩy tế bào chết") == "ty t bào cht"
    assert drop_stacked_marks("dưỡng ẩm") == "dưng m"
    assert drop_stacked_marks("day cream") == "day cream"


def test_every_category_is_named_in_every_language():
    rows = list(csv.DictReader(TABLE.open(encoding="utf-8")))
    found = {(row["language"], row["label"]) for row in rows if int(row["strength"]) >= 2}
    languages = {language for language, _ in found}
    assert len(languages) == 16
    assert {(language, label) for language in languages for label in CATEGORIES} - found == set()


def test_each_phrase_is_non_empty_and_maps_to_one_category():
    phrases = phrases_of(skincare_labels())
    assert all(phrase.tokens for phrase in phrases)
    assert len({phrase.tokens for phrase in phrases}) == len(phrases) > 3000


def test_the_answer_parser_and_the_table_agree():
    table = {phrase.tokens: phrase.label for phrase in phrases_of(skincare_labels()) if phrase.strength >= 2}
    parsed = {one.phrase: (one.label, table.get(tuple(tokenise(one.phrase)))) for one in skincare_labels().aliases}
    assert {alias: both for alias, both in parsed.items() if both[0] != both[1]} == {}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("Shampoo,en,3,shampoo\n", "no such label"),
        ("Serum,en,0,serum\n", "no such label"),
        (",en,3,serum\n", "no such label"),
        ("Serum,en,7,serum\n", "no such label"),
        ("Serum,en,3,essence\nToner,en,3,Essence\n", "'Essence' stands for"),
    ],
)
def test_malformed_table_raises(tmp_path, rows, message):
    (tmp_path / "phrases.csv").write_text(HEADER + rows, encoding="utf-8")
    labels = tmp_path / "labels.toml"
    labels.write_text('phrase_table = "phrases.csv"\nlabels = ["Serum", "Toner"]')
    with pytest.raises(StageError, match=message):
        phrases_of(read_labels(labels))


def test_the_table_is_plain_text_of_four_columns():
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    assert lines[0] + "\n" == HEADER
    assert all(line.count(",") == 3 for line in lines)

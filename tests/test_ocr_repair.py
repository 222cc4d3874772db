"""OCR errors are repaired, and correct words do not change."""

import pytest

from skincare.labels import skincare_labels
from skincare.text_reading.cyrillic import latin_spellings, skeleton
from skincare.text_reading.misreadings import Misreadings, edit_distance
from skincare.text_reading.ocr_repair import OcrRepair
from skincare.text_reading.phrases import phrases_of, tokenise


@pytest.fixture(scope="module")
def repair():
    return OcrRepair(
        phrases_of(
            skincare_labels(),
        )
    )


def repaired(repair, line):
    return [token.text for token in repair.tokens([tokenise(line)])]


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ("EYECREAM", ["eye", "cream"]),
        ("LightBodyWash", ["light", "body", "wash"]),
        ("S E R U M", ["serum"]),
        ("CLEAN SER", ["cleanser"]),
        ("M0ISTUR1SER", ["moisturiser"]),
        ("0il OiI oi1", ["oil", "oil", "oil"]),
        ("cleamser", ["cleanser"]),
        ("Exfolloting", ["exfoliating"]),
        ("Feuchtigkeitspflegecreme", ["feuchtigkeitspflege", "creme"]),
        ("CKPA6", ["скраб"]),
        ("SKRAB", ["скраб"]),
        ("CKPAE MACAO", ["скраб", "масло"]),
        ("serums", ["serum"]),
        ("serum30ml", ["serum"]),
        ("suaruamat", ["sua", "rua", "mat"]),
    ],
)
def test_ocr_errors_are_repaired(repair, line, tokens):
    assert repaired(repair, line) == tokens


@pytest.mark.parametrize("word", ["dream", "sebum", "potion", "shop", "labs", "heel", "2024", "ml", "eucerin"])
def test_other_words_do_not_change(repair, word):
    (token,) = repair.tokens([tokenise(word)])
    assert (token.text, token.fit) == (word, 1.0)


def test_repaired_words_have_a_lower_fit(repair):
    fits = [repair.tokens([[word]])[0].fit for word in ("cleanser", "c1eanser", "cleamser")]
    assert fits[0] == 1.0
    assert fits == sorted(fits, reverse=True)
    assert len(set(fits)) == 3


def test_tokens_keep_their_line(repair):
    assert [token.line for token in repair.tokens([["face"], [], ["eyecream"]])] == [0, 2, 2]


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        ("", "", 0),
        ("foam", "foal", 1),
        ("toning", "tonng", 1),
        ("shop", "soap", 2),
        ("abc", "", 3),
        ("kitten", "sitting", 3),
    ],
)
def test_edit_distance_is_levenshtein(one, other, distance):
    assert edit_distance(one, other) == edit_distance(other, one) == distance


def test_short_words_match_only_in_context():
    known = Misreadings(["foam", "serum", "exfoliating"])
    assert known.without_context("foal") == []
    assert known.in_context("foal") == ["foam"]
    assert known.without_context("serun") == ["serum"], "letters of one outline"
    assert known.without_context("sexum") == []
    assert known.without_context("exfoliotng") == ["exfoliating"]
    assert known.in_context("foo") == []


def test_cyrillic_is_recognised_by_look_alikes_and_transliterations():
    found = latin_spellings(["крем", "скраб", "для"])
    assert {found[skeleton(word)] for word in ("ckpab", "ckpa6", "ckpa8")} == {"скраб"}
    assert found["krem"] == found[skeleton("kpem")] == "крем"
    assert found["dlya"] == found["dlja"] == "для"
    assert all(len(spelling) >= 4 for spelling in found), "three letters are too easily another word"

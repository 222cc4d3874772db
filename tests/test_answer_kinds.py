"""Answers that mention more labels than they decide for, kind by kind."""

import pytest

from skincare.inference.answer_parser import parser_of
from skincare.labels import skincare_labels

parse = parser_of(skincare_labels()).parse

INGREDIENTS = [
    ("A body wash with coconut oil", "Body Wash"),
    ("It is a cleanser containing tea tree oil.", "Cleanser"),
    ("Body wash with shea butter and coconut oil", "Body Wash"),
    ("Body wash with argan oil, jojoba oil and almond oil", "Body Wash"),
    ("A body wash with essential oils and coconut oil", "Body Wash"),
    ("With coconut oil, this body wash cleans gently", "Body Wash"),
    ("A moisturiser enriched with a hyaluronic acid serum", "Moisturiser"),
    ("A mask made from rosehip oil", "Mask"),
    ("A serum rich in marula oil", "Serum"),
    ("Cleanser. Contains oils and serums.", "Cleanser"),
    ("Bath salts with lavender oil", "Bath Salts"),
    ("A cleanser in balm form", "Cleanser"),
    ("A serum with a balm-like texture", "Serum"),
    ("Baume avec huile d'argan", "Balm"),
    # Effects.
    ("A cleanser that removes dirt and oil", "Cleanser"),
    ("A toner that absorbs excess facial oil", "Toner"),
    ("It is a balm that turns into an oil", "Balm"),
    # Nothing else is named, or two other names stand outside.
    ("A product with argan oil", "Oil"),
    ("A set with a serum and a toner", None),
    ("A serum or a toner with oil", None),
]

EXPLANATIONS = [
    ("This is a serum. Serums are used before moisturizer.", "Serum"),
    ("Serum\n\nSerums are lighter than moisturisers and oils.", "Serum"),
    ("The product is a toner. It is applied after a cleanser and before a serum or moisturiser.", "Toner"),
    ("It's a mask. A mask differs from a peel, which dissolves dead skin.", "Mask"),
    ("Serum. Vitamin C is often found in toners, oils, masks, peels and mists.", "Serum"),
    ("This is a serum, to be applied before moisturizer", "Serum"),
    ("This is a cleanser; cleansers come before toners.", "Cleanser"),
    ("Serum (lighter than a moisturizer)", "Serum"),
    ("The image shows a balm. Balms, unlike oils, are solid.", "Balm"),
    ("It is not a mask. It is a face wash. Masks stay on longer than a cleanser or a peel.", "Cleanser"),
    ("After cleanser, use this toner.", "Toner"),
    # No explanation: another answer.
    ("This is a serum. It is a moisturizer.", None),
    ("This is a serum. It could also be an oil.", None),
    ("This is a serum. Actually, it is a toner.", None),
    ("Serum. Or a toner.", None),
    ("Serum. Toner.", None),
    ("Serum. Toner for the face", None),
    ("Serum. Toners for the face are thin.", "Serum"),
    ("1. Serum\n2. Toner", None),
    ("1. Serum 2. Toner", None),
    ("Serum: for the face\nToner: for the face", None),
    # The first sentence is not firm.
    ("It could be a serum. Moisturisers are thicker.", None),
    ("A serum or a toner. Masks are thicker.", None),
    # The prompt's list, explained.
    ("Mask: thick\nPeel: strong\nOil: fat\nMist: light\nBalm: solid", None),
]

SECOND_USES = [
    ("a mask; it can also be used as a cleanser", "Mask"),
    ("A cleanser that doubles as a mask", "Cleanser"),
    ("This is a balm. It also works as a moisturiser.", "Balm"),
    ("An oil that can be used as a serum", "Oil"),
    ("A mist, also great as a toner", "Mist"),
    ("It can be used as a toner", "Toner"),
    ("It is used as a cleanser and as a mask", None),
    ("A mask and a cleanser", None),
]

PILES = [
    ("balm cleanser", "Cleanser"),
    ("peeling gel exfoliator", "Exfoliator"),
    ("A serum mist", "Mist"),
    ("Oil cleanser", "Cleanser"),
    ("Oil serum", "Serum"),
    ("toner mist", "Mist"),
    ("mist toner", "Toner"),
    ("Coconut oil body wash", "Body Wash"),
    ("balm-to-oil cleanser", "Cleanser"),
    ("oil-infused body wash", "Body Wash"),
    ("a balm-like moisturiser", "Moisturiser"),
    ("clay mask gel cleanser", "Cleanser"),
    ("masque gommant", "Mask"),
    ("eye care serum", "Eye Care"),
    ("not a balm cleanser", None),
    ("not a balm cleanser but a mask", "Mask"),
    ("Oil\nCleanser", None),
    ("Serums toners", None),
    ("Serum, toner", None),
    ("mask serum toner balm", None),
    ("Moisturiser Exfoliator Mask Mist Cleanser", None),
]

LANGUAGES = [
    ("crème hydratante", "Moisturiser"),
    ("C'est un sérum pour le visage", "Serum"),
    ("gel nettoyant", "Cleanser"),
    ("huile de bain", "Bath Oil"),
    ("Ce n'est pas un masque", None),
    ("Das ist ein Duschgel.", "Body Wash"),
    ("Gesichtsmaske", "Mask"),
    ("Es ist kein Duschgel", None),
    ("crema hidratante", "Moisturiser"),
    ("mascarilla facial", "Mask"),
    ("Aceite corporal", "Oil"),
    ("maschera viso", "Mask"),
    ("保湿クリーム", "Moisturiser"),
    ("这是面霜。", "Moisturiser"),
    ("토너", "Toner"),
    ("крем для рук", "Moisturiser"),
    ("сыворотка для лица", "Serum"),
    ("Sữa rửa mặt", "Cleanser"),
    ("tẩy tế bào chết", "Exfoliator"),
    # An English word that is French too; a word inside another.
    ("With regard to the image, it is a serum", "Serum"),
    ("домасканный", None),
]

REFUSALS = [
    "unable to determine, possibly a serum",
    "I cannot tell, but it might be a toner.",
    "It is hard to say, maybe a mask.",
    "Not sure. Could be a peel.",
    "Possibly a mask, but I cannot be certain",
    "I'm sorry, I can't identify it. My best guess is a balm.",
]

ANSWERS_DESPITE_DOUBT = [
    ("I'm sorry, I cannot be sure, but it looks like a Balm.", "Balm"),
    ("I'm not sure, but it is a serum.", "Serum"),
    ("Possibly a serum", "Serum"),
]

UNFINISHED = [
    ("This is a serum. Serums are typically used before moistu", "Serum"),
    ("A body wash with coconut o", "Body Wash"),
    ("A cleanser with a balm", "Cleanser"),
    ("This is a balm", "Balm"),
    ("This is a serum. It is a mas", None),
    ("Serum or moistu", None),
]


@pytest.mark.parametrize(("text", "label"), INGREDIENTS)
def test_an_ingredient_or_effect_does_not_decide(text: str, label: str | None) -> None:
    assert parse(text).category == label


@pytest.mark.parametrize(("text", "label"), EXPLANATIONS)
def test_an_explanation_after_a_firm_sentence_does_not_decide(text: str, label: str | None) -> None:
    assert parse(text).category == label


@pytest.mark.parametrize(("text", "label"), SECOND_USES)
def test_a_second_use_does_not_decide(text: str, label: str | None) -> None:
    assert parse(text).category == label


@pytest.mark.parametrize(("text", "label"), PILES)
def test_the_head_of_a_pile_of_nouns_decides(text: str, label: str | None) -> None:
    assert parse(text).category == label


@pytest.mark.parametrize(("text", "label"), LANGUAGES)
def test_words_of_other_languages_name_a_label(text: str, label: str | None) -> None:
    assert parse(text).category == label


@pytest.mark.parametrize("text", REFUSALS)
def test_a_hedged_guess_after_a_refusal_is_a_refusal(text: str) -> None:
    answer = parse(text)
    assert (answer.category, answer.status) == (None, "refusal")
    assert len(answer.candidates) == 1


@pytest.mark.parametrize(("text", "label"), ANSWERS_DESPITE_DOUBT)
def test_a_doubt_without_a_hedged_guess_is_an_answer(text: str, label: str) -> None:
    assert parse(text).category == label


@pytest.mark.parametrize(("text", "label"), UNFINISHED)
def test_an_unfinished_explanation_leaves_the_answer(text: str, label: str | None) -> None:
    assert parse(text, is_finished=False).category == label


def test_all_mentions_are_candidates() -> None:
    assert parse("A body wash with coconut oil").candidates == ("Body Wash", "Oil")
    assert parse("This is a serum. Serums are used before moisturizer.").candidates == ("Serum", "Moisturiser")

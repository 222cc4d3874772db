import dataclasses
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skincare.inference.answer_parser import STATUSES, Answer, parser_of
from skincare.labels import skincare_labels

LABELS = skincare_labels()
CATEGORIES = LABELS.names
ALIASES = {one.phrase: one.label for one in LABELS.aliases}
parse = parser_of(LABELS).parse

PACKAGING_WORDS = (
    *("jar", "tube", "dropper", "pump", "atomiser", "tin", "sachet", "stick", "bottle", "flask", "white", "black"),
    *("amber", "green", "blue", "pink", "purple", "yellow", "gold", "silver", "wooden", "band", "oval", "bare"),
    *("drop", "leaf", "iris", "wave", "star", "crystal", "flower", "smile", "bubbles", "sun", "moon", "flake"),
    *("label", "top", "front"),
)
ECHO = "Choose one of: " + ", ".join(CATEGORIES)

FINISHED = [
    # The name alone, in every dress.
    ("Serum", "Serum", "exact"),
    ("  serum.\n", "Serum", "exact"),
    ("SERUM<|im_end|>", "Serum", "exact"),
    ("Bath Salts<|endoftext|>\n", "Bath Salts", "exact"),
    ("Mask</s>", "Mask", "exact"),
    ("**Bath Oil**", "Bath Oil", "exact"),
    ("**Bath** **Oil**", "Bath Oil", "exact"),
    ("`Eye Care`", "Eye Care", "exact"),
    ("# Toner", "Toner", "exact"),
    ("- Peel", "Peel", "exact"),
    ("bath-salts", "Bath Salts", "exact"),
    ("BODY_WASH", "Body Wash", "exact"),
    ("Body\nWash", "Body Wash", "exact"),
    ("Bath\u00a0Oil", "Bath Oil", "exact"),
    ("Bath\u2011Oil", "Bath Oil", "exact"),
    ("Se\u00adrum\u200b", "Serum", "exact"),
    ("Ｓｅｒｕｍ", "Serum", "exact"),
    ("“Mist”", "Mist", "exact"),
    ("14. Oil", "Oil", "exact"),
    ('{"category": "Serum"}', "Serum", "exact"),
    ("\\boxed{Bath\\_Salts}", "Bath Salts", "exact"),
    ("这是Serum。", "Serum", "exact"),
    ("serums", "Serum", "exact"),
    ("Masks", "Mask", "exact"),
    ("Body Washes", "Body Wash", "exact"),
    # Inside a sentence.
    ("Category: Serum", "Serum", "exact"),
    ("assistant\nSerum", "Serum", "exact"),
    ("The answer is **Serum**.", "Serum", "exact"),
    ("This is a Serum, which moisturises and cleanses the skin.", "Serum", "exact"),
    ("Serum. Serum. Serum", "Serum", "exact"),
    ("Exfoliating toner", "Toner", "exact"),
    ("A moisturising mask that hydrates", "Mask", "exact"),
    ("A serum with essential oils", "Serum", "exact"),
    ("An oil-based cleanser", "Cleanser", "exact"),
    ("An eye mask. Mask", "Mask", "exact"),
    ("Bubble bath oil", "Bath Oil", "exact"),
    ("I'm sorry, I cannot be sure, but it looks like a Balm.", "Balm", "exact"),
    ("An oil free of parabens", "Oil", "exact"),
    ("Serum in a spray bottle", "Serum", "exact"),
    # Aliases and compounds.
    ("Moisturizer", "Moisturiser", "alias"),
    ("moisturizing cream", "Moisturiser", "alias"),
    ("Moisturising lotion", "Moisturiser", "alias"),
    ("Day cream", "Moisturiser", "alias"),
    ("night crème", "Moisturiser", "alias"),
    ("Face Creams", "Moisturiser", "alias"),
    ("a hydrating cream", "Moisturiser", "alias"),
    ("Exfoliant", "Exfoliator", "alias"),
    ("exfoliating scrub", "Exfoliator", "alias"),
    ("Sugar scrub", "Exfoliator", "alias"),
    ("Shower gel", "Body Wash", "alias"),
    ("body cleanser", "Body Wash", "alias"),
    ("Hand wash", "Body Wash", "alias"),
    ("shower cream", "Body Wash", "alias"),
    ("Face wash", "Cleanser", "alias"),
    ("facial wash", "Cleanser", "alias"),
    ("cleansing foam", "Cleanser", "alias"),
    ("cleansing milk", "Cleanser", "alias"),
    ("Micellar water", "Cleanser", "alias"),
    ("make-up remover", "Cleanser", "alias"),
    ("Exfoliating cleanser", "Cleanser", "alias"),
    ("Tonic", "Toner", "alias"),
    ("Bath soak", "Bath Oil", "alias"),
    ("Bath Salt", "Bath Salts", "alias"),
    ("Epsom salts", "Bath Salts", "alias"),
    ("Bath & Shower Oil", "Bath Oil", "alias"),
    ("Cleansing oil", "Oil", "alias"),
    ("body oil", "Oil", "alias"),
    ("Facial oils", "Oil", "alias"),
    ("Dry oil", "Oil", "alias"),
    ("cleansing balms", "Balm", "alias"),
    ("Lip balm", "Balm", "alias"),
    ("Eye cream", "Eye Care", "alias"),
    ("eye serum", "Eye Care", "alias"),
    ("eye-gel", "Eye Care", "alias"),
    ("Eye balm", "Eye Care", "alias"),
    ("Eye treatment", "Eye Care", "alias"),
    ("peel-off mask", "Mask", "alias"),
    ("Eye mask", "Mask", "alias"),
    ("sheet masks", "Mask", "alias"),
    ("Sleeping mask", "Mask", "alias"),
    ("Chemical peel", "Peel", "alias"),
    ("Peel pads", "Peel", "alias"),
    ("Peeling", "Peel", "alias"),
    ("Setting spray", "Mist", "alias"),
    ("Facial spray", "Mist", "alias"),
    ("Spray", "Mist", "alias"),
    # Several names.
    ("Serum or Toner", None, "ambiguous"),
    ("Cleanser/Toner", None, "ambiguous"),
    ("Serum\nMask", None, "ambiguous"),
    ("Face wash, toner, serum and balm", None, "ambiguous"),
    ("Oil\nCleanser", None, "ambiguous"),
    (ECHO, None, "echo"),
    ("\n".join(CATEGORIES), None, "echo"),
    ("Mask, Peel, Oil, Mist, Balm", None, "echo"),
    # Negation.
    ("Not a serum", None, "negated"),
    ("This isn't a mask.", None, "negated"),
    ("This isn’t a mask.", None, "negated"),
    ("not **Serum**", None, "negated"),
    ("oil-free", None, "negated"),
    ("Free of oil", None, "negated"),
    ("without any oil", None, "negated"),
    ("It cannot be a toner", None, "negated"),
    ("Neither a serum nor a mask", None, "negated"),
    ("It's not a typical hydrating serum", None, "negated"),
    ("I don't think this is a serum", None, "negated"),
    ("Not a serum, but a mask", "Mask", "exact"),
    ("Not a serum but a mask", "Mask", "exact"),
    ("It is not a mask. It is a face wash.", "Cleanser", "alias"),
    ("Oil-free moisturiser", "Moisturiser", "exact"),
    ("Toner rather than a mist", "Toner", "exact"),
    ("Not a mask, either a serum or a toner", None, "ambiguous"),
    ("No, it's a serum", "Serum", "exact"),
    ("Not only a serum", "Serum", "exact"),
    # No name.
    ("I'm sorry, but I cannot determine the product.", None, "refusal"),
    ("I’m sorry.", None, "refusal"),
    ("I am unable to see the image", None, "refusal"),
    ("I cannot tell", None, "refusal"),
    ("", None, "empty"),
    (" \n\t", None, "empty"),
    ("**...**", None, "empty"),
    ("<|im_end|>", None, "empty"),
    ("Bath", None, "offlist"),
    ("Shampoo", None, "offlist"),
    ("cream", None, "offlist"),
    ("Lotion", None, "offlist"),
    ("an essence", None, "offlist"),
    ("gel", None, "offlist"),
    ("boiling soil", None, "offlist"),
    ("damask, unmasked, oily, mistake, embalm", None, "offlist"),
    ("It moisturises, cleanses and exfoliates.", None, "offlist"),
    ("None", None, "offlist"),
    ("Unknown", None, "offlist"),
    ("a white jar with a gold top and a leaf on an oval label", None, "offlist"),
    ("A clear flask in a wooden band, the label peels off", None, "offlist"),
]

UNFINISHED = [
    ("Serum", "Serum", "exact"),
    ("This is a serum, which", "Serum", "exact"),
    ("A face wash in a", "Cleanser", "alias"),
    ("Peel.", "Peel", "exact"),
    ("Bath Salt", "Bath Salts", "alias"),
    ("Bath", None, "truncated"),
    ("Peel", None, "truncated"),
    ("Serum or bath", None, "truncated"),
    ("Serum or Moistu", None, "truncated"),
    ("The product in the image", None, "truncated"),
    ("Serum, Toner, Mas", None, "ambiguous"),
    ("Not a serum", None, "negated"),
    ("", None, "empty"),
]

# Text made of what the rules look for; free text alone would hardly ever reach them.
PIECES = st.sampled_from(
    [
        *CATEGORIES,
        *ALIASES,
        *LABELS.nameless,
        "not a",
        "isn't",
        "-free",
        " or ",
        ", ",
        ".",
        "\n",
        "**",
        "<|im_end|>",
        "bath",
        "I cannot",
    ]
)
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=12).map(" ".join), st.lists(PIECES, max_size=12).map("".join))
ASCII_TEXTS = st.one_of(st.lists(PIECES, max_size=8).map(" ".join), st.text(st.characters(max_codepoint=127)))


@pytest.mark.parametrize(("text", "category", "status"), FINISHED)
def test_a_finished_answer_gives_the_expected_category_and_status(text: str, category: str | None, status: str) -> None:
    answer = parse(text)
    assert (answer.category, answer.status) == (category, status)


@pytest.mark.parametrize(("text", "category", "status"), UNFINISHED)
def test_an_unfinished_answer_counts_only_by_what_it_surely_names(text: str, category: str | None, status: str) -> None:
    answer = parse(text, is_finished=False)
    assert (answer.category, answer.status) == (category, status)


def test_every_status_occurs_in_the_tables() -> None:
    assert {status for _, _, status in FINISHED + UNFINISHED} == set(STATUSES)


@pytest.mark.parametrize(
    ("text", "candidates"),
    [
        ("Toner, serum, toner", ("Toner", "Serum")),
        ("Not a serum, but a mask", ("Serum", "Mask")),
        ("\n".join(CATEGORIES), CATEGORIES),
        ("Bath Oil", ("Bath Oil",)),
        ("a jar", ()),
    ],
)
def test_candidates_are_the_distinct_names_in_order_of_appearance(text: str, candidates: tuple[str, ...]) -> None:
    assert parse(text).candidates == candidates


@given(TEXTS, st.booleans())
def test_any_text_gives_a_category_exactly_when_the_status_is_exact_or_alias(text: str, is_finished: bool) -> None:
    answer = parse(text, is_finished=is_finished)
    assert answer.status in STATUSES
    assert (answer.category in CATEGORIES) == (answer.status in ("exact", "alias"))
    assert answer.category is None or answer.category in answer.candidates
    assert set(answer.candidates) <= set(CATEGORIES)


@given(ASCII_TEXTS, st.text(" \t\r\n\u00a0"), st.text(" \t\r\n\u00a0"), st.booleans())
def test_case_and_surrounding_white_space_never_change_the_result(
    text: str, before: str, after: str, is_finished: bool
) -> None:
    expected = parse(text, is_finished=is_finished)
    for variant in (text.upper(), text.lower(), text.swapcase(), before + text + after):
        assert parse(variant, is_finished=is_finished) == expected


@pytest.mark.parametrize("name", CATEGORIES)
def test_a_category_name_alone_is_exact(name: str) -> None:
    assert parse(name) == Answer(name, "exact", (name,))


@pytest.mark.parametrize("name", CATEGORIES)
def test_a_name_in_a_plain_sentence_gives_that_name(name: str) -> None:
    assert parse(f"The product is a {name}.") == Answer(name, "exact", (name,))


@pytest.mark.parametrize("phrase", sorted(ALIASES))
def test_an_alias_alone_gives_its_category_by_alias(phrase: str) -> None:
    category = ALIASES[phrase]
    assert category in CATEGORIES
    assert parse(phrase) == Answer(category, "alias", (category,))


def test_aliases_are_lower_case_and_never_a_category_name() -> None:
    assert all(phrase == phrase.lower().strip() for phrase in ALIASES)
    assert not set(ALIASES) & {name.lower() for name in CATEGORIES}


@pytest.mark.parametrize("phrase", LABELS.nameless)
def test_a_nameless_phrase_names_nothing(phrase: str) -> None:
    assert parse(phrase) == Answer(None, "offlist", ())


@pytest.mark.parametrize("word", PACKAGING_WORDS)
def test_a_packaging_word_names_nothing(word: str) -> None:
    assert parse(word) == Answer(None, "offlist", ())


@given(st.lists(st.sampled_from(PACKAGING_WORDS), min_size=1, max_size=20))
def test_no_sequence_of_packaging_words_names_anything(words: list[str]) -> None:
    assert parse(" ".join(words)) == Answer(None, "offlist", ())


@pytest.mark.parametrize(
    "piece",
    [
        *("oil ", "not a ", "not a a oil ", "peel", "<|", "bath and ", " ", "an't ", "e\u0301\u0327", "free of ", "ﷺ"),
        *("with oil ", "with ", "oil. ", "it is a oil. ", "oil\n", "balm to ", "before , ", ". ", "крем", "oil and "),
        *("this is ", "used as ", "serum form ", "a" * 9 + " ", "possibly oil, ", "oil balm "),
    ],
)
def test_a_hundred_kilobytes_of_hostile_text_take_less_than_two_seconds(piece: str) -> None:
    text = (piece * 100_000)[:100_000]
    start = time.process_time()  # not the wall clock: other programs may keep the machine busy
    parse(text, is_finished=False)
    assert time.process_time() - start < 2.0


def test_an_answer_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse("Serum").category = "Mask"  # type: ignore[misc]

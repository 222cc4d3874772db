"""Whatever the dress, a name is itself; denied, it is never itself; the prompt is an echo; the table has no order."""

import random
import string
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skincare.inference.answer_parser import Answer, AnswerParser, parser_of
from skincare.labels import skincare_labels

LABELS = skincare_labels()
CATEGORIES = LABELS.names
QUESTION, SYSTEM_PROMPT = LABELS.question, LABELS.system_prompt()
parse = parser_of(LABELS).parse

GAPS = (" ", "  ", "\n", "\t", "\u00a0", "\u2009", "\u3000", "-", "_", "\u2011", "\u200b ")
DRESSES = (
    *(("", ""), ('"', '"'), ("'", "'"), ("“", "”"), ("«", "»"), ("「", "」"), ("**", "**"), ("_", "_"), ("`", "`")),
    *(
        ("```\n", "\n```"),
        ("# ", ""),
        ("- ", ""),
        ("1. ", ""),
        ("> ", ""),
        ("(", ")"),
        ("", "."),
        ("", "!"),
        ("", "。"),
    ),
    *(("Answer: ", ""), ('{"answer": "', '"}'), ("\\boxed{", "}"), ("\ufeff", ""), ("| ", " |"), ("<b>", "</b>")),
)
DENIALS = (
    *("not a {}", "not an {}", "not the {}", "this isn't a {}", "this isn’t a {}"),
    *(
        "it's not really a {}",
        "it cannot be a {}",
        "definitely not a {}",
        "no {}",
        "non-{}",
        "never a {}",
        "not **{}**",
    ),
    *("not a type of {}", "isn't any kind of {}", "not a(n) {}", "not a product of type {}", "not considered a {}"),
    *("not classified as a {}", "not categorised as {}", "not identified as a {}", "not labeled as {}", "is not: {}"),
    *("I would not say it is a {}", "I wouldn't call it a {}", "not specifically a {}", "hardly a {}", "excluding {}"),
    *("anything but a {}", "neither a {} nor a {}", "I don't think that this is a {}", "not a very good {}"),
)
names = st.sampled_from(CATEGORIES)


def wide(text: str) -> str:
    """The text in full-width letters, as East Asian keyboards give it."""
    return "".join(chr(ord(one) + 0xFEE0) if one in string.ascii_letters else one for one in text)


@st.composite
def spellings(draw, name: str) -> str:
    word = draw(st.sampled_from([name, name if name.endswith("s") else f"{name}s"]))
    word = "".join(draw(st.sampled_from([one.lower(), one.upper()])) for one in word)
    word = word.replace(" ", draw(st.sampled_from(GAPS)))
    before, after = draw(st.sampled_from(DRESSES))
    end = draw(st.sampled_from(["", "<|im_end|>", "</s>", "\n\n", " "]))
    return before + (wide(word) if draw(st.booleans()) else word) + after + end


@given(names.flatmap(lambda name: st.tuples(st.just(name), spellings(name))))
@settings(max_examples=300)
def test_every_spelling_of_a_name_is_that_name(case: tuple[str, str]) -> None:
    name, text = case
    assert parse(text) == Answer(name, "exact", (name,))


@given(names, st.sampled_from(DENIALS), st.sampled_from([str, str.upper, wide]))
def test_a_denied_name_is_never_the_answer(name: str, denial: str, change) -> None:
    assert parse(change(denial.replace("{}", name))) == Answer(None, "negated", (name,))


@given(st.sampled_from(DENIALS[:3]), names, names)
def test_a_denied_name_gives_way_to_the_other(denial: str, name: str, other: str) -> None:
    if name != other:
        assert parse(f"{denial.format(name)} but a {other}").category == other


@given(
    st.permutations(CATEGORIES), st.sampled_from(["{}", "system\n{}\nuser\n{q}\nassistant\n", "<|im_start|>{}\n{q}"])
)
def test_the_prompt_is_an_echo_in_any_order(order, frame: str) -> None:
    prompt = SYSTEM_PROMPT.replace(", ".join(CATEGORIES), ", ".join(order))
    found = parse(frame.replace("{}", prompt).replace("{q}", QUESTION))
    assert (found.category, found.status) == (None, "echo")
    assert sorted(found.candidates) == sorted(CATEGORIES)


def test_the_question_alone_names_nothing() -> None:
    assert parse(QUESTION) == Answer(None, "offlist", ())


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_phrases_changes_nothing(seed: int) -> None:
    rng = random.Random(seed)
    own = [one.phrase for one in LABELS.aliases]
    pieces = [*CATEGORIES, *own, *LABELS.nameless, "not a", " or ", ", ", "free", "bath", "and", "with", ". "]
    texts = [" ".join(rng.choices(pieces, k=rng.randint(1, 6))) for _ in range(400)]
    shuffled = replace(
        LABELS,
        aliases=tuple(rng.sample(LABELS.aliases, len(LABELS.aliases))),
        nameless=LABELS.nameless[::-1],
        pack_phrases=LABELS.pack_phrases[::-1],
    )
    other = AnswerParser(shuffled)
    for i, text in enumerate(texts):
        assert other.parse(text, is_finished=i % 2 == 0) == parse(text, is_finished=i % 2 == 0)

"""Constrained decoding gives the schema's JSON for any logits, also where these are wider than the tokenizer."""

import json
import sys

import pytest
import torch

from skincare.errors import StageError
from skincare.inference.structured_decoder import product_schema
from skincare.labels import skincare_labels
from skincare.modeling import json_constraint
from skincare.modeling.json_constraint import JsonConstraint
from skincare.product.facts import MAX_TEXT_CHARACTERS, N_INGREDIENTS
from skincare.product.json_answers import parse_product

pytest.importorskip("llguidance")

N_LOGITS = 600
SCHEMA = product_schema(skincare_labels())


@pytest.fixture(scope="module")
def constraint(tiny_encoder):
    return JsonConstraint(SCHEMA, tiny_encoder.tokenizer, N_LOGITS, tiny_encoder.end_token_id)


def test_random_logits_give_valid_answers_in_every_row_of_a_batch(constraint, tiny_encoder):
    rows, generator = constraint.start(4), torch.Generator().manual_seed(0)
    (quote,) = tiny_encoder.tokenizer.encode('"')
    texts, is_running = [[] for _ in range(4)], [True] * 4
    for _ in range(700):
        logits = torch.randn(4, N_LOGITS, generator=generator, dtype=torch.bfloat16)
        logits[:, quote] += 3  # ends texts
        masked = rows.mask(logits)
        assert torch.equal(masked[masked > float("-inf")], logits[masked > float("-inf")])
        tokens = masked.argmax(dim=-1).tolist()
        rows.accept(tokens)
        for row, token in enumerate(tokens):
            is_running[row] &= token != tiny_encoder.end_token_id
            if is_running[row]:
                texts[row].append(token)
        if not any(is_running):
            break
    assert not any(is_running)
    for tokens in texts:
        assert max(tokens) < len(tiny_encoder.tokenizer)
        assert not set(tokens) & set(tiny_encoder.tokenizer.all_special_ids)
        parsed = parse_product(tiny_encoder.decode(tokens))
        assert parsed.status == "valid"
        assert parsed.product.to_json() == tiny_encoder.decode(tokens)
        assert parsed.product.category in (None, *skincare_labels().names)


def test_a_text_that_repeats_itself_ends(constraint, tiny_encoder):
    """The same logits in every step make a greedy text endless; it ends at the length of datasets' texts."""
    rows, tokens = constraint.start(1), []
    logits = torch.randn(1, N_LOGITS, generator=torch.Generator().manual_seed(3))
    for text in ("n", '"'):
        logits[:, tiny_encoder.tokenizer.encode(text)] = -20  # neither null nor the end of a text
    while not (text := tiny_encoder.decode(tokens)).endswith(',"category"'):
        tokens.append(int(rows.mask(logits).argmax()))
        rows.accept(tokens[-1:])
    brand = json.loads(text.removesuffix(',"category"') + "}")["brand"]
    assert len(brand) == MAX_TEXT_CHARACTERS
    (ingredients, _) = SCHEMA["properties"]["ingredients"]["anyOf"]
    assert (ingredients["maxItems"], ingredients["items"]["maxLength"]) == (N_INGREDIENTS, MAX_TEXT_CHARACTERS)


def test_a_finished_row_does_not_stop_the_others(constraint, tiny_encoder):
    rows = constraint.start(2)
    answer = parse_product('{"category":"Peel"}').product.to_json()
    for token in tiny_encoder.answer_tokens(answer):
        logits = torch.zeros(2, N_LOGITS)
        assert rows.mask(logits)[0, token] == 0, "the answer of a dataset is allowed"
        rows.accept([token, int(rows.mask(logits)[1].argmax())])
    masked = rows.mask(torch.zeros(2, N_LOGITS))
    assert (masked[0] == 0).all()
    assert (masked[1] == float("-inf")).any()


def test_the_end_token_is_allowed_only_after_a_whole_answer(constraint, tiny_encoder):
    rows = constraint.start(1)
    answer = parse_product('{"category":"Peel","size":"5 ml"}').product.to_json()
    for token in tiny_encoder.answer_tokens(answer)[:-1]:
        assert rows.mask(torch.zeros(1, N_LOGITS))[0, tiny_encoder.end_token_id] == float("-inf")
        rows.accept([token])
    allowed = (rows.mask(torch.zeros(1, N_LOGITS))[0] == 0).nonzero()[:, 0].tolist()
    assert allowed == [tiny_encoder.end_token_id]


def test_without_the_library_the_error_names_it(monkeypatch, tiny_encoder):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(StageError, match="pip install llguidance"):
        JsonConstraint(SCHEMA, tiny_encoder.tokenizer, N_LOGITS, tiny_encoder.end_token_id)


def test_a_schema_that_cannot_be_compiled_is_an_error(tiny_encoder):
    with pytest.raises(StageError, match="rejects the schema"):
        JsonConstraint({"type": "no such type"}, tiny_encoder.tokenizer, N_LOGITS, tiny_encoder.end_token_id)


@pytest.mark.parametrize(("token", "word"), [(0, 1), (33, 2), (31, -(2**31)), (62, 2**30)])
def test_the_mask_of_one_token_is_a_signed_word(token, word):
    assert json_constraint._bit(token) == word

"""Long answers of different lengths: their losses, their generation in batches, and what is read from them."""

import dataclasses
import json

import pytest
import torch

from skincare.errors import StageError
from skincare.inference import predictions, structured_decoder
from skincare.inference.decoders import make_decoder, max_new_tokens
from skincare.inference.predictions import Prediction, parsed
from skincare.inference.structured_answers import parse_answer
from skincare.labels import skincare_labels
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.freezing import freeze
from skincare.modeling.losses import example_losses
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.modeling.settings import Trainable
from skincare.product.json_answers import parse_product
from skincare.product.schema import FIELDS
from tests.helpers import mixed_pixels
from tests.structured_examples import ANSWERS, LABELS, PRODUCTS
from tests.test_cached_vlm import gradients, plain_losses

CATEGORIES = [one.category for one in PRODUCTS]


@pytest.fixture(scope="module")
def encoder(tiny_encoder):
    return PromptEncoder(tiny_encoder.processor, LABELS)


def test_losses_and_gradients_of_long_answers_equal_the_plain_pass_in_any_micro_batch(tiny_model, encoder):
    freeze(tiny_model, Trainable())
    network = CachedVLM(tiny_model)
    assert network.caches_prompt_prefix
    pixels = mixed_pixels(encoder)
    grids, features = [one.grid for one in pixels], network.vision_features(pixels)
    batch = encoder.batch(grids, ANSWERS)
    lengths = (batch.labels >= 0).sum(dim=1).tolist()
    assert lengths == [len(encoder.answer_tokens(one)) for one in ANSWERS]
    assert max(lengths) > min(lengths) + 20
    expected = plain_losses(tiny_model, batch, pixels)
    expected.mean().backward()
    expected_gradients = gradients(tiny_model)
    for size in (4, 3, 1):
        tiny_model.zero_grad()
        losses = []
        for i in range(0, 4, size):
            part = slice(i, i + size)
            found = example_losses(
                network, encoder, "none", grids[part], features[part], CATEGORIES[part], answers=ANSWERS[part]
            )
            (found.sum() / 4).backward()
            losses += found.tolist()
        assert losses == pytest.approx(expected.tolist(), rel=1e-5)
        for name, gradient in gradients(tiny_model).items():
            scale = expected_gradients[name].abs().max()
            assert (gradient - expected_gradients[name]).abs().max() <= 1e-4 * scale + 1e-9, name


@pytest.fixture
def answering(tiny_model, encoder, monkeypatch):
    """A network whose logits make it generate a JSON answer each, whatever the image, with given log-probabilities."""
    monkeypatch.setattr(structured_decoder, "MAX_ANSWER_TOKENS", 40)
    return CachedVLM(tiny_model.requires_grad_(False))


def test_log_probabilities_are_those_of_the_plain_pass(answering, encoder):
    pixels = mixed_pixels(encoder)
    grids, features = [one.grid for one in pixels], answering.vision_features(pixels)
    batch = encoder.inference_batch(grids)
    found = answering.generate(encoder, batch, features, 12, with_log_probabilities=True)
    without = answering.generate(encoder, batch, features, 12)
    assert [dataclasses.replace(one, log_probabilities=()) for one in found] == without
    for one, pixel in zip(found, pixels, strict=True):
        whole = encoder.batch([pixel.grid])
        ids = torch.cat([whole.input_ids[0], torch.tensor(one.tokens)])[None]
        logits = answering.model(
            input_ids=ids, pixel_values=pixel.patches, image_grid_thw=torch.tensor([pixel.grid]),
            mm_token_type_ids=(ids == encoder.image_token_id).int(),
        ).logits[0, whole.input_ids.shape[1] - 1 : -1]  # fmt: skip
        expected = logits.log_softmax(-1)[range(len(one.tokens)), list(one.tokens)]
        assert list(one.log_probabilities) == pytest.approx(expected.tolist(), abs=1e-4)


def test_constrained_text_follows_the_schema_also_where_it_is_cut_off(answering, encoder):
    pytest.importorskip("llguidance")
    pixels = mixed_pixels(encoder)
    grids, features = [one.grid for one in pixels], answering.vision_features(pixels)
    decoder = make_decoder("constrained", answering, encoder)
    assert decoder.name == "constrained"
    outputs = decoder(grids, features)
    alone = [decoder([grid], [states])[0] for grid, states in zip(grids, features, strict=True)]
    assert [one.text for one in outputs] == [one.text for one in alone], "left padding changes nothing"
    for one in outputs:
        assert one.text.startswith('{"brand":')
        assert (one.is_finished, one.n_new_tokens) == (False, 40)
        assert parse_product(one.text).status in ("truncated", "invalid")
        assert all(value <= 0 for _, value in one.field_log_probabilities)


def test_an_answer_ends_where_the_models_context_ends(answering, encoder, monkeypatch):
    monkeypatch.setattr(structured_decoder, "MAX_ANSWER_TOKENS", 768)
    pixels = mixed_pixels(encoder)[:1]
    grids, features = [pixels[0].grid], answering.vision_features(pixels)
    n_prompt = encoder.batch(grids).input_ids.shape[1]
    decoder = make_decoder("generate", answering, encoder)
    monkeypatch.setattr(answering.model.config.text_config, "max_position_embeddings", n_prompt + 5)
    assert decoder(grids, features)[0].n_new_tokens <= 5
    monkeypatch.setattr(answering.model.config.text_config, "max_position_embeddings", n_prompt)
    with pytest.raises(StageError, match="leaves no token"):
        decoder(grids, features)


def test_structured_answers_have_no_ranking_and_a_longer_limit(answering, encoder, tiny_encoder):
    for name in ("rank", "head"):
        with pytest.raises(StageError, match="generate or constrained"):
            make_decoder(name, answering, encoder)
    assert max_new_tokens(LABELS) > max_new_tokens(skincare_labels()) == 30
    assert make_decoder("rank", answering, tiny_encoder).name == "rank"


@pytest.mark.parametrize(
    ("text", "is_finished", "expected"),
    [
        (ANSWERS[1], True, ("Bath Salts", "exact")),
        ("```json\n{'category': 'Face Wash',}\n```", True, ("Cleanser", "alias")),
        ('{"brand":"Noor","category":"Eye Care","det', False, ("Eye Care", "exact")),
        ('{"brand":"Noor","category":"Hat"}', True, (None, "offlist")),
        ('{"brand":"Noor","category":null}', True, (None, "offlist")),
        ('{"brand":"Noor","cat', False, (None, "truncated")),
        ("A serum.", True, (None, "offlist")),
        ("  ", True, (None, "empty")),
    ],
)
def test_the_category_is_the_one_in_the_answer(text, is_finished, expected):
    answer = parse_answer(text, LABELS, "product", is_finished=is_finished)
    assert (answer.category, answer.status) == expected


def prediction(**changes):
    values = {
        "image_id": "1_1", "product_id": "1", "file": "f.jpg", "split": "test", "truth": "Peel", "decoder": "generate",
        "text": ANSWERS[0], "n_new_tokens": 9, "is_finished": True, "category": None, "status": "", "candidates": (),
        "log_probabilities": (), "latency_s": 0.1, "target": "product",
        "field_log_probabilities": dict.fromkeys(FIELDS, -0.5),
    }  # fmt: skip
    return parsed(Prediction(**{**values, **changes}), skincare_labels())


def test_predictions_keep_the_target_and_are_parsed_again_with_it(tmp_path):
    one = prediction()
    assert (one.category, one.status) == ("Peel", "exact")
    path = tmp_path / "predictions.jsonl"
    predictions.write_jsonl(path, [one])
    (found,) = predictions.read_jsonl(path, skincare_labels())
    assert found == one
    assert parsed(found, skincare_labels()) == one
    for name, bad in (("target", "colour"), ("field_log_probabilities", {"size": 3})):
        path.write_text(json.dumps({**json.loads(path.read_text()), name: bad}) + "\n")
        with pytest.raises(StageError, match=name):
            predictions.read_jsonl(path, skincare_labels())
        predictions.write_jsonl(path, [one])


def test_lines_about_categories_have_no_key_more_than_before(tmp_path):
    path = tmp_path / "predictions.jsonl"
    predictions.write_jsonl(path, [prediction(text="Peel", target="category", field_log_probabilities={})])
    assert not {"target", "field_log_probabilities", "hint"} & set(json.loads(path.read_text()))

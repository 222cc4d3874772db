"""Every family gives the results of transformers' own pass, with cached features and a cached prompt prefix.

The models are tiny and random: what holds is that the passes are equal, not that any answer is right.
"""

import dataclasses
import json

import pytest
import torch
from torch.nn import functional

from skincare.errors import StageError
from skincare.inference import saliency
from skincare.inference.decoders import make_decoder
from skincare.labels import skincare_labels
from skincare.modeling import loading, vision_tower
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.families.registry import FAMILIES
from skincare.modeling.freezing import freeze
from skincare.modeling.prompt_encoder import IGNORED, PromptEncoder
from skincare.modeling.settings import PixelLimits, Trainable
from skincare.modeling.token_trie import build_trie
from skincare.modeling.vision_features import features_key
from skincare.training import gradient_checkpointing, preflight
from tests.family_models import MODEL_TYPES, write_family_model
from tests.helpers import noise_image

ANSWERS = ["Peel", "Bath Salts", "Eye Care", "Moisturiser"]
PARTS = {
    "reference": Trainable(),
    "two": Trainable(2, True, 2),
    "merger": Trainable(0, True, 0),
    "everything": Trainable(everything=True),
}


@pytest.fixture(scope="session")
def encoders(folders):
    limits = PixelLimits(20, 60)
    return {one: PromptEncoder(loading.load_processor(folders[one], limits), skincare_labels()) for one in folders}


@pytest.fixture(params=MODEL_TYPES)
def family(request, folders, encoders):
    """A family's model and encoder, and four images of three shapes."""
    encoder = encoders[request.param]
    shapes = ((168, 168), (200, 120), (168, 168), (100, 230))
    pixels = [encoder.patches(noise_image(*shape, seed=i)) for i, shape in enumerate(shapes)]
    return loading.load_model(folders[request.param], torch.device("cpu")), encoder, pixels


def plain_logits(model, batch, pixels, image_token_id):
    """Return the logits of transformers' own pass, which computes the positions itself."""
    return model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        pixel_values=torch.cat([one.patches for one in pixels]),
        image_grid_thw=torch.tensor([one.grid for one in pixels]),
        mm_token_type_ids=(batch.input_ids == image_token_id).int(),
    ).logits


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(found, expected):
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert (gradient - expected[name]).abs().max() <= 2e-5 * expected[name].abs().max() + 1e-8, name


@pytest.mark.parametrize("n_blocks", [-1, 0, 1, 3, 4])
def test_the_parts_of_the_vision_tower_give_the_plain_pass(family, n_blocks):
    model, _, pixels = family
    visual, grids, patches = model.model.visual, [one.grid for one in pixels], [one.patches for one in pixels]
    with torch.no_grad():
        plain = visual(torch.cat(patches), grid_thw=torch.tensor(grids))
        features = vision_tower.frozen_features(visual, patches, grids, n_blocks) if n_blocks >= 0 else patches
        assert {one.shape[1] for one in features} == {vision_tower.feature_width(visual, n_blocks)}
        found = vision_tower.visual_embeddings(visual, features, grids, n_blocks)
    expected = torch.cat([plain.pooler_output, *getattr(plain, "deepstack_features", [])], dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("trainable", PARTS.values(), ids=PARTS)
def test_losses_and_gradients_equal_the_plain_pass(family, trainable):
    """With features that are cached after the frozen blocks, and with the prompt prefix where it is cached."""
    model, encoder, pixels = family
    parameters, grids = freeze(model, trainable), [one.grid for one in pixels]
    network = CachedVLM(model)
    batch = encoder.batch(grids, ANSWERS)
    logits = plain_logits(model, batch, pixels, encoder.image_token_id)
    losses = functional.cross_entropy(logits[:, :-1].transpose(1, 2), batch.labels[:, 1:], reduction="none")
    expected = losses.sum(1) / (batch.labels[:, 1:] >= 0).sum(1)
    expected.mean().backward()
    expected_gradients = gradients(model)
    assert expected_gradients.keys() == parameters.keys()
    features = network.vision_features(pixels)
    for without_prefix in {False, network.caches_prompt_prefix}:
        model.zero_grad()
        found = network(encoder.batch(grids, ANSWERS, without_prefix=without_prefix), features)
        found.mean().backward()
        torch.testing.assert_close(found, expected, rtol=2e-5, atol=1e-5)
        assert_same_gradients(gradients(model), expected_gradients)


def test_long_answers_to_prompts_with_hints_equal_the_plain_pass(family):
    """Rows differ in length before and after the image."""
    model, encoder, pixels = family
    freeze(model, Trainable())
    network, grids = CachedVLM(model), [one.grid for one in pixels]
    hints = ["", "Text on the pack: NOOR", "", "Text on the pack: NOOR BATH SALTS 500 g, with lavender"]
    answers = [json.dumps({"category": name, "details": n * "rich cream, "}) for n, name in enumerate(ANSWERS)]
    batch = encoder.batch(grids, answers, hints=hints)
    logits = plain_logits(model, batch, pixels, encoder.image_token_id)
    losses = functional.cross_entropy(logits[:, :-1].transpose(1, 2), batch.labels[:, 1:], reduction="none")
    expected = losses.sum(1) / (batch.labels[:, 1:] >= 0).sum(1)
    shortened = encoder.batch(grids, answers, hints=hints, without_prefix=True)
    found = network(shortened, network.vision_features(pixels))
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_an_untied_output_layer_is_trained_with_everything(tmp_path, encoders, model_type):
    """Larger models of each family have one."""
    folder = write_family_model(model_type, tmp_path, is_tied=False)
    model, encoder = loading.load_model(folder, torch.device("cpu")), encoders[model_type]
    assert model.lm_head.weight is not model.get_input_embeddings().weight
    assert "lm_head.weight" not in freeze(model, Trainable())
    parameters = freeze(model, Trainable(everything=True))
    pixels = [encoder.patches(noise_image(168, 168))]
    network, batch = CachedVLM(model), encoder.batch([pixels[0].grid], ANSWERS[:1])
    logits = plain_logits(model, batch, pixels, encoder.image_token_id)
    functional.cross_entropy(logits[:, :-1].transpose(1, 2), batch.labels[:, 1:]).backward()
    expected = gradients(model)
    assert expected.keys() == parameters.keys()
    model.zero_grad()
    network(batch, network.vision_features(pixels)).mean().backward()
    assert_same_gradients(gradients(model), expected)
    assert expected["lm_head.weight"].abs().sum() > 0


def test_constrained_decoding_takes_the_best_allowed_token(family):
    """The allowed tokens are those of the labels; each is the likeliest of them in a full pass."""
    model, encoder, pixels = family
    network, one = CachedVLM(model.requires_grad_(False)), pixels[1]
    decoder = make_decoder("constrained", network, encoder)
    (found,) = decoder([one.grid], network.vision_features([one]))
    assert found.text in encoder.labels.names
    answers = [encoder.answer_tokens(name) for name in encoder.labels.names]
    for n, token in enumerate(encoder.answer_tokens(found.text)):
        given = encoder.answer_tokens(found.text)[:n]
        allowed = {tokens[n] for tokens in answers if tokens[:n] == given and len(tokens) > n}
        batch = encoder.batch([one.grid], [found.text])
        first = int((batch.labels[0] >= 0).int().argmax())
        with torch.no_grad():
            logits = plain_logits(model, batch, [one], encoder.image_token_id)[0, first - 1 + n]
        assert token == max(allowed, key=lambda other: logits[other].item())


def test_the_last_layer_computes_only_the_outputs_that_are_needed(family, monkeypatch):
    model, encoder, pixels = family
    freeze(model, Trainable())
    network, last = CachedVLM(model), model.model.language_model.layers[-1]
    widths = []
    last.mlp.register_forward_pre_hook(lambda _module, inputs: widths.append(inputs[0].shape[1]))
    grids, features = [one.grid for one in pixels], network.vision_features(pixels)
    batch = encoder.batch(grids, ANSWERS, without_prefix=True)
    network(batch, features)
    first = [row.nonzero()[0].item() for row in batch.labels != IGNORED]
    # From the token before the first answer on; the cached prompt prefix needs no output at all.
    assert widths == [batch.labels.shape[1] - min(first) + 1]
    assert widths[0] < batch.labels.shape[1] / 2
    widths.clear()
    prompts, trie = encoder.inference_batch(grids), build_trie(encoder, ("Peel", "Mask"))
    scores = network.score_labels(prompts, features, trie)
    network.generate(encoder, prompts, features, 1)
    # Ranking ends with a pass over all tokens of the labels.
    assert widths == [1, len(trie.tokens), 1]
    monkeypatch.setattr(CachedVLM, "_can_split_layers", False)
    torch.testing.assert_close(network.score_labels(prompts, features, trie), scores)


@pytest.mark.parametrize("n_layers", [2, 3])
def test_deepstack_after_the_last_layer_equals_the_plain_pass(folders, encoders, n_layers):
    """With as many layers as DeepStack levels, the last layer's output is needed at the visual tokens too."""
    model, encoder = loading.load_model(folders["qwen3_vl"], torch.device("cpu")), encoders["qwen3_vl"]
    language_model = model.model.language_model
    language_model.layers = language_model.layers[:n_layers]
    freeze(model, Trainable())
    pixels = [encoder.patches(noise_image(168, 168))]
    batch = encoder.batch([one.grid for one in pixels], ["Peel"])
    batch = dataclasses.replace(batch, n_outputs=batch.labels.shape[1] - 1)
    network, seen = CachedVLM(model), []
    language_model.norm.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    network(batch, network.vision_features(pixels))
    plain_logits(model, batch, pixels, encoder.image_token_id)
    torch.testing.assert_close(seen[0], seen[1][:, -batch.n_outputs :], rtol=1e-5, atol=1e-5)


def test_checkpointed_gradients_equal_the_plain_pass(family):
    model, encoder, pixels = family
    freeze(model, Trainable(everything=True))
    network, batch = CachedVLM(model), encoder.batch([one.grid for one in pixels], ANSWERS)
    network(batch, network.vision_features(pixels)).mean().backward()
    expected = gradients(model)
    model.zero_grad()
    gradient_checkpointing.enable_checkpointing(model)
    network.train()
    network(batch, network.vision_features(pixels)).mean().backward()
    assert_same_gradients(gradients(model), expected)


def test_ranking_equals_plain_full_sequence_scores(family):
    model, encoder, pixels = family
    network = CachedVLM(model.requires_grad_(False))
    names, pixels = ("Bath Oil", "Bath Salts", "Peel"), pixels[1:3]
    grids = [one.grid for one in pixels]
    found = network.score_labels(
        encoder.inference_batch(grids), network.vision_features(pixels), build_trie(encoder, names)
    )
    for row, one in zip(found, pixels, strict=True):
        batch = encoder.batch([one.grid] * len(names), names)
        with torch.no_grad():
            logits = plain_logits(model, batch, [one] * len(names), encoder.image_token_id)
        losses = functional.cross_entropy(logits[:, :-1].transpose(1, 2), batch.labels[:, 1:], reduction="none")
        torch.testing.assert_close(row, -losses.sum(1), rtol=1e-5, atol=1e-3)


def test_generated_tokens_equal_those_of_generate(family):
    model, encoder, pixels = family
    grids = [one.grid for one in pixels]
    batch = encoder.batch(grids, padding_side="left")
    expected = model.generate(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        pixel_values=torch.cat([one.patches for one in pixels]),
        image_grid_thw=torch.tensor(grids),
        mm_token_type_ids=(batch.input_ids == encoder.image_token_id).int(),
        do_sample=False,
        max_new_tokens=8,
        eos_token_id=[encoder.end_token_id, encoder.pad_token_id],
        pad_token_id=encoder.pad_token_id,
    )[:, batch.input_ids.shape[1] :]
    network = CachedVLM(model.requires_grad_(False))
    found = network.generate(encoder, encoder.inference_batch(grids), network.vision_features(pixels), 8)
    for row, one in zip(expected.tolist(), found, strict=True):
        assert tuple(row[: len(one.tokens)]) == one.tokens


def test_the_pixel_limits_count_the_familys_tokens(family):
    """A token covers 28 x 28 pixels, and 32 x 32 in Qwen3-VL."""
    model, encoder, _ = family
    side = 2 * model.config.vision_config.patch_size
    found = encoder.patches(noise_image(8 * side, 10 * side))
    assert 20 <= encoder.n_visual_tokens(found.grid) <= 60
    assert encoder.processor.image_processor.size["longest_edge"] == 60 * side**2
    assert encoder.token_side_px == side == (32 if model.config.model_type == "qwen3_vl" else 28)


def test_preflight_checks_pass_and_see_a_wrong_gradient(family, tmp_path):
    model, encoder, pixels = family
    parameters = freeze(model, Trainable())
    network = CachedVLM(model)
    batch = encoder.batch([one.grid for one in pixels], ANSWERS)
    preflight.check_prompt(encoder, batch)
    preflight.check_length(model, batch)
    preflight.check_labels(encoder, batch, ANSWERS)
    network(batch, network.vision_features(pixels)).mean().backward()
    preflight.check_gradients(model, parameters)
    preflight.check_step(parameters, 1e-3)
    name = next(iter(parameters))
    with pytest.raises(StageError, match="is frozen but has a gradient"):
        preflight.check_gradients(model, {other: one for other, one in parameters.items() if other != name})


def test_saliency_is_the_change_if_a_visual_token_fades(family):
    """The gradient method's sum over tokens is the derivative of the contrast when all of them are scaled."""
    model, encoder, pixels = family
    network = CachedVLM(model.requires_grad_(False))
    one, names = pixels[1], (["Peel"], ["Mask"])
    features = network.vision_features([one])
    found = saliency.explain(network, encoder, [one.grid], features, *names)[0]
    assert found.maps["gradient"].shape == (one.grid[1] // 2, one.grid[2] // 2)
    visual, batch = network.visual_tokens([one.grid], features), encoder.batch([one.grid], names[0])
    before_answer = int((batch.labels[0] >= 0).int().argmax()) - 1
    first = [encoder.answer_tokens(name[0])[0] for name in names]

    def contrast(scale):
        with torch.no_grad():
            logits = model.lm_head(network.hidden_states(batch, visual * scale)[0, before_answer])
        return (logits[first[0]] - logits[first[1]]).item()

    slope = (contrast(1.001) - contrast(0.999)) / 0.002
    assert found.maps["gradient"].sum() == pytest.approx(slope, rel=0.02, abs=0.02)


def test_the_key_of_cached_features_names_the_family_and_its_settings(family, monkeypatch):
    model, encoder, _ = family
    freeze(model, Trainable())
    network = CachedVLM(model)
    keys = [features_key(network, encoder)]
    adapter = FAMILIES[model.config.model_type]
    for name in adapter.vision_settings:
        old = getattr(model.model.visual.config, name)
        setattr(model.model.visual.config, name, old[:1] if isinstance(old, list) else 2 * old)
        keys.append(features_key(network, encoder))
        setattr(model.model.visual.config, name, old)
    monkeypatch.setattr(type(adapter), "model_type", "another")
    keys.append(features_key(network, encoder))
    assert len(set(keys)) == len(keys)


def test_a_processor_of_another_family_is_refused(folders, encoders):
    model = loading.load_model(folders["qwen3_vl"], torch.device("cpu"))
    with pytest.raises(StageError, match="the processor is not this model's"):
        CachedVLM(model).vision_features([encoders["qwen2_vl"].patches(noise_image(100, 100))])

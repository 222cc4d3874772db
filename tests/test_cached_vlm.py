import pytest
import torch
from torch.nn import functional

from skincare.modeling.cached_vlm import CachedVLM, _is_checkpointing
from skincare.modeling.freezing import freeze
from skincare.modeling.settings import Trainable
from skincare.training import gradient_checkpointing
from tests.helpers import mixed_pixels

ANSWERS = ["Peel", "Bath Salts", "Eye Care", "Moisturiser"]


def plain_losses(model, batch, pixels, **smoothing):
    """Each answer's mean token loss by transformers' own forward pass over all logits."""
    logits = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        pixel_values=torch.cat([one.patches for one in pixels]),
        image_grid_thw=torch.tensor([one.grid for one in pixels]),
    ).logits
    targets = batch.labels[:, 1:]
    losses = functional.cross_entropy(logits[:, :-1].transpose(1, 2), targets, reduction="none", **smoothing)
    return losses.sum(1) / (batch.labels[:, 1:] >= 0).sum(1)


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "trainable",
    [Trainable(), Trainable(2, True, 2), Trainable(0, True, 0), Trainable(0, False, 1), Trainable(everything=True)],
    ids=["reference", "two", "merger", "language only", "everything"],
)
def test_loss_and_gradients_equal_the_plain_pass(tiny_model, tiny_encoder, trainable):
    parameters = freeze(tiny_model, trainable)
    network = CachedVLM(tiny_model)
    pixels = mixed_pixels(tiny_encoder)
    batch = tiny_encoder.batch([one.grid for one in pixels], ANSWERS)

    expected = plain_losses(tiny_model, batch, pixels)
    expected.mean().backward()
    expected_gradients = gradients(tiny_model)
    tiny_model.zero_grad()
    found = network(batch, network.vision_features(pixels))
    found.mean().backward()

    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert gradients(tiny_model).keys() == expected_gradients.keys() == parameters.keys()
    for name, gradient in gradients(tiny_model).items():
        scale = expected_gradients[name].abs().max()
        assert (gradient - expected_gradients[name]).abs().max() <= 1e-5 * scale + 1e-9, name


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize(
    "trainable",
    [Trainable(), Trainable(2, True, 2), Trainable(0, True, 0), Trainable(1, True, 3)],
    ids=["reference", "two", "merger", "three"],
)
def test_a_cached_prompt_prefix_changes_no_loss_and_no_gradient(tiny_model, tiny_encoder, trainable, padding_side):
    """In the first pass, which fills the cache, and in the second one, which reads it."""
    parameters = freeze(tiny_model, trainable)
    network = CachedVLM(tiny_model)
    assert network.caches_prompt_prefix
    pixels = mixed_pixels(tiny_encoder)
    grids, features = [one.grid for one in pixels], network.vision_features(pixels)
    for _ in range(2):
        losses, found = [], []
        for apart in (False, True):
            batch = tiny_encoder.batch(grids, ANSWERS, padding_side, without_prefix=apart)
            losses.append(network(batch, features))
            losses[-1].mean().backward()
            found.append(gradients(tiny_model))
            tiny_model.zero_grad()
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)
        assert found[0].keys() == found[1].keys() == parameters.keys()
        for name, expected in found[0].items():
            assert (found[1][name] - expected).abs().max() <= 1e-5 * expected.abs().max() + 1e-9, name
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter -= 0.1 * found[0][name]


def test_the_prompt_prefix_is_not_cached_where_that_would_be_wrong(tiny_model):
    network = CachedVLM(tiny_model)
    freeze(tiny_model, Trainable(everything=True))
    assert not network.caches_prompt_prefix, "words learn"
    freeze(tiny_model, Trainable())
    assert network.caches_prompt_prefix
    gradient_checkpointing.enable_checkpointing(tiny_model)
    assert not network.caches_prompt_prefix, "checkpointed layers forget it"


@pytest.mark.parametrize("name", ["is_activation_checkpointing", "is_gradient_checkpointing"])
def test_checkpointing_is_detected_with_newer_and_older_transformers(name):
    for value in (True, False):
        assert _is_checkpointing(type("Model", (), {name: value})()) is value


def test_answers_equal_those_of_generate(tiny_model, tiny_encoder):
    pixels = mixed_pixels(tiny_encoder)
    batch = tiny_encoder.batch([one.grid for one in pixels], padding_side="left")
    expected = tiny_model.generate(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        pixel_values=torch.cat([one.patches for one in pixels]),
        image_grid_thw=torch.tensor([one.grid for one in pixels]),
        mm_token_type_ids=(batch.input_ids == tiny_encoder.image_token_id).int(),
        do_sample=False,
        max_new_tokens=30,
        eos_token_id=[tiny_encoder.end_token_id, tiny_encoder.pad_token_id],
        pad_token_id=tiny_encoder.pad_token_id,
    )[:, batch.input_ids.shape[1] :]
    network = CachedVLM(tiny_model.requires_grad_(False))
    found = network.generate(tiny_encoder, batch, network.vision_features(pixels), 30)
    for row, answer in zip(expected.tolist(), found, strict=True):
        assert tuple(row[: len(answer.tokens)]) == answer.tokens
        if answer.is_finished:
            assert row[len(answer.tokens)] in (tiny_encoder.end_token_id, tiny_encoder.pad_token_id)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_the_batch_size_does_not_change_answers(tiny_model, tiny_encoder, batch_size):
    network = CachedVLM(tiny_model.requires_grad_(False))
    pixels = mixed_pixels(tiny_encoder)

    def answers(size):
        found = []
        for start in range(0, len(pixels), size):
            some = pixels[start : start + size]
            batch = tiny_encoder.batch([one.grid for one in some], padding_side="left")
            found += network.generate(tiny_encoder, batch, network.vision_features(some), 30)
        return found

    assert answers(batch_size) == answers(len(pixels))


def test_an_answer_without_an_end_token_is_not_finished(tiny_model, tiny_encoder):
    network = CachedVLM(tiny_model.requires_grad_(False))
    pixels = mixed_pixels(tiny_encoder)
    batch = tiny_encoder.batch([one.grid for one in pixels], padding_side="left")
    for answer in network.generate(tiny_encoder, batch, network.vision_features(pixels), 2):
        assert len(answer.tokens) == 2
        assert not answer.is_finished


def test_images_that_do_not_fit_the_prompts_are_refused(tiny_model, tiny_encoder):
    network = CachedVLM(tiny_model)
    pixels = mixed_pixels(tiny_encoder)
    batch = tiny_encoder.batch([one.grid for one in pixels], ANSWERS)
    with pytest.raises(ValueError, match="features of 0 images"):
        network(batch, [])

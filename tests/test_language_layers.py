"""Attention gets a mask only where a token would otherwise see padding; without one the kernels are the fast ones."""

import pytest
import torch
from torch.nn import functional
from torch.nn.attention.bias import CausalBias

from skincare.modeling import language_layers
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.freezing import freeze
from skincare.modeling.settings import Trainable
from skincare.modeling.token_trie import build_trie
from tests.helpers import mixed_pixels

ANSWERS = ["Peel", "Bath Salts", "Eye Care", "Moisturiser"]


@pytest.fixture
def masks(monkeypatch):
    """The masks of the language layers' attention calls, which have as many heads as the queries."""
    plain, seen = functional.scaled_dot_product_attention, []

    def attention(query, key, value, attn_mask=None, is_causal=False, **options):
        if is_causal or attn_mask is not None:
            seen.append("causal" if is_causal else type(attn_mask))
        if isinstance(attn_mask, CausalBias):
            attn_mask = attn_mask._materialize()  # it recognises only the plain function
        return plain(query, key, value, attn_mask=attn_mask, is_causal=is_causal, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", attention)
    return seen


@pytest.fixture
def on_cuda(monkeypatch):
    """Choose the masks of CUDA; torch computes them on the CPU from a matrix."""
    monkeypatch.setattr(language_layers, "has_lower_right_kernel", lambda device: True)


def test_training_passes_build_no_mask_although_rows_are_padded(tiny_model, tiny_encoder, masks, on_cuda):
    freeze(tiny_model, Trainable())
    network, pixels = CachedVLM(tiny_model), mixed_pixels(tiny_encoder)
    features, n_layers = network.vision_features(pixels), len(tiny_model.model.language_model.layers)
    for without_prefix in (False, True):
        batch = tiny_encoder.batch([one.grid for one in pixels], ANSWERS, without_prefix=without_prefix)
        assert (batch.attention_mask == 0).any()
        masks.clear()
        network(batch, features)
        # The last layer has fewer queries than keys, and after a cached prefix all have.
        assert set(masks) == {"causal", CausalBias}
        assert masks.count(CausalBias) == (n_layers if without_prefix else 1)


def test_the_masks_of_cuda_change_no_loss_and_no_gradient(tiny_model, tiny_encoder, monkeypatch):
    parameters = freeze(tiny_model, Trainable(2, True, 2))
    network, pixels = CachedVLM(tiny_model), mixed_pixels(tiny_encoder)
    features = network.vision_features(pixels)
    batch = tiny_encoder.batch([one.grid for one in pixels], ANSWERS, without_prefix=True)
    found = []
    for has_kernel in (False, True):
        monkeypatch.setattr(language_layers, "has_lower_right_kernel", lambda device, has=has_kernel: has)
        losses = network(batch, features)
        losses.mean().backward()
        found.append((losses.detach(), {name: one.grad.clone() for name, one in parameters.items()}))
        tiny_model.zero_grad()
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-6, atol=1e-6)
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("n_shapes", [1, 3])
def test_inference_has_a_padding_mask_only_if_a_row_is_padded(tiny_model, tiny_encoder, masks, on_cuda, n_shapes):
    network, pixels = CachedVLM(tiny_model.requires_grad_(False)), mixed_pixels(tiny_encoder)
    pixels = [pixels[0], pixels[2]] if n_shapes == 1 else pixels
    batch = tiny_encoder.inference_batch([one.grid for one in pixels])
    assert (batch.padding_mask is None) == (n_shapes == 1)
    features = network.vision_features(pixels)
    network.generate(tiny_encoder, batch, features, 3)
    assert (torch.Tensor in masks) == (n_shapes > 1)
    n_layers = len(tiny_model.model.language_model.layers)
    # In the pass over the prompt the last layer has one query, which needs no mask.
    assert masks.count(CausalBias) == (n_layers - 1 if n_shapes == 1 else 0)
    masks.clear()
    network.score_labels(batch, features, build_trie(tiny_encoder, ("Peel", "Mask")))
    # The pass over the trie always has the mask of its branches.
    assert masks.count(torch.Tensor) == (n_layers if n_shapes == 1 else 2 * n_layers)


def test_scores_without_a_padding_mask_equal_those_with_one(tiny_model, tiny_encoder):
    """Two images of one shape, alone and next to a longer prompt, which pads them."""
    network, pixels = CachedVLM(tiny_model.requires_grad_(False)), mixed_pixels(tiny_encoder)
    trie = build_trie(tiny_encoder, ("Peel", "Mask", "Bath Salts"))
    longest = max(pixels, key=lambda one: len(one.patches))
    same = [one for one in pixels if len(one.patches) < len(longest.patches)][:1] * 2
    found = [
        network.score_labels(
            tiny_encoder.inference_batch([one.grid for one in images]), network.vision_features(images), trie
        )[:2]
        for images in (same, [*same, longest])
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-4)


def test_rows_are_copied_and_added_at_the_positions_of_the_flattened_tokens():
    hidden = torch.arange(12.0).view(2, 3, 2)
    positions, rows = torch.tensor([1, 5]), torch.tensor([[10.0, 20.0], [30.0, 40.0]])
    copied = language_layers.copy_at(hidden, positions, rows)
    added = language_layers.add_at(hidden, positions, rows)
    assert copied.view(6, 2)[positions].equal(rows)
    assert added.view(6, 2)[positions].equal(hidden.view(6, 2)[positions] + rows)
    others = [0, 2, 3, 4]
    assert copied.view(6, 2)[others].equal(hidden.view(6, 2)[others])
    assert added.view(6, 2)[others].equal(hidden.view(6, 2)[others])

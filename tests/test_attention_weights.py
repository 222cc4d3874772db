"""Recorded attention weights are those of transformers' eager attention, for every family and kind of answer."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from skincare.inference import saliency
from skincare.inference.category_value import with_category
from skincare.inference.saliency_maps import LAYER_GROUPS
from skincare.labels import skincare_labels
from skincare.modeling import attention_weights, loading
from skincare.modeling.attention_weights import AttentionRecorder, recorded_attention
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.modeling.settings import PixelLimits
from skincare.prompts import labels_for
from tests.family_models import MODEL_TYPES
from tests.helpers import noise_image

SHAPES = ((168, 168), (200, 120), (100, 230))
HINTS = ("Reference OCR token: Clay Mask", "", "Reference OCR token: Bath Salts with lavender oil 250 g")
PRODUCT = '{"brand":"Halden","category":"Balm","country":null}'


@pytest.fixture(scope="module", params=MODEL_TYPES)
def family(request, folders):
    """A family's model with SDPA and with eager attention, its processor, and three images of different shapes."""
    folder, cpu = folders[request.param], torch.device("cpu")
    processor = loading.load_processor(folder, PixelLimits(20, 60))
    models = (loading.load_model(folder, cpu, attention=one).requires_grad_(False) for one in ("sdpa", "eager"))
    encoder = PromptEncoder(processor, skincare_labels())
    return *models, encoder, [encoder.patches(noise_image(*shape, seed=i)) for i, shape in enumerate(SHAPES)]


def eager_weights(model, batch, pixels, image_token_id):
    """Return the (n_layers, B, n_heads, T, T) weights of transformers' own pass over whole prompts."""
    with torch.no_grad():
        outputs = model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            pixel_values=torch.cat([one.patches for one in pixels]),
            image_grid_thw=torch.tensor([one.grid for one in pixels]),
            mm_token_type_ids=(batch.input_ids == image_token_id).int(),
            output_attentions=True,
        )
    return torch.stack(outputs.attentions)


def plain_rollout(weights, row):
    """Return the (T,) attention rollout of a row from (n_layers, n_heads, T, T) weights."""
    found = torch.eye(weights.shape[-1])
    for one in weights:
        found = (one.mean(dim=0) + torch.eye(len(found))) / 2 @ found
    return found[row]


def recorded(family, rows, padding_side, *, without_prefix):
    """Record the attention of the last position of some of the three prompts in one batch; return also the batch."""
    model, _, encoder, pixels = family
    network, pixels, hints = CachedVLM(model), [pixels[i] for i in rows], [HINTS[i] for i in rows]
    grids = [one.grid for one in pixels]
    batch = encoder.batch(grids, padding_side=padding_side, hints=hints, without_prefix=without_prefix)
    is_image, lengths = batch.input_ids == encoder.image_token_id, batch.attention_mask.sum(dim=1)
    positions = lengths - 1 if padding_side == "right" else torch.full_like(lengths, is_image.shape[1] - 1)
    with recorded_attention(model.model.language_model, positions, is_image, len(batch.prompt_prefix)) as recorder:
        network.hidden_states(batch, network.visual_tokens(grids, network.vision_features(pixels)))
    return recorder, batch, positions


@pytest.mark.parametrize("without_prefix", [True, False], ids=["cached_prefix", "whole_prompt"])
@pytest.mark.parametrize("padding_side", ["right", "left"])
def test_weights_and_rollout_equal_those_of_eager_attention(family, without_prefix, padding_side):
    _, eager, encoder, pixels = family
    whole = encoder.batch([one.grid for one in pixels], padding_side=padding_side, hints=HINTS)
    expected = eager_weights(eager, whole, pixels, encoder.image_token_id)
    recorder, batch, positions = recorded(family, range(3), padding_side, without_prefix=without_prefix)
    n_prefix, lengths = len(batch.prompt_prefix), batch.attention_mask.sum(dim=1)
    for i, position in enumerate(positions.tolist()):
        if padding_side == "left" and without_prefix:
            # The prefix stands before the padding, not after it.
            kept, kept_whole = recorder.weights[:, i, :, -lengths[i] :], expected[:, i, :, -1, -lengths[i] :]
            torch.testing.assert_close(kept, kept_whole, rtol=0, atol=1e-5)
            continue
        torch.testing.assert_close(
            recorder.weights[:, i], expected[:, i, :, n_prefix + position], rtol=0, atol=1e-5
        )  # fmt: skip
        is_image = batch.input_ids[i] == encoder.image_token_id
        rolled = plain_rollout(expected[:, i].nan_to_num(), n_prefix + position)[n_prefix:][is_image]
        found = recorder.rollout[i]
        torch.testing.assert_close(found[: len(rolled)], rolled, rtol=0, atol=1e-5)
        assert not found[len(rolled) :].any()


@pytest.mark.parametrize("padding_side", ["right", "left"])
def test_padding_after_the_cached_prefix_changes_no_map(family, padding_side):
    together, batch, _ = recorded(family, range(3), padding_side, without_prefix=True)
    assert (batch.attention_mask == 0).any()
    n_prefix = len(batch.prompt_prefix)
    assert n_prefix
    for i, is_kept in enumerate(batch.attention_mask.bool()):
        alone, single, _ = recorded(family, [i], padding_side, without_prefix=True)
        assert single.attention_mask.all()
        weights = together.weights[:, i]
        kept = torch.cat([weights[..., :n_prefix], weights[..., n_prefix:][..., is_kept]], dim=-1)
        torch.testing.assert_close(kept, alone.weights[:, 0], rtol=0, atol=1e-5)
        assert not weights[..., n_prefix:][..., ~is_kept].any()
        n_visual = alone.rollout.shape[1]
        torch.testing.assert_close(together.rollout[i, :n_visual], alone.rollout[0], rtol=0, atol=1e-5)
        assert not together.rollout[i, n_visual:].any()


@pytest.mark.parametrize("kind", ["label", "head", "product"])
def test_maps_are_of_the_position_that_decides_between_the_answers(family, kind):
    model, eager, encoder, pixels = family
    network, grids = CachedVLM(model), [one.grid for one in pixels]
    # The labels differ at their second word, the structured answers where the category begins.
    pairs = {"label": ("Bath Oil", "Bath Salts"), "head": ("Bath Oil", "Bath Salts")}
    answers = pairs.get(kind) or tuple(str(with_category(PRODUCT, label)) for label in ("Mask", "Serum"))
    if kind == "product":
        encoder = PromptEncoder(encoder.processor, labels_for("product", skincare_labels()))
    if kind == "head":
        network.add_head(14)["classification_head.linear.weight"].data.normal_()
    truths, rivals = ([one] * len(grids) for one in answers)
    features = network.vision_features(pixels)
    found = saliency.explain(network, encoder, grids, features, truths, rivals, HINTS, by_head=kind == "head")
    batch = encoder.batch(grids, truths, hints=HINTS)
    expected = eager_weights(eager, batch, pixels, encoder.image_token_id).mean(dim=2)
    for i, (one, grid) in enumerate(zip(found, grids, strict=True)):
        n_prompt = int((batch.labels[i] < 0).sum() - (batch.attention_mask[i] == 0).sum())
        before = {"label": "Bath ", "head": "", "product": '{"brand":"Halden","category":"'}[kind]
        generated = [encoder.decode(batch.input_ids[i, n_prompt : n_prompt + n].tolist()) for n in range(40)]
        # The last token that is shared by both answers; a token may join a quote or a space to the word after it.
        n_shared = max(n for n, text in enumerate(generated) if before.startswith(text))
        row = expected[:, i, n_prompt + n_shared - 1, batch.input_ids[i] == encoder.image_token_id]
        shape = (grid[1] // 2, grid[2] // 2)
        for name, layers in zip(LAYER_GROUPS, ([0, 1], [2], [3]), strict=True):
            np.testing.assert_allclose(one.attention[name], row[layers].mean(dim=0).reshape(shape), atol=1e-5, rtol=0)
        assert one.attention["rollout"].shape == shape
        assert one.contrast != 0
        assert np.abs(one.maps["gradient"]).max() > 0


def test_the_head_contrast_is_the_difference_of_its_scores(family):
    model, _, encoder, pixels = family
    network, grids = CachedVLM(model), [one.grid for one in pixels]
    network.add_head(14)["classification_head.linear.weight"].data.normal_()
    features = network.vision_features(pixels)
    with torch.no_grad():
        scores = network.head_scores(encoder.inference_batch(grids, HINTS), features)
    labels = encoder.labels
    found = saliency.explain(network, encoder, grids, features, ["Balm"] * 3, ["Peel"] * 3, HINTS, by_head=True)
    for one, row in zip(found, scores, strict=True):
        assert one.contrast == pytest.approx(float(row[labels.index("Balm")] - row[labels.index("Peel")]), abs=1e-4)


def test_the_nearest_rival_is_the_answer_with_the_smallest_contrast(family):
    model, _, encoder, pixels = family
    network, grids = CachedVLM(model), [one.grid for one in pixels]
    features, others = network.vision_features(pixels), ["Bath Salts", "Serum", "Peel"]
    found = saliency.nearest_rivals(network, encoder, grids, features, ["Bath Oil"] * 3, [others] * 3, HINTS)
    contrasts = {
        name: saliency.explain(network, encoder, grids, features, ["Bath Oil"] * 3, [name] * 3, HINTS)
        for name in others
    }
    assert found == [min(others, key=lambda name, i=i: contrasts[name][i].contrast) for i in range(3)]


def test_the_attention_implementation_is_restored_after_an_error(family):
    text_model = family[0].model.language_model
    with (
        pytest.raises(RuntimeError, match="broken"),
        recorded_attention(text_model, torch.zeros(1).long(), torch.ones(1, 2), 0),
    ):
        raise RuntimeError("broken")
    assert text_model.config._attn_implementation == "sdpa"
    assert attention_weights._NAME not in attention_weights.ALL_ATTENTION_FUNCTIONS.valid_keys()


def test_masks_of_all_kinds_give_the_same_weights():
    """No mask is a causal one, in which every token attends to the prefix too."""
    query, key = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 8, 8)
    allowed = torch.arange(8) <= torch.arange(5)[:, None] + 3
    added = torch.zeros(5, 8).masked_fill(~allowed, torch.finfo(torch.float32).min)
    scores = query @ key.repeat_interleave(2, dim=1).mT + added
    rows = torch.tensor([[4, 0], [2, 1]])
    expected = torch.stack([scores.softmax(-1)[i][:, row] for i, row in enumerate(rows)])
    for mask in (None, allowed[None, None], added.expand(2, 1, -1, -1)):
        torch.testing.assert_close(attention_weights._weights(query, key, mask, rows), expected)


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest result."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.size = max(self.size, result.untyped_storage().nbytes() // 4)
        return result


def test_memory_does_not_grow_with_the_square_of_the_prompt():
    n_tokens, n_heads, width = 1024, 4, 8
    is_image = torch.arange(n_tokens)[None] < 16
    recorder = AttentionRecorder(torch.tensor([n_tokens - 1]), is_image, 0)
    query, key = torch.randn(1, n_heads, n_tokens, width), torch.randn(1, 2, n_tokens, width)
    with LargestTensor() as largest:
        recorder._record(query, key, None)
    assert recorder.weights.numel() == n_heads * n_tokens
    assert largest.size < n_heads * n_tokens * n_tokens / 8

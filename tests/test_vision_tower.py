from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoConfig

from skincare.modeling import vision_tower
from skincare.modeling.families.registry import FAMILIES
from skincare.modeling.freezing import freeze
from skincare.modeling.settings import Trainable
from tests.helpers import mixed_pixels


@pytest.fixture
def plain(tiny_model, tiny_encoder):
    """Pixels of mixed shapes and what transformers' own pass makes of them."""
    pixels = mixed_pixels(tiny_encoder)
    patches = torch.cat([one.patches for one in pixels])
    with torch.no_grad():
        expected = tiny_model.model.visual(patches, grid_thw=torch.tensor([one.grid for one in pixels])).pooler_output
    return pixels, expected


@pytest.mark.parametrize("n_blocks", [0, 1, 3, 4])
def test_frozen_and_trainable_blocks_give_the_plain_pass(tiny_model, plain, n_blocks):
    pixels, expected = plain
    grids = [one.grid for one in pixels]
    features = vision_tower.frozen_features(tiny_model.model.visual, [one.patches for one in pixels], grids, n_blocks)
    with torch.no_grad():
        found = vision_tower.visual_embeddings(tiny_model.model.visual, features, grids, n_blocks)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_patches_without_cached_blocks_give_the_plain_pass(tiny_model, plain):
    pixels, expected = plain
    with torch.no_grad():
        found = vision_tower.visual_embeddings(
            tiny_model.model.visual, [one.patches for one in pixels], [one.grid for one in pixels], -1
        )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("trainable", "n_blocks"),
    [
        (Trainable(), 3),
        (Trainable(n_vision_blocks=2), 2),
        (Trainable(n_vision_blocks=0), 4),
        (Trainable(everything=True), -1),
    ],
)
def test_the_cached_part_ends_before_the_first_trainable_block(tiny_model, trainable, n_blocks):
    freeze(tiny_model, trainable)
    assert vision_tower.count_frozen_blocks(tiny_model.model.visual) == n_blocks


def test_features_of_frozen_blocks_have_no_graph(tiny_model, plain):
    pixels, _ = plain
    features = vision_tower.frozen_features(
        tiny_model.model.visual, [one.patches for one in pixels], [one.grid for one in pixels], 3
    )
    assert not any(one.requires_grad for one in features)


def test_the_vision_width_is_that_of_the_blocks_and_not_of_the_language_model():
    widths = {}
    for name, family in FAMILIES.items():
        config = AutoConfig.for_model(name, **family.published.config)
        widths[name] = family.vision_width(config.vision_config)
    assert widths == {"qwen2_vl": 1280, "qwen2_5_vl": 1280, "qwen3_vl": 1024}


def test_trained_positions_and_deepstack_mergers_end_the_frozen_part():
    linear = [nn.Linear(2, 2).requires_grad_(False) for _ in range(10)]
    patch_embed, pos_embed, first, second, *blocks = linear
    visual = SimpleNamespace(
        config=SimpleNamespace(model_type="qwen3_vl_vision"), patch_embed=patch_embed, pos_embed=pos_embed,
        blocks=blocks, deepstack_visual_indexes=[1, 3], deepstack_merger_list=[first, second],
    )  # fmt: skip
    assert vision_tower.count_frozen_blocks(visual) == 6
    for module, n_frozen in ((blocks[4], 4), (second, 3), (first, 1), (pos_embed, -1)):
        module.requires_grad_(True)
        assert vision_tower.count_frozen_blocks(visual) == n_frozen

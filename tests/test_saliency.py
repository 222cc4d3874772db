"""Saliency maps have the sign, place and sum of the contrast between two labels; overlays show them in place."""

import numpy as np
import pytest
import torch
from PIL import Image

from skincare.inference import saliency, saliency_maps
from skincare.labels import skincare_labels
from skincare.modeling.cached_vlm import CachedVLM
from tests.helpers import mixed_pixels

CATEGORIES = skincare_labels().names


@pytest.fixture
def inputs(tiny_model, tiny_encoder):
    """A network with four images of three shapes."""
    network = CachedVLM(tiny_model.requires_grad_(False))
    pixels = mixed_pixels(tiny_encoder)
    return network, tiny_encoder, [one.grid for one in pixels], network.vision_features(pixels)


TRUTHS = ("Mask", "Balm", "Bath Oil", "Serum")
RIVALS = ("Oil", "Peel", "Bath Salts", "Toner")


def test_swapped_labels_change_the_sign(inputs):
    for one, other in zip(
        saliency.explain(*inputs, TRUTHS, RIVALS),
        saliency.explain(*inputs, RIVALS, TRUTHS),
        strict=True,
    ):
        assert one.contrast == pytest.approx(-other.contrast, abs=1e-4)
        for name in saliency_maps.METHODS:
            np.testing.assert_allclose(one.maps[name], -other.maps[name], atol=1e-4)
            assert np.abs(one.maps[name]).max() > 1e-3


def test_maps_have_the_shape_of_the_image_and_do_not_depend_on_the_batch(inputs):
    network, encoder, grids, features = inputs
    together = saliency.explain(*inputs, TRUTHS, RIVALS)
    for i, one in enumerate(together):
        assert one.maps["gradient"].shape == (grids[i][1] // 2, grids[i][2] // 2)
        (alone,) = saliency.explain(network, encoder, grids[i : i + 1], features[i : i + 1], TRUTHS[i : i + 1],
                                    RIVALS[i : i + 1])  # fmt: skip
        for name in saliency_maps.METHODS:
            np.testing.assert_allclose(one.maps[name], alone.maps[name], atol=1e-4)


def test_the_gradient_map_sums_to_the_derivative_for_scaling_all_visual_tokens(inputs, monkeypatch):
    """Sum of gradient times token = d contrast / d brightness of all tokens, here by finite differences."""
    network, encoder, grids, features = inputs
    one = saliency.explain(network, encoder, grids[1:2], features[1:2], ["Mask"], ["Oil"])[0]
    visual = network.visual_tokens(grids[1:2], features[1:2])
    step, ends = 1e-3, []
    for factor in (1 - step, 1 + step):
        monkeypatch.setattr(network, "visual_tokens", lambda *_, factor=factor: visual * factor)
        ends.append(saliency.explain(network, encoder, grids[1:2], features[1:2], ["Mask"], ["Oil"])[0].contrast)
    assert one.maps["gradient"].sum() == pytest.approx((ends[1] - ends[0]) / (2 * step), rel=0.02, abs=0.02)


def test_a_cell_of_the_map_is_the_visual_token_at_that_place(inputs, monkeypatch):
    """Where one visual token is blank, gradient times activation is zero there and nowhere else."""
    network, encoder, grids, features = inputs
    visual = network.visual_tokens(grids[1:2], features[1:2])
    rows, columns = grids[1][1] // 2, grids[1][2] // 2
    assert rows != columns
    blank = visual.clone()
    blank[2 * columns + 1] = 0
    monkeypatch.setattr(network, "visual_tokens", lambda *_: blank)
    found = saliency.explain(network, encoder, grids[1:2], features[1:2], ["Mask"], ["Oil"])[0].maps["gradient"]
    assert np.argwhere(found == 0).tolist() == [[2, 1]]


def test_labels_are_compared_at_the_first_token_that_differs(inputs):
    encoder = inputs[1]
    for truth in CATEGORIES:
        for rival in CATEGORIES:
            if truth != rival:
                n, mine, other = saliency._first_difference(encoder, truth, rival)
                assert encoder.answer_tokens(truth)[:n] == encoder.answer_tokens(rival)[:n]
                assert mine != other


def test_the_contrast_is_the_difference_of_the_models_logits(inputs):
    network, encoder, grids, features = inputs
    batch = encoder.batch(grids[:1], padding_side="left")
    with torch.no_grad():
        hidden = network.hidden_states(batch, network.visual_tokens(grids[:1], features[:1]))[:, -1]
        logits = network.model.lm_head(hidden)[0]
    mine, other = (encoder.answer_tokens(name)[0] for name in ("Mask", "Oil"))
    (found,) = saliency.explain(network, encoder, grids[:1], features[:1], ["Mask"], ["Oil"])
    assert found.contrast == pytest.approx(float(logits[mine] - logits[other]), abs=1e-4)


def test_cells_are_covered_by_their_share_of_a_box():
    inside = saliency_maps.coverage((2, 4), (0.125, 0.0, 0.5, 0.75))
    np.testing.assert_allclose(inside, [[0.5, 1, 0, 0], [0.25, 0.5, 0, 0]])
    found = np.array([[4.0, 4, 0, -9], [0, 0, 8, 0]])
    assert saliency_maps.share_inside(found, inside) == pytest.approx(6 / 16)
    assert not saliency_maps.points_inside(found, inside)
    assert saliency_maps.share_inside(-np.ones((2, 4)), inside) == pytest.approx(inside.mean())


def test_an_overlay_is_blue_for_the_truth_and_orange_against_it():
    found = np.array([[1.0, 0.0], [0.0, -1.0]])
    shown = np.asarray(saliency_maps.overlay(Image.new("RGB", (200, 100), "white"), found)).astype(int)
    assert shown.shape == (100, 200, 3)
    assert shown[5, 5, 2] > shown[5, 5, 0]
    assert shown[95, 195, 0] > shown[95, 195, 2]


def test_a_place_in_the_image_is_at_the_same_place_in_the_panels(tiny_encoder):
    """From the pixels of a large photo of any aspect, through patches and visual tokens, to the panels."""
    side = 112
    for width, height in ((6 * side, 4 * side), (4 * side, 7 * side)):
        row, column = height // side - 2, width // side - 2
        plain = Image.new("RGB", (width, height), "white")
        marked = plain.copy()
        marked.paste("black", (column * side, row * side, (column + 1) * side, (row + 1) * side))
        one, other = (tiny_encoder.patches(image) for image in (plain, marked))
        differs = (one.patches - other.patches).abs().sum(dim=1).reshape(-1, tiny_encoder.merge_size**2).sum(dim=1)
        found = saliency._to_map(differs.double(), one.grid, tiny_encoder)
        sheet = saliency_maps.attention_panels(plain, {"early": np.zeros_like(found), "late": found})
        panel = np.asarray(sheet.crop((sheet.width // 2 + 3, 20, sheet.width, sheet.height))).astype(int)
        green = panel[..., 1] - panel[..., 0]
        places = [
            np.average((np.arange(n) + 0.5) / n, weights=green.sum(axis=1 - i)) for i, n in enumerate(green.shape)
        ]
        np.testing.assert_allclose(places, [(row + 0.5) * side / height, (column + 0.5) * side / width], atol=0.02)
        left = np.asarray(sheet.crop((0, 20, sheet.width // 2 - 3, sheet.height))).astype(int)
        assert np.ptp(left, axis=2).max() <= 1


def test_panels_of_any_number_and_shape_are_laid_out_in_pairs():
    image = Image.new("RGB", (300, 100), "white")
    for n, rows in ((1, 1), (2, 1), (3, 2), (4, 2)):
        sheet = saliency_maps.attention_panels(image, {str(i): np.full((2, 6), float(i == n - 1)) for i in range(n)})
        height = 53 + 20
        assert sheet.height == rows * height
        last = (80 + (n - 1) % 2 * 166, (rows - 1) * height + 40)
        assert sheet.getpixel(last)[1] > sheet.getpixel(last)[0] + 90


@pytest.mark.parametrize(("n", "sizes"), [(1, [1]), (2, [1, 1]), (4, [2, 1, 1]), (28, [10, 9, 9]), (36, [12, 12, 12])])
def test_groups_of_layers_are_thirds_in_order(n, sizes):
    groups = saliency.layer_groups(n)
    assert [len(layers) for layers in groups.values()] == sizes
    assert [layer for layers in groups.values() for layer in layers] == list(range(n))
    assert list(groups) == list(saliency_maps.LAYER_GROUPS)[: len(sizes)]

"""A training pass contains no operator for which the host waits for the device."""

import pytest
import torch

from skincare.labels import skincare_labels
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.freezing import freeze
from skincare.modeling.label_smoothing import LabelSmoothing
from skincare.modeling.loading import load_model, load_processor
from skincare.modeling.losses import example_losses
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.modeling.settings import PixelLimits, Trainable
from tests.device_syncs import DEVICE, DeviceTensor, counting, to_counting_device
from tests.family_models import MODEL_TYPES
from tests.helpers import noise_image

ANSWERS = ["Peel", "Bath Salts", "Eye Care", "Moisturiser"]
SHAPES = ((168, 168), (200, 120), (168, 168), (100, 230))


def gradients(network):
    return {name: p.grad for name, p in network.parameters_by_name().items() if p.grad is not None}


@pytest.mark.parametrize(
    ("model_type", "head"), [*((one, "joint") for one in MODEL_TYPES), ("qwen2_vl", "none"), ("qwen2_vl", "alone")]
)
def test_a_training_pass_waits_for_nothing_and_equals_the_cpu(folders, model_type, head):
    encoder = PromptEncoder(load_processor(folders[model_type], PixelLimits(20, 60)), skincare_labels())
    model = load_model(folders[model_type], torch.device("cpu"))
    freeze(model, Trainable())
    network = CachedVLM(model)
    if head != "none":
        network.add_head(14)
    pixels = [encoder.patches(noise_image(*shape, seed=i)) for i, shape in enumerate(SHAPES)]
    grids, features = [one.grid for one in pixels], network.vision_features(pixels)
    smoothing = LabelSmoothing(0.1, encoder) if head == "joint" else None
    expected = example_losses(network, encoder, head, grids, features, ANSWERS, smoothing=smoothing)
    expected.mean().backward()
    expected_gradients = gradients(network)

    network.zero_grad()
    to_counting_device(network)
    network._prompt_prefixes.prefixes.clear()
    with counting() as counts:
        on_device = [DeviceTensor(one) for one in features]
        found = example_losses(network, encoder, head, grids, on_device, ANSWERS, smoothing=smoothing)
        found.mean().backward()
    assert counts == {}
    torch.testing.assert_close(found.value, expected.detach(), rtol=1e-5, atol=1e-6)
    found_gradients = gradients(network)
    assert found_gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        assert (found_gradients[name].value - gradient).abs().max() <= 1e-4 * gradient.abs().max() + 1e-8, name


@pytest.mark.parametrize(
    ("work", "kind"),
    [
        (lambda x: x.sum().item(), "item"),
        (lambda x: bool(x.any()), "item"),
        (lambda x: x.tolist(), "to host"),
        (lambda x: x.cpu(), "to host"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x[x > 1], "nonzero"),
        (lambda x: x.masked_select(x > 1), "nonzero"),
        (lambda x: x.clone().__setitem__(x > 1, x[:2]), "nonzero"),
        (lambda x: torch.tensor([1.0], device=DEVICE), "to device"),
        (lambda x: torch.ones(2).to(DEVICE), "to device"),
        (lambda x: x[torch.tensor([0, 2])], "index"),
        (lambda x: torch.ones(2).to(DEVICE, non_blocking=True) + x[:2], None),
        (lambda x: x.index_select(0, torch.ones(2, dtype=torch.int64).to(DEVICE, non_blocking=True)), None),
        (lambda x: torch.zeros(3, device=DEVICE) + torch.where(x > 1, x, 0), None),
    ],
)
def test_the_counter_sees_every_kind_of_wait(work, kind):
    values = DeviceTensor(torch.tensor([1.0, 2.0, 3.0]))
    with counting() as counts:
        work(values)
    assert counts == ({kind: 1} if kind else {})


def test_mixed_devices_are_an_error_as_on_cuda():
    with counting(), pytest.raises(RuntimeError, match="tensors of the CPU and of the device"):
        DeviceTensor(torch.ones(3)) + torch.ones(3)

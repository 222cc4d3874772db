"""On the device, our passes match the forward and backward pass of transformers, in fp32 and in bf16."""

import importlib.util

import pytest
import torch
from torch.nn import functional

from skincare.inference.decoders import make_decoder
from skincare.labels import skincare_labels
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.freezing import freeze
from skincare.modeling.loading import load_model, load_processor
from skincare.modeling.losses import example_losses
from skincare.modeling.prompt_encoder import IGNORED, PromptEncoder
from skincare.modeling.settings import PixelLimits, Trainable
from skincare.modeling.staging import to_device
from skincare.modeling.vision_features import VisionFeatures
from skincare.paths import TINY_MODEL
from skincare.training.compilation import compile_layers
from tests.family_models import MODEL_TYPES
from tests.helpers import mixed_pixels, noise_image

CATEGORIES = skincare_labels().names

pytestmark = pytest.mark.gpu

ANSWERS = ["Peel", "Bath Salts", "Eye Care", "Moisturiser"]
# Of the loss, and of a gradient as a share of its norm; bf16 has 8 bits, and a pass rounds a hundred times.
TOLERANCES = {torch.float32: (1e-5, 1e-4), torch.bfloat16: (5e-3, 5e-2)}


@pytest.fixture(autouse=True)
def exact_fp32(monkeypatch):
    """Disable TF32, the default for fp32 convolutions on CUDA, with three digits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def loaded(device, dtype=torch.float32, attention="sdpa"):
    model = load_model(TINY_MODEL, device, attention).to(dtype)
    model.config.dtype = dtype
    return model


def plain_logits(model, batch, pixels):
    """All logits of the forward pass of transformers, over all images and tokens."""
    device = model.lm_head.weight.device
    with torch.autocast(device.type, torch.bfloat16, enabled=model.config.dtype == torch.bfloat16):
        return model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            pixel_values=torch.cat([one.patches for one in pixels]).to(device),
            image_grid_thw=torch.tensor([one.grid for one in pixels], device=device),
        ).logits.float()


def plain_losses(model, batch, pixels):
    logits = plain_logits(model, batch, pixels)
    losses = functional.cross_entropy(logits[:, :-1].transpose(1, 2), batch.labels[:, 1:], reduction="none")
    return losses.sum(1) / (batch.labels[:, 1:] != IGNORED).sum(1)


def gradients(parameters):
    return {name: parameter.grad.double().cpu() for name, parameter in parameters.items()}


def assert_close(found, expected, dtype, factor=1):
    """Compare losses, the total gradient norm and each module's gradients, given as (losses, gradients)."""
    of_loss, of_gradient = (factor * one for one in TOLERANCES[dtype])
    torch.testing.assert_close(found[0], expected[0], rtol=of_loss, atol=of_loss)
    assert found[1].keys() == expected[1].keys()
    norms = [torch.stack([one.norm() for one in grads.values()]).norm() for _, grads in (found, expected)]
    torch.testing.assert_close(norms[0], norms[1], rtol=of_gradient, atol=0)
    for name, gradient in expected[1].items():
        difference = (found[1][name] - gradient).norm()
        # A key's bias has no influence: its gradient is what rounding leaves.
        assert difference <= of_gradient * gradient.norm() + 1e-3 * of_gradient * norms[1], name


@pytest.mark.parametrize("dtype", TOLERANCES, ids=["fp32", "bf16"])
def test_a_step_from_cached_features_equals_the_plain_step(device, tiny_encoder, tmp_path, dtype):
    model = loaded(device, dtype)
    parameters = freeze(model, Trainable())
    network = CachedVLM(model).train()
    names = [f"{i}.png" for i in range(4)]
    for i, name in enumerate(names):
        noise_image(168, 168, seed=i).save(tmp_path / name)
    VisionFeatures(network, tiny_encoder, tmp_path, tmp_path / "cache").fill(names)
    kept = VisionFeatures(network, tiny_encoder, tmp_path, tmp_path / "cache")
    assert len(list(tmp_path.glob("cache/*/*.safetensors"))) == len(names)
    losses = example_losses(network, tiny_encoder, "none", *kept.get(names), ANSWERS)
    losses.mean().backward()
    found = losses.detach(), gradients(parameters)
    model.zero_grad()

    pixels = [tiny_encoder.patches(noise_image(168, 168, seed=i)) for i in range(4)]
    batch = tiny_encoder.batch([one.grid for one in pixels], ANSWERS).to(device)
    expected = plain_losses(model, batch, pixels)
    expected.mean().backward()
    assert_close(found, (expected.detach(), gradients(parameters)), dtype)


@pytest.mark.parametrize("n_micro", [1, 2])
def test_images_of_several_shapes_have_equal_gradients_in_one_pass_and_several(device, tiny_encoder, n_micro):
    model = loaded(device)
    parameters = freeze(model, Trainable())
    network = CachedVLM(model).train()
    pixels = mixed_pixels(tiny_encoder)
    grids, states = [one.grid for one in pixels], network.vision_features(pixels)
    found = []
    for size in (4, n_micro):
        losses = []
        for start in range(0, 4, size):
            some = slice(start, start + size)
            part = example_losses(network, tiny_encoder, "none", grids[some], states[some], ANSWERS[some])
            (part.sum() / 4).backward()
            losses.append(part.detach())
        found.append((torch.cat(losses), gradients(parameters)))
        model.zero_grad()
    assert_close(found[1], found[0], torch.float32)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_step_of_every_family_equals_that_on_the_cpu(device, folders, model_type):
    """Window attention, DeepStack and their orders of patches, on two devices; the CPU's step is tested elsewhere."""
    encoder = PromptEncoder(load_processor(folders[model_type], PixelLimits(20, 60)), skincare_labels())
    pixels, found = mixed_pixels(encoder), []
    for place in (device, torch.device("cpu")):
        model = load_model(folders[model_type], place)
        parameters = freeze(model, Trainable())
        network = CachedVLM(model).train()
        grids, features = [one.grid for one in pixels], network.vision_features(pixels)
        losses = example_losses(network, encoder, "none", grids, features, ANSWERS)
        losses.mean().backward()
        found.append((losses.detach().cpu(), gradients(parameters)))
    assert_close(*found, torch.float32, factor=10)


def test_label_ranking_equals_the_plain_full_sequence_score(device, tiny_encoder):
    model = loaded(device).requires_grad_(False)
    network = CachedVLM(model)
    pixels = mixed_pixels(tiny_encoder)
    answers = make_decoder("rank", network, tiny_encoder)([one.grid for one in pixels], network.vision_features(pixels))
    for answer, one in zip(answers, pixels, strict=True):
        batch = tiny_encoder.batch([one.grid] * len(CATEGORIES), CATEGORIES).to(device)
        logits = plain_logits(model, batch, [one] * len(CATEGORIES))
        losses = functional.cross_entropy(logits[:, :-1].transpose(1, 2), batch.labels[:, 1:], reduction="none")
        expected = torch.log_softmax(-losses.sum(1), dim=0)
        torch.testing.assert_close(torch.tensor(answer.log_probabilities), expected.cpu(), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("attention", "dtype"), [("eager", torch.float32), ("flash_attention_2", torch.bfloat16)], ids=["eager", "flash"]
)
def test_other_attention_kernels_agree_with_sdpa(device, tiny_encoder, attention, dtype):
    if attention == "flash_attention_2" and (device.type != "cuda" or not importlib.util.find_spec("flash_attn")):
        pytest.skip("needs a CUDA GPU and flash-attn")
    pixels = mixed_pixels(tiny_encoder)
    found = []
    for kernel in (attention, "sdpa"):
        model = loaded(device, dtype, kernel)
        parameters = freeze(model, Trainable())
        network = CachedVLM(model).train()
        grids, states = [one.grid for one in pixels], network.vision_features(pixels)
        losses = example_losses(network, tiny_encoder, "none", grids, states, ANSWERS)
        losses.mean().backward()
        found.append((losses.detach(), gradients(parameters)))
    assert_close(*found, dtype)


def test_a_training_pass_makes_the_host_wait_for_nothing(cuda, tiny_encoder):
    """Only on CUDA does torch report calls that wait."""
    model = loaded(cuda, torch.bfloat16)
    freeze(model, Trainable())
    network, pixels = CachedVLM(model).train(), mixed_pixels(tiny_encoder)
    grids = [one.grid for one in pixels]
    features = [one.cpu() for one in network.vision_features(pixels)]
    for mode in ("default", "error"):  # the first pass computes the prompt prefix
        torch.cuda.set_sync_debug_mode(mode)
        try:
            losses = example_losses(network, tiny_encoder, "none", grids, to_device(features, cuda), ANSWERS)
            losses.mean().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert losses.isfinite().all()


@pytest.mark.parametrize("dtype", TOLERANCES, ids=["fp32", "bf16"])
def test_compiled_layers_give_the_plain_step(cuda, tiny_encoder, dtype):
    """The compiler of a GPU is triton."""
    pixels, found = mixed_pixels(tiny_encoder), []
    for is_compiled in (False, True):
        model = loaded(cuda, dtype)
        parameters = freeze(model, Trainable())
        network = CachedVLM(model).train()
        if is_compiled:
            assert compile_layers(network, 60)
        grids, features = [one.grid for one in pixels], network.vision_features(pixels)
        losses = example_losses(network, tiny_encoder, "none", grids, features, ANSWERS)
        losses.mean().backward()
        found.append((losses.detach(), gradients(parameters)))
    assert_close(found[1], found[0], dtype)


def test_images_that_are_copied_together_keep_their_values(device):
    parts = [torch.arange(n * 3, dtype=torch.float32).reshape(n, 3) + n for n in (4, 1, 6)]
    for moved, part in zip(to_device(parts, device), parts, strict=True):
        assert moved.device.type == device.type
        assert torch.equal(moved.cpu(), part)

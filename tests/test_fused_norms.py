"""The fused RMSNorm gives the outputs and gradients of transformers' own, and only frozen norms are fused."""

import pytest
import torch
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLRMSNorm

from skincare.modeling import loading
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.freezing import freeze
from skincare.modeling.fused_norms import FusedRMSNorm, fuse_frozen_norms
from skincare.modeling.settings import Trainable
from tests.family_models import MODEL_TYPES


@pytest.fixture
def norm():
    found = Qwen2VLRMSNorm(256, eps=1e-3).requires_grad_(False)
    found.weight.normal_(1, 0.2, generator=torch.Generator().manual_seed(0))
    return found


def outputs(norm, states):
    """The output of a norm, and the gradient of its weighted sum with respect to the states."""
    states = states.clone().requires_grad_()
    found = norm(states)
    (found.float() * torch.linspace(-1, 1, found.numel()).view_as(found)).sum().backward()
    return found.detach(), states.grad


def test_in_fp32_outputs_and_gradients_have_the_bits_of_transformers(norm):
    states = 0.1 * torch.randn(3, 5, 256, generator=torch.Generator().manual_seed(1))
    for found, expected in zip(
        outputs(FusedRMSNorm(norm.weight, 1e-3), states), outputs(norm, states), strict=True
    ):  # fmt: skip
        assert torch.equal(found, expected)


@pytest.mark.parametrize("weight_dtype", [torch.bfloat16, torch.float32])
def test_in_bf16_the_result_is_as_close_to_the_exact_one(norm, weight_dtype):
    norm.to(torch.bfloat16)
    states = 0.1 * torch.randn(3, 50, 256, generator=torch.Generator().manual_seed(1)).bfloat16()
    weight = torch.nn.Parameter(norm.weight.to(weight_dtype))
    found = FusedRMSNorm(weight, 1e-3)(states)
    exact, plain = norm.double()(states.double()), norm.bfloat16()(states)
    assert found.dtype == torch.bfloat16
    assert (found - exact).abs().mean() <= (plain - exact).abs().mean()


def test_autocast_does_not_widen_the_result(norm, monkeypatch):
    """On CUDA, autocast computes rms_norm in fp32 and returns it unless it is disabled."""
    states, seen = torch.ones(2, 256, dtype=torch.bfloat16), []
    plain = torch.nn.functional.rms_norm

    def rms_norm(*arguments):
        seen.append(torch.is_autocast_enabled("cuda"))
        return plain(*arguments)

    monkeypatch.setattr(torch.nn.functional, "rms_norm", rms_norm)
    torch.set_autocast_enabled("cuda", True)
    try:
        FusedRMSNorm(norm.bfloat16().weight, 1e-3)(states)
    finally:
        torch.set_autocast_enabled("cuda", False)
    assert seen == [False]


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_only_frozen_norms_are_fused_and_all_names_stay(folders, model_type):
    model = loading.load_model(folders[model_type], torch.device("cpu"))
    freeze(model, Trainable())
    names, n_norms = list(model.state_dict()), sum("RMSNorm" in type(one).__name__ for one in model.modules())
    CachedVLM(model)
    assert list(model.state_dict()) == names
    kinds = {name: type(one) for name, one in model.named_modules() if "RMSNorm" in type(one).__name__}
    assert len(kinds) == n_norms
    layers = model.model.language_model.layers
    frozen, trained = layers[0].input_layernorm, layers[-1].input_layernorm
    assert isinstance(frozen, FusedRMSNorm)
    assert not isinstance(trained, FusedRMSNorm)
    assert frozen.eps == model.config.text_config.rms_norm_eps
    fuse_frozen_norms(model)
    assert {name: type(one) for name, one in model.named_modules() if name in kinds} == kinds

"""The pre-flight checks catch silent failures of fine-tuning before any epoch."""

import random

import pytest
import torch

from skincare.errors import StageError
from skincare.inference.classifier import Classifier
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.freezing import freeze
from skincare.modeling.prompt_encoder import IGNORED
from skincare.modeling.settings import Trainable
from skincare.paths import Layout
from skincare.training import preflight
from tests.dataset_helpers import write_dataset_files


@pytest.fixture
def ready(tiny_model, tiny_encoder, tmp_path):
    """The inputs of the checks: classifier, trainable parameters, the first examples."""
    layout = Layout(tmp_path)
    examples = write_dataset_files(layout, {"train": 3})["train"]
    parameters = freeze(tiny_model, Trainable())
    return Classifier(CachedVLM(tiny_model), tiny_encoder, layout.root), parameters, examples


def test_a_correct_run_passes_and_is_left_unchanged(ready):
    classifier, parameters, examples = ready
    before = {name: tensor.clone() for name, tensor in classifier.network.model.state_dict().items()}
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    preflight.check(classifier, parameters, examples, 2e-3, 1.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in classifier.network.model.state_dict().items())
    assert all(parameter.grad is None for parameter in classifier.network.model.parameters())
    assert torch.equal(torch_state, torch.get_rng_state())
    assert random.getstate() == python_state


def batch_of(ready):
    classifier, _, examples = ready
    grids, features = classifier.features.get([one.image for one in examples])
    return classifier.encoder.batch(grids, [one.category for one in examples]), features


def test_a_prompt_without_the_question_is_caught(ready):
    batch, _ = batch_of(ready)
    batch.input_ids[0, -30:] = ready[0].encoder.pad_token_id
    with pytest.raises(StageError, match="question"):
        preflight.check_prompt(ready[0].encoder, batch)


def test_an_image_that_is_missing_from_the_prompt_is_caught(ready):
    batch, _ = batch_of(ready)
    encoder = ready[0].encoder
    batch.input_ids[batch.input_ids == encoder.image_token_id] = encoder.pad_token_id
    with pytest.raises(StageError, match="0 image tokens"):
        preflight.check_prompt(encoder, batch)


def test_an_image_token_too_few_is_caught(ready):
    batch, _ = batch_of(ready)
    encoder = ready[0].encoder
    batch.input_ids[0, (batch.input_ids[0] == encoder.image_token_id).nonzero()[0]] = encoder.pad_token_id
    with pytest.raises(StageError, match=r"\d+ image tokens for an image of"):
        preflight.check_prompt(encoder, batch)


def test_a_prompt_longer_than_the_context_is_caught_with_its_prefix(ready):
    classifier, _, examples = ready
    grids, _ = classifier.features.get([one.image for one in examples])
    batch = classifier.encoder.batch(grids, [one.category for one in examples], without_prefix=True)
    model, n_tokens = classifier.network.model, len(batch.prompt_prefix) + batch.input_ids.shape[1]
    model.config.text_config.max_position_embeddings = n_tokens
    preflight.check_length(model, batch)
    model.config.text_config.max_position_embeddings = n_tokens - 1
    with pytest.raises(StageError, match=f"A prompt of {n_tokens} tokens"):
        preflight.check_length(model, batch)


def test_features_that_hold_a_graph_are_caught(ready, monkeypatch):
    classifier, parameters, examples = ready
    grids, features = classifier.features.get([one.image for one in examples])
    monkeypatch.setattr(classifier.features, "get", lambda _: (grids, [one.requires_grad_() for one in features]))
    with pytest.raises(StageError, match="frozen prefix"):
        preflight.check(classifier, parameters, examples, 2e-3, 1.0)


@pytest.mark.parametrize("shift", ["all masked", "one more", "no end"])
def test_wrong_labels_are_caught(ready, shift):
    batch, _ = batch_of(ready)
    if shift == "all masked":
        batch.labels[:] = IGNORED
    elif shift == "no end":
        batch.labels[batch.labels == ready[0].encoder.end_token_id] = IGNORED
    else:
        first = int((batch.labels[0] != IGNORED).nonzero()[0])
        batch.labels[0, first - 1] = batch.input_ids[0, first - 1]
    with pytest.raises(StageError, match="labels decode to"):
        preflight.check_labels(ready[0].encoder, batch, [one.category for one in ready[2]])


def test_a_gradient_of_a_frozen_module_is_caught(ready):
    classifier, parameters, examples = ready
    classifier.network.model.model.language_model.layers[0].requires_grad_(True)
    with pytest.raises(StageError, match=r"layers\.0.*frozen but has a gradient"):
        preflight.check(classifier, parameters, examples, 2e-3, 1.0)


def test_a_trainable_module_without_gradient_is_caught(ready):
    classifier, parameters, examples = ready
    parameters["model.language_model.layers.3.mlp.up_proj.weight"].requires_grad_(False)
    with pytest.raises(StageError, match="no gradient"):
        preflight.check(classifier, parameters, examples, 2e-3, 1.0)


def test_a_zero_gradient_of_a_module_is_caught(ready):
    classifier, parameters, examples = ready
    with torch.no_grad():
        classifier.network.model.model.visual.merger.mlp[-1].weight.zero_()
    with pytest.raises(StageError, match="norm"):
        preflight.check(classifier, parameters, examples, 2e-3, 1.0)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 0.0])
def test_a_gradient_of_no_use_is_caught_by_module(value):
    """The norm is that of the whole merger, and of a block or layer: one of their tensors may have a zero gradient."""
    modules = {"model.visual.merger": ("mlp.0", "mlp.2"), "model.visual.blocks.3": ("norm1", "attn.qkv")}
    module = torch.nn.Module()
    for path, names in modules.items():
        parameters = {f"{path}.{name}.weight": torch.nn.Parameter(torch.ones(2)) for name in names}
        first, second = parameters.values()
        first.grad, second.grad = torch.ones(2), torch.zeros(2)
        preflight.check_gradients(module, parameters)
        first.grad = torch.tensor([0.0, value])
        with pytest.raises(StageError, match=rf"^{path}: its gradient has norm"):
            preflight.check_gradients(module, parameters)


def test_a_step_too_small_for_the_dtype_is_caught(ready):
    """bf16 weights at a small learning rate: the optimizer steps, nothing changes."""
    classifier, _, examples = ready
    model = classifier.network.model
    model.model.language_model.layers[-1].to(torch.bfloat16)
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad and "language_model.layers.3" in n}
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
        parameter.data.fill_(1.0)
    with pytest.raises(StageError, match="changes nothing"):
        preflight.check_step(parameters, 5e-7)
    assert examples


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_movable_fraction_matches_rounding(dtype):
    """A movable weight becomes another number when the total learning rate is added or subtracted."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter((torch.randn(20_000) * 0.02).to(dtype).float())
    for total_learning_rate in (1e-5, 1e-4, 1e-3):
        share = preflight.movable_fraction({"a.b.0.weight": weight}, total_learning_rate, dtype)
        moved = [(weight + sign * total_learning_rate).to(dtype) != weight.to(dtype) for sign in (1, -1)]
        assert share == pytest.approx((moved[0] | moved[1]).float().mean().item(), abs=0.02)


def test_small_steps_are_lost_in_bf16_and_kept_in_fp32():
    weight = {"model.visual.blocks.31.norm1.weight": torch.nn.Parameter(torch.ones(64))}
    assert preflight.movable_fraction(weight, 1e-3, torch.bfloat16) == 0.0
    assert preflight.movable_fraction(weight, 1e-9, torch.float32) == 1.0

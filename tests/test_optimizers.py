"""Parameter groups have the rates and decays of a recipe; Lion, Muon and the moving average take their updates."""

import dataclasses
import sys

import pytest
import torch
from torch import nn

from skincare.errors import StageError
from skincare.modeling.freezing import freeze
from skincare.modeling.settings import Trainable
from skincare.training import optimizers, weight_average
from skincare.training.recipes import RECIPES
from skincare.training.stopping import StopRequest

REFERENCE = RECIPES["reference"]


def make(parameters, **changes):
    return optimizers.make(dataclasses.replace(REFERENCE, **changes), parameters)


def test_parts_have_their_own_learning_rates(tiny_model):
    parameters = freeze(tiny_model, Trainable())
    optimizer = make(parameters, learning_rate=1e-3, rate_by_part={"vision": 0.1, "merger": 2.0})
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in parameters.items():
        expected = 1e-4 if "blocks" in name else 2e-3 if "merger" in name else 1e-3
        assert rates[id(parameter)] == pytest.approx(expected), name


def test_every_parameter_belongs_to_one_part():
    layer = "model.language_model.layers.0.mlp.up_proj"
    parts = {
        f"{layer}.lora_A.default.weight": "lora", f"{layer}.base_layer.weight": "language",
        "model.visual.blocks.1.mlp.fc1.weight": "vision", "model.visual.merger.mlp.0.weight": "merger",
        "classification_head.linear.weight": "head", "lm_head.weight": "language",
    }  # fmt: skip
    assert {name: optimizers.part_of(name) for name in parts} == parts


def test_norms_and_biases_decay_only_with_decays_everything(tiny_model):
    parameters = freeze(tiny_model, Trainable())
    for decays_everything in (True, False):
        optimizer = make(parameters, decays_everything=decays_everything)
        decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        assert len(decays) == len(parameters)
        for name, parameter in parameters.items():
            matrix = parameter.ndim > 1
            assert decays[id(parameter)] == (0.01 if decays_everything or matrix else 0.0), name


def test_the_magnitudes_of_dora_never_decay():
    parameters = {f"a.lora_{kind}.default.weight": nn.Parameter(torch.ones(2)) for kind in ("B", "magnitude_vector")}
    optimizer = make(parameters, decays_everything=True)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert [decays[id(p)] for p in parameters.values()] == [0.01, 0.0]


def test_lion_takes_the_published_update():
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    lion = optimizers.Lion([weight], lr=0.1, betas=(0.9, 0.99), weight_decay=0.5)
    expected, momentum = weight.detach().clone(), torch.zeros(3)
    for gradient in (torch.tensor([1.0, -1.0, 0.5]), torch.tensor([-20.0, 1.0, 0.5])):
        weight.grad = gradient
        lion.step()
        update = torch.sign(0.9 * momentum + 0.1 * gradient)
        expected = expected - 0.1 * (update + 0.5 * expected)
        momentum = 0.99 * momentum + 0.01 * gradient
        torch.testing.assert_close(weight.detach(), expected)


@pytest.mark.parametrize("name", ["adamw", "adafactor", "lion", "muon"])
def test_every_optimizer_learns(name):
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    inputs, targets = torch.randn(64, 4), torch.randn(64, 3)
    optimizer = make(dict(layer.named_parameters()), optimizer=name, learning_rate=1e-2, weight_decay=0.0)
    losses = []
    for _ in range(60):
        loss = nn.functional.mse_loss(layer(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_a_missing_library_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(StageError, match="bitsandbytes"):
        make({"a.b": nn.Parameter(torch.zeros(2))}, optimizer="adamw_8bit")


def some_parameters():
    """A matrix of each kind, a norm, and a tensor of more dimensions, as a model names them."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "model.visual.blocks.1.mlp.fc1.weight": (6, 4), "model.language_model.layers.0.norm.weight": (4,),
        "model.visual.patch_embed.proj.weight": (3, 2, 2), "model.language_model.embed_tokens.weight": (9, 4),
        "lm_head.weight": (9, 4), "classification_head.linear.weight": (3, 4),
        "model.language_model.layers.0.mlp.up_proj.lora_A.default.weight": (2, 4),
    }  # fmt: skip
    return {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}


def take_steps(optimizer, parameters, n_steps, n_tensors=99):
    for step in range(n_steps):
        for i, parameter in enumerate(parameters.values()):
            generator = torch.Generator().manual_seed(100 * step + i)
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizers.step(optimizer, n_tensors)


MUON = ("model.visual.blocks.1.mlp.fc1.weight", "model.language_model.layers.0.mlp.up_proj.lora_A.default.weight")


def test_muon_takes_hidden_matrices_and_adamw_the_rest():
    """The weights are those that torch's two optimizers give separately, and so are the bytes of their states."""
    found, expected = some_parameters(), some_parameters()
    optimizer = make(found, optimizer="muon", learning_rate=0.1, rate_by_part={"vision": 0.5}, decays_everything=False)
    take_steps(optimizer, found, 3)
    muon = torch.optim.Muon([
        {"params": [expected[MUON[0]]], "lr": 0.05}, {"params": [expected[MUON[1]]], "lr": 0.1},
    ], weight_decay=0.01, adjust_lr_fn="match_rms_adamw")  # fmt: skip
    rest = {name: one for name, one in expected.items() if name not in MUON}
    adamw = torch.optim.AdamW([
        {"params": [one], "lr": 0.05 if ".visual." in name else 0.1, "weight_decay": 0.01 if one.ndim > 1 else 0.0}
        for name, one in rest.items()
    ])  # fmt: skip
    for part in (muon, adamw):
        take_steps(part, expected, 3)
    for name, one in expected.items():
        torch.testing.assert_close(found[name], one, rtol=1e-6, atol=1e-7)
    states = [one for state in optimizer.state.values() for one in state.values() if one.ndim > 0]
    assert sum(one.nbytes for one in states) == optimizers.state_bytes("muon", found)
    assert not optimizers.is_hidden_matrix("model.visual.blocks.1.filters.weight", torch.zeros(2, 2, 2))


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_steps_of_a_few_tensors_equal_whole_steps_with_their_averages(name):
    results = []
    for n_tensors in (99, 2, 1):
        parameters = some_parameters()
        optimizer = make(parameters, optimizer=name, learning_rate=0.1, average_decay=0.9)
        take_steps(optimizer, parameters, 3, n_tensors)
        averages = [optimizer.state[one]["average"] for one in parameters.values()]
        results.append([*parameters.values(), *averages])
    for other in results[1:]:
        assert all(torch.equal(*pair) for pair in zip(results[0], other, strict=True))


def test_the_moving_average_is_that_of_torchs_averaged_model():
    parameters = some_parameters()
    expected = torch.optim.swa_utils.AveragedModel(
        nn.ParameterList(parameters.values()), multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    )
    optimizer = make(parameters, learning_rate=0.1, average_decay=0.9)
    for _ in range(4):
        take_steps(optimizer, parameters, 1)
        expected.update_parameters(nn.ParameterList(parameters.values()))
    for parameter, average in zip(parameters.values(), expected.parameters(), strict=True):
        assert torch.equal(optimizer.state[parameter]["average"], average)
        assert optimizer.state[parameter]["average"].nbytes == weight_average.BYTES_PER_WEIGHT * parameter.numel()


def test_a_signal_while_averages_replace_the_weights_leaves_neither_changed():
    parameters = some_parameters()
    optimizer = make(parameters, learning_rate=0.1, average_decay=0.9)
    take_steps(optimizer, parameters, 2)
    before = [one.detach().clone() for one in parameters.values()]
    averages = [optimizer.state[one]["average"].clone() for one in parameters.values()]
    stop, evaluated = StopRequest(), []
    stop._signalled_at = 0.0
    with pytest.raises(KeyboardInterrupt), weight_average.applied(optimizer, parameters, stop):
        evaluated.append(True)
    assert not evaluated
    assert all(map(torch.equal, parameters.values(), before))
    assert all(map(torch.equal, (optimizer.state[one]["average"] for one in parameters.values()), averages))


def test_averages_replace_the_weights_only_within_the_block():
    parameters = some_parameters()
    optimizer = make(parameters, learning_rate=0.1, average_decay=0.9)
    with weight_average.applied(optimizer, parameters, StopRequest()):
        pass  # before the first step there are none
    take_steps(optimizer, parameters, 2)
    before = {name: one.detach().clone() for name, one in parameters.items()}
    averages = {name: optimizer.state[one]["average"].clone() for name, one in parameters.items()}
    with pytest.raises(ZeroDivisionError), weight_average.applied(optimizer, parameters, StopRequest()):
        assert all(torch.equal(parameters[name], average) for name, average in averages.items())
        raise ZeroDivisionError
    for name, parameter in parameters.items():
        assert torch.equal(parameter, before[name])
        assert torch.equal(optimizer.state[parameter]["average"], averages[name])

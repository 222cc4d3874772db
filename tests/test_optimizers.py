"""Parameter groups have the learning rates and decays of a recipe; Lion takes the published update."""

import sys

import pytest
import torch
from torch import nn

from skincare.errors import StageError
from skincare.modeling.freezing import freeze
from skincare.modeling.settings import Trainable
from skincare.training import optimizers


def test_parts_have_their_own_learning_rates(tiny_model):
    parameters = freeze(tiny_model, Trainable())
    optimizer = optimizers.make("adamw", parameters, 1e-3, {"vision": 0.1, "merger": 2.0}, 0.01, decays_everything=True)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in parameters.items():
        expected = 1e-4 if "blocks" in name else 2e-3 if "merger" in name else 1e-3
        assert rates[id(parameter)] == pytest.approx(expected), name


def test_norms_and_biases_decay_only_with_decays_everything(tiny_model):
    parameters = freeze(tiny_model, Trainable())
    for decays_everything in (True, False):
        optimizer = optimizers.make("adamw", parameters, 1e-3, {}, 0.01, decays_everything=decays_everything)
        decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        assert len(decays) == len(parameters)
        for name, parameter in parameters.items():
            matrix = parameter.ndim > 1
            assert decays[id(parameter)] == (0.01 if decays_everything or matrix else 0.0), name


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


@pytest.mark.parametrize("name", ["adamw", "adafactor", "lion"])
def test_every_optimizer_learns(name):
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    inputs, targets = torch.randn(64, 4), torch.randn(64, 3)
    optimizer = optimizers.make(name, dict(layer.named_parameters()), 1e-2, {}, 0.0, decays_everything=True)
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
        optimizers.make("adamw_8bit", {"a.b": nn.Parameter(torch.zeros(2))}, 1e-3, {}, 0, decays_everything=True)

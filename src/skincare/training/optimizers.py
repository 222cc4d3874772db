"""The optimizers of the recipes, with a learning rate per part of the model and no decay where it does harm."""

import importlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import nn

from skincare.errors import StageError

OptimizerName = Literal["adamw", "adafactor", "lion", "adamw_8bit"]


class Lion(torch.optim.Optimizer):
    """Steps of the sign of an interpolated momentum: one state per weight where AdamW keeps two.

    Wants a third to a tenth of AdamW's learning rate. Source: Chen et al. 2023 (arXiv 2302.06675), algorithm 2.
    """

    def __init__(
        self, params: Any, lr: float, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step."""
        assert closure is None
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(torch.lerp(parameter.grad, momentum, first).sign_(), alpha=-group["lr"])
                momentum.lerp_(parameter.grad, 1 - second)


def make(
    name: OptimizerName, parameters: Mapping[str, nn.Parameter], learning_rate: float,
    rate_by_part: Mapping[str, float], weight_decay: float, *, decays_everything: bool,
) -> torch.optim.Optimizer:  # fmt: skip
    """Return the optimizer; each group's `scale` is its rate as a share of `learning_rate`.

    Parts are "vision", "merger", "language" and "head"; a part that `rate_by_part` does not name has a scale of 1.
    Without `decays_everything`, norms and biases do not decay. Raises StageError where the library is absent.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter_name, parameter in parameters.items():
        scale = rate_by_part.get(part_of(parameter_name), 1.0)
        decay = weight_decay if decays_everything or parameter.ndim > 1 else 0.0
        groups.setdefault((scale, decay), []).append(parameter)
    settings = [
        {"params": members, "lr": learning_rate * scale, "weight_decay": decay, "scale": scale}
        for (scale, decay), members in groups.items()
    ]
    return _build(name, settings, learning_rate)


def step(optimizer: torch.optim.Optimizer, n_tensors: int) -> None:
    """Take a step, `n_tensors` at a time: none depends on another, and fewer need fewer temporary tensors."""
    members = [group["params"] for group in optimizer.param_groups]
    if n_tensors >= sum(map(len, members)):
        optimizer.step()
        return
    try:
        for group in optimizer.param_groups:
            group["params"] = []
        for group, parameters in zip(optimizer.param_groups, members, strict=True):
            for start in range(0, len(parameters), n_tensors):
                group["params"] = parameters[start : start + n_tensors]
                optimizer.step()
            group["params"] = []
    finally:
        for group, parameters in zip(optimizer.param_groups, members, strict=True):
            group["params"] = parameters


def part_of(parameter_name: str) -> str:
    """Return which part of the model a parameter belongs to: vision, merger, language or head."""
    if "visual.merger" in parameter_name:
        return "merger"
    if ".visual." in parameter_name:
        return "vision"
    return "head" if parameter_name.startswith("classification_head") else "language"


def state_bytes_per_weight(name: OptimizerName) -> float:
    """Return what an optimizer keeps per trained weight; Adafactor keeps rows and columns, next to nothing."""
    return {"adamw": 8.0, "adafactor": 0.1, "lion": 4.0, "adamw_8bit": 2.0}[name]


def require(name: OptimizerName) -> Any:
    """Return the library of an optimizer that torch and this module lack; raises StageError where it is absent."""
    if name != "adamw_8bit":
        return None
    try:
        return importlib.import_module("bitsandbytes")  # only some platforms have it
    except ImportError as error:
        raise StageError(
            "This recipe needs bitsandbytes: `pip install bitsandbytes`, or choose another recipe."
        ) from error


def _build(name: OptimizerName, settings: Iterable[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
    if name == "adamw":
        return torch.optim.AdamW(settings, lr=learning_rate)
    if name == "adafactor":
        return torch.optim.Adafactor(settings, lr=learning_rate)
    if name == "lion":
        return Lion(settings, lr=learning_rate)
    return require(name).optim.AdamW8bit(settings, lr=learning_rate)

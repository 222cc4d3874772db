"""The optimizers of the recipes, with a learning rate per part of the model and optional weight decay of norms."""

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lion_pytorch import Lion
from torch import nn

from skincare.errors import StageError
from skincare.training.recipes import OptimizerName


def make(
    name: OptimizerName, parameters: Mapping[str, nn.Parameter], learning_rate: float,
    rate_by_part: Mapping[str, float], weight_decay: float, *, decays_everything: bool,
) -> torch.optim.Optimizer:  # fmt: skip
    """Return an optimizer; the `scale` of a parameter group is its learning rate divided by `learning_rate`.

    Parts are "vision", "merger", "language" and "head"; parts missing from `rate_by_part` have a scale of 1. Without
    `decays_everything`, norms and biases have no weight decay. Raises StageError if a library is not installed.
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
    """Take a step, updating `n_tensors` at a time: tensors are independent, and fewer need less temporary memory."""
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
    """Return the part of the model that a parameter belongs to: vision, merger, language or head."""
    if "visual.merger" in parameter_name:
        return "merger"
    if ".visual." in parameter_name:
        return "vision"
    return "head" if parameter_name.startswith("classification_head") else "language"


def state_bytes_per_weight(name: OptimizerName) -> float:
    """Return the bytes of optimizer state per trained weight; Adafactor stores row and column means only."""
    return {"adamw": 8.0, "adafactor": 0.1, "lion": 4.0, "adamw_8bit": 2.0}[name]


def require_library(name: OptimizerName) -> Any:
    """Return the optional library of an optimizer, None if it needs none; raise StageError if it is not installed."""
    if name != "adamw_8bit":
        return None
    try:
        return importlib.import_module("bitsandbytes")  # not available on every platform
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
        # A third to a tenth of AdamW's learning rate is usual. Source: Chen et al. 2023 (arXiv 2302.06675).
        return Lion(settings, lr=learning_rate)
    return require_library(name).optim.AdamW8bit(settings, lr=learning_rate)

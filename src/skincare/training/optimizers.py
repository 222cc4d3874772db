"""The optimizers of the recipes, with a learning rate per part of the model and optional weight decay of norms."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from lion_pytorch import Lion
from torch import nn

from skincare.errors import StageError
from skincare.training import weight_average
from skincare.training.recipes import OptimizerName, Recipe

# Bytes of state per weight; Muon's depend on the parameter.
_STATE_BYTES: Final[dict[OptimizerName, float]] = {"adamw": 8.0, "adafactor": 0.1, "lion": 4.0, "adamw_8bit": 2.0}


def make(recipe: Recipe, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer of a recipe; the `scale` of a parameter group is its learning rate divided by the recipe's.

    Without `decays_everything`, norms and biases have no weight decay. With `average_decay` the optimizer keeps a
    moving average of the weights. Raises StageError if a library is not installed.
    """
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for parameter_name, parameter in parameters.items():
        scale = recipe.rate_by_part.get(part_of(parameter_name), 1.0)
        # The magnitudes of DoRA are lengths of pretrained rows: decay would shrink the frozen weights.
        decays = (recipe.decays_everything or parameter.ndim > 1) and "lora_magnitude" not in parameter_name
        decay = recipe.weight_decay if decays else 0.0
        uses_muon = recipe.optimizer == "muon" and is_hidden_matrix(parameter_name, parameter)
        groups.setdefault((scale, decay, uses_muon), []).append(parameter)
    rate = recipe.learning_rate
    settings = [
        {"params": members, "lr": rate * scale, "weight_decay": decay, "scale": scale, "uses_muon": uses_muon}
        for (scale, decay, uses_muon), members in groups.items()
    ]
    optimizer = _build(recipe.optimizer, settings, rate)
    if recipe.average_decay:
        weight_average.track(optimizer, recipe.average_decay)
    return optimizer


class MuonWithAdamW(torch.optim.Optimizer):
    """torch's Muon for the groups with `uses_muon`, and torch's AdamW for the others, as one optimizer.

    Muon's update has the root mean square of AdamW's, so that learning rates and decays are those of AdamW.
    Source: Liu et al. 2025, "Muon is scalable for LLM training" (arXiv 2502.16982).
    """

    def __init__(self, groups: Sequence[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, {"lr": lr})
        matrices, others = ([one for one in self.param_groups if one["uses_muon"] is flag] for flag in (True, False))
        self._members: list[torch.optim.Optimizer] = []
        if matrices:
            self._members.append(torch.optim.Muon(matrices, lr=lr, adjust_lr_fn="match_rms_adamw"))
        if others:
            self._members.append(torch.optim.AdamW(others, lr=lr))
        for member in self._members:
            member.state = self.state  # they share the group dictionaries too

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step with the gradients of the parameters."""
        del closure
        for member in self._members:
            member.step()


def is_hidden_matrix(parameter_name: str, parameter: torch.Tensor) -> bool:
    """Return whether Muon may train a parameter: a matrix between hidden layers, not of embeddings or outputs."""
    is_outer = any(part in parameter_name for part in ("embed", "lm_head", "classification_head"))
    return parameter.ndim == 2 and not is_outer


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
    """Return the part of the model that a parameter belongs to: vision, merger, language, lora or head."""
    if ".lora_" in parameter_name:
        return "lora"
    if "visual.merger" in parameter_name:
        return "merger"
    if ".visual." in parameter_name:
        return "vision"
    return "head" if parameter_name.startswith("classification_head") else "language"


def state_bytes(name: OptimizerName, parameters: Mapping[str, torch.Tensor]) -> int:
    """Return the bytes of optimizer state of parameters; Adafactor stores row and column means only."""
    n_weights = sum(one.numel() for one in parameters.values())
    if name == "muon":
        n_hidden = sum(one.numel() for key, one in parameters.items() if is_hidden_matrix(key, one))
        return 4 * n_hidden + 8 * (n_weights - n_hidden)
    return int(_STATE_BYTES[name] * n_weights)


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


def _build(name: OptimizerName, settings: Sequence[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
    if name == "muon":
        return MuonWithAdamW(settings, learning_rate)
    if name == "adamw":
        return torch.optim.AdamW(settings, lr=learning_rate)
    if name == "adafactor":
        return torch.optim.Adafactor(settings, lr=learning_rate)
    if name == "lion":
        # A third to a tenth of AdamW's learning rate is usual. Source: Chen et al. 2023 (arXiv 2302.06675).
        return Lion(settings, lr=learning_rate)
    return require_library(name).optim.AdamW8bit(settings, lr=learning_rate)

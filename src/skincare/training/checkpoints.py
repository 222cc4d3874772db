"""Saving a run: exact states to go on from.

A state holds the trained tensors in fp32, the optimizer's tensors and the counters; random orders are functions of
seed and epoch, so there is no generator to save. It is written to a new folder that takes its name only when it is
complete, and is removed when the next one is.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from skincare.errors import StageError
from skincare.files import write_json
from skincare.training import run_identity
from skincare.training.distributed import copy_full_tensor, full_tensor


@dataclass
class Progress:
    """Where a run is: between two optimizer steps."""

    # Epochs that are complete, and steps taken in the one under way.
    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_accuracy: float = -1.0
    best_loss: float = float("inf")
    # Halved when memory runs out; a resumed run goes on with it, since it decides the order of additions.
    micro_batch_size: int = 0
    # Sums over the steps of the epoch under way, for its row of the history.
    loss_sum: float = 0.0
    grad_norm_sum: float = 0.0
    epoch_seconds: float = 0.0
    # What Weights & Biases knows the run by, so that it stays one run there.
    tracking_id: str = ""
    history: list[dict[str, Any]] = field(default_factory=list)


def save_state(
    folder: Path, kind: str, parameters: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer,
    progress: Progress, identity: Mapping[str, Any], *, is_writer: bool = True,
) -> None:  # fmt: skip
    """Write `folder/<kind>-<epoch>-<step in epoch>` and remove the older states of that kind.

    `identity` is what the run must be the same in when it is resumed. A process that is no writer only hands over its
    shares of the tensors.
    """
    trained = _on_cpu(parameters, keep=is_writer)
    states = _on_cpu(_optimizer_tensors(parameters, optimizer), keep=is_writer)
    if not is_writer:
        return
    building, final = folder / f".{kind}.part", folder / f"{kind}-{progress.epoch:04d}-{progress.step_in_epoch:07d}"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    save_file(trained, building / "trained.safetensors")
    save_file(states, building / "optimizer.safetensors")
    plain = asdict(progress) | {"best_loss": None if progress.best_loss == float("inf") else progress.best_loss}
    write_json(building / "progress.json", {"progress": plain, "identity": dict(identity)})
    shutil.rmtree(final, ignore_errors=True)  # left by a run that was killed right here: the same state
    building.rename(final)
    for older in folder.glob(f"{kind}-*"):
        if older != final:
            shutil.rmtree(older)


def latest_state(folder: Path, kind: str) -> Path | None:
    """Return the newest complete state of a kind (`last` or `best`), or None."""
    return max(folder.glob(f"{kind}-*"), default=None)


def load_state(
    folder: Path, parameters: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer, identity: Mapping[str, Any]
) -> Progress:
    """Load a state into `parameters` and `optimizer`, in place, and return its progress.

    Raises StageError when it is damaged or was written by a run that is not the same in `identity`.
    """
    try:
        saved = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        trained = load_file(folder / "trained.safetensors")
        tensors = load_file(folder / "optimizer.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise StageError(f"{folder}: the saved state cannot be read ({error})") from error
    if changed := run_identity.differences(saved["identity"], identity):
        raise StageError(
            f"{folder}: was written with other {', '.join(changed)}. Go on as it was begun, or start a new --run."
        )
    for name, parameter in parameters.items():
        copy_full_tensor(trained[name], parameter)
    _restore_optimizer(parameters, optimizer, tensors)
    progress = Progress(**saved["progress"])
    progress.best_loss = float("inf") if progress.best_loss is None else progress.best_loss
    return progress


def trained_tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the trained tensors of a state by name, one at a time."""
    with safe_open(folder / "trained.safetensors", "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118  it is no mapping
            yield name, tensors.get_tensor(name)


def _on_cpu(tensors: Mapping[str, torch.Tensor], *, keep: bool) -> dict[str, torch.Tensor]:
    """Return whole copies, one tensor at a time so that processes that keep none need no room for all."""
    copies = {}
    for name, tensor in tensors.items():
        complete = full_tensor(tensor.detach())
        if keep:
            # A copy of its own: 8-bit optimizers share tables, which safetensors refuses.
            copies[name] = complete.cpu().clone().contiguous()
    return copies


def _optimizer_tensors(
    parameters: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    return {
        f"{name}|{key}": torch.as_tensor(value)
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _restore_optimizer(
    parameters: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]
) -> None:
    optimizer.state.clear()
    for key, tensor in tensors.items():
        name, _, part = key.rpartition("|")
        parameter = parameters[name]
        state = optimizer.state.setdefault(parameter, {})
        if tensor.shape == parameter.shape and tensor.is_floating_point():
            # Moments live where their parameter does, and are shared out as it is.
            state[part] = torch.empty_like(parameter, dtype=tensor.dtype)
            copy_full_tensor(tensor, state[part])
        else:
            # Step counters stay on the CPU, as AdamW keeps them.
            state[part] = tensor.to("cpu" if tensor.ndim == 0 else parameter.device)

"""Checkpoints of a training run, from which it resumes bit for bit.

A checkpoint holds the trained tensors in fp32, the optimizer's tensors and the counters. Random orders are functions of
seed and epoch, so there is no generator state to save. A checkpoint is written to a temporary folder and renamed when
it is complete; then the previous one is removed.
"""

import json
import os
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
    """Counters and results of a run, between two optimizer steps."""

    # Completed epochs, and steps taken in the current one.
    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_accuracy: float = -1.0
    best_loss: float = float("inf")
    # Halved when memory runs out; a resumed run keeps the value, since it decides the order of additions.
    micro_batch_size: int = 0
    # Sums over the steps of the current epoch, for its row of the history.
    loss_sum: float = 0.0
    grad_norm_sum: float = 0.0
    epoch_seconds: float = 0.0
    # Run id at Weights & Biases, so that a resumed run continues the same run there.
    tracking_id: str = ""
    history: list[dict[str, Any]] = field(default_factory=list)


def save_state(
    folder: Path, kind: str, parameters: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer,
    progress: Progress, identity: Mapping[str, Any], *, is_writer: bool = True,
) -> None:  # fmt: skip
    """Write `folder/<kind>-<epoch>-<step in epoch>` and remove older checkpoints of that kind.

    A resumed run must have the same `identity`. A process that is not the writer only contributes its tensor shards.
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
    # A name must mean complete content even after a power failure, since the older checkpoint is removed.
    for path in building.glob("*.safetensors"):
        with path.open("rb") as written:
            os.fsync(written.fileno())
    shutil.rmtree(final, ignore_errors=True)  # the same state, left by a run that was killed after the rename
    building.rename(final)
    for older in folder.glob(f"{kind}-*"):
        if older != final:
            shutil.rmtree(older)


def latest_state(folder: Path, kind: str) -> Path | None:
    """Return the newest complete checkpoint of a kind (`last` or `best`), or None."""
    return max(folder.glob(f"{kind}-*"), default=None)


def load_state(
    folder: Path, parameters: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer, identity: Mapping[str, Any]
) -> Progress:
    """Load a checkpoint into `parameters` and `optimizer`, in place, and return its progress.

    Raises StageError if it is damaged or was written by a run with another `identity`.
    """
    try:
        saved = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        trained = load_file(folder / "trained.safetensors")
        tensors = load_file(folder / "optimizer.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise StageError(f"{folder}: the checkpoint cannot be read ({error})") from error
    if changed := run_identity.differences(saved["identity"], identity):
        raise StageError(
            f"{folder}: was written with other {', '.join(changed)}. "
            "Resume with the same settings, or choose another --run."
        )
    for name, parameter in parameters.items():
        copy_full_tensor(trained[name], parameter)
    _restore_optimizer(parameters, optimizer, tensors)
    progress = Progress(**saved["progress"])
    progress.best_loss = float("inf") if progress.best_loss is None else progress.best_loss
    return progress


def trained_tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the trained tensors of a checkpoint by name, one at a time."""
    with safe_open(folder / "trained.safetensors", "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118  not a mapping
            yield name, tensors.get_tensor(name)


def _on_cpu(tensors: Mapping[str, torch.Tensor], *, keep: bool) -> dict[str, torch.Tensor]:
    """Return full copies; gathered one at a time, so that processes with `keep` false never hold all of them."""
    copies = {}
    for name, tensor in tensors.items():
        gathered = full_tensor(tensor.detach())
        if keep:
            # Cloned, since 8-bit optimizers share lookup tables between states and safetensors rejects shared memory.
            copies[name] = gathered.cpu().clone().contiguous()
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
            # Moments have the device and the sharding of their parameter.
            state[part] = torch.empty_like(parameter, dtype=tensor.dtype)
            copy_full_tensor(tensor, state[part])
        else:
            # AdamW keeps step counters on the CPU.
            state[part] = tensor.to("cpu" if tensor.ndim == 0 else parameter.device)

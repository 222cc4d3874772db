"""Checkpoints of a training run, from which it resumes bit for bit.

A checkpoint holds the trained tensors in fp32, the optimizer's tensors and the counters. Random orders are functions of
seed and epoch, so there is no generator state to save. A checkpoint is written to a temporary folder and renamed when
it is complete; then the previous one is removed.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import TypeAdapter
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
    # Of structured answers only, where it selects the best epoch in place of the accuracy.
    best_document_anls: float | None = None
    # Halved when memory runs out; a resumed run keeps the value, since it decides the order of additions.
    micro_batch_size: int = 0
    # Sums over the steps of the current epoch, for its row of the history.
    loss_sum: float = 0.0
    grad_norm_sum: float = 0.0
    epoch_seconds: float = 0.0
    # Run id at Weights & Biases, so that a resumed run continues the same run there.
    tracking_id: str = ""
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def best_criterion(self) -> float:
        """Return what selected the best epoch; below any score before the first evaluation."""
        return self.best_accuracy if self.best_document_anls is None else self.best_document_anls


_PROGRESS: Final = TypeAdapter(Progress)


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
    building, final = folder / f".{kind}.part", folder / state_name(kind, progress)
    plain = asdict(progress) | {"best_loss": None if progress.best_loss == float("inf") else progress.best_loss}
    shutil.rmtree(building, ignore_errors=True)
    try:
        building.mkdir(parents=True)
        save_file(trained, building / "trained.safetensors")
        save_file(states, building / "optimizer.safetensors")
        write_json(building / "progress.json", {"progress": plain, "identity": dict(identity)})
        # A name must mean complete content even after a power failure, since the older checkpoint is removed.
        for path in building.glob("*.safetensors"):
            with path.open("rb") as written:
                os.fsync(written.fileno())
    except (OSError, SafetensorError) as error:
        shutil.rmtree(building, ignore_errors=True)
        raise _not_saved(
            folder, kind, sum(one.nbytes for one in (*trained.values(), *states.values())), error
        ) from error
    shutil.rmtree(final, ignore_errors=True)  # the same state, left by a run that was killed after the rename
    building.rename(final)
    for older in folder.glob(f"{kind}-*"):
        if older != final:
            shutil.rmtree(older)


def state_name(kind: str, progress: Progress) -> str:
    """Return the folder name of a checkpoint."""
    return f"{kind}-{progress.epoch:04d}-{progress.step_in_epoch:07d}"


def _not_saved(folder: Path, kind: str, n_bytes: int, error: Exception) -> StageError:
    """Return the error of a checkpoint that could not be written, with what was kept and how to continue."""
    newest = latest_state(folder, kind)
    kept = (
        f"{newest.name} is kept: make space and continue with --resume"
        if newest
        else "No earlier one exists: make space and start again with --restart"
    )
    free = f"{shutil.disk_usage(folder).free / 1e6:,.1f} MB are free" if folder.is_dir() else "the folder is missing"
    return StageError(
        f"{folder}: the checkpoint of {n_bytes / 1e6:,.1f} MB cannot be written ({error}); {free}. {kept}."
    )


def latest_state(folder: Path, kind: str) -> Path | None:
    """Return the newest complete checkpoint of a kind (`last` or `best`), or None."""
    return max(folder.glob(f"{kind}-*"), default=None)


def check_resumable(folder: Path, identity: Mapping[str, Any]) -> None:
    """Raise StageError if the newest checkpoint was written by a run with another `identity`; reads no tensors."""
    newest = latest_state(folder, "last")
    if newest is not None:
        _check_identity(newest, _read_progress(newest)["identity"], identity)


def load_state(
    folder: Path, parameters: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer, identity: Mapping[str, Any]
) -> Progress:
    """Load a checkpoint into `parameters` and `optimizer`, in place, and return its progress.

    Raises StageError if it is damaged or was written by a run with another `identity`.
    """
    saved = _read_progress(folder)
    _check_identity(folder, saved["identity"], identity)
    try:
        progress = _parse_progress(saved["progress"])
        trained = load_file(folder / "trained.safetensors")
        tensors = load_file(folder / "optimizer.safetensors")
        for name, parameter in parameters.items():
            if trained[name].shape != parameter.shape:
                raise ValueError(f"{name} is {tuple(trained[name].shape)}, not {tuple(parameter.shape)}")
            copy_full_tensor(trained[name], parameter)
        _restore_optimizer(parameters, optimizer, tensors)
    except (OSError, ValueError, LookupError, SafetensorError) as error:
        raise _not_readable(folder, error) from error
    return progress


def _read_progress(folder: Path) -> dict[str, Any]:
    try:
        saved: dict[str, Any] = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        if not (isinstance(saved["progress"], dict) and isinstance(saved["identity"], dict)):
            raise ValueError("progress and identity are no objects")
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise _not_readable(folder, error) from error
    return saved


def _parse_progress(values: Mapping[str, Any]) -> Progress:
    """Return the progress that `save_state` wrote; raises ValueError for another."""
    if unknown := values.keys() - {one.name for one in fields(Progress)}:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    best_loss = values.get("best_loss")
    return _PROGRESS.validate_python({**values, "best_loss": float("inf") if best_loss is None else best_loss})


def _not_readable(folder: Path, error: Exception) -> StageError:
    why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return StageError(
        f"{folder}: the checkpoint cannot be read ({why}). Restore it from a backup, or discard it with --restart."
    )


def _check_identity(folder: Path, saved: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    if changed := run_identity.differences(saved, identity):
        raise StageError(
            f"{folder}: was written with other {', '.join(changed)}. "
            "Resume with the same settings, or choose another --run."
        )


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

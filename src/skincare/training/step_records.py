"""Losses and gradient norms of optimizer steps, which stay on the device until they are read.

Reading a number from a GPU waits for all work that was queued before it. So the numbers of several steps are read
together: every step on a CPU, every tenth on a GPU, and before a checkpoint is written.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from skincare.dataset.chat import Example
from skincare.errors import StageError
from skincare.files import write_json
from skincare.training.distributed import World

_STEPS_PER_READ: Final = {"cuda": 10}


class NonFiniteError(StageError):
    """A loss or a gradient is NaN or infinite."""


@dataclass
class StepRecord:
    """One optimizer step in this process: tensors on the device, and the images of each (B,) tensor of losses."""

    step: int
    epoch: int
    learning_rate: float
    # The parts of the step's loss, one per micro-batch.
    loss_parts: torch.Tensor = field(default_factory=lambda: torch.zeros(1))
    grad_norm: torch.Tensor = field(default_factory=lambda: torch.zeros(()))
    examples: list[Sequence[Example]] = field(default_factory=list)
    example_losses: list[torch.Tensor] = field(default_factory=list)

    def add_losses(self, examples: Sequence[Example], losses: torch.Tensor) -> None:
        """Add the (B,) losses of the images of a micro-batch."""
        self.examples.append(examples)
        self.example_losses.append(losses.detach()[: len(examples)])


class StepRecords:
    """The steps whose numbers were not read yet; `report` is written when a number is not finite."""

    def __init__(self, world: World, device: torch.device, report: Path) -> None:
        self.world = world
        self.report = report
        self.steps_per_read = _STEPS_PER_READ.get(device.type, 1)
        self.last_loss = math.nan
        self._pending: list[StepRecord] = []

    @property
    def is_read(self) -> bool:
        """Return whether no step is pending."""
        return not self._pending

    @property
    def is_due(self) -> bool:
        """Return whether enough steps are pending; the same in every process."""
        return len(self._pending) >= self.steps_per_read

    def add(self, record: StepRecord) -> None:
        """Add a step."""
        self._pending.append(record)

    def read(self) -> list[tuple[float, float]]:
        """Return loss and gradient norm of the pending steps, in order; all processes must call this.

        Raises NonFiniteError at the first step with a NaN or infinite number, after writing its images to a file.
        """
        pending, self._pending = self._pending, []
        if not pending:
            return []
        norms = torch.stack([one.grad_norm for one in pending]).tolist()
        own = [sum(one.loss_parts.tolist()) for one in pending]
        by_process = [own] if self.world.size == 1 else self.world.gather([own])
        losses = [sum(parts) for parts in zip(*by_process, strict=True)]
        for record, loss, norm in zip(pending, losses, norms, strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self._fail(record, loss, norm)
        self.last_loss = losses[-1]
        return list(zip(losses, norms, strict=True))

    def _fail(self, record: StepRecord, loss: float, grad_norm: float) -> None:
        """Write the images of a step with their losses and raise NonFiniteError."""
        parts = zip(record.examples, record.example_losses, strict=True)
        images = self.world.gather([row for examples, losses in parts for row in loss_rows(examples, losses.tolist())])
        what = "loss" if not math.isfinite(loss) else "gradient"
        if self.world.is_writer:
            write_report(
                self.report, images, step=record.step, epoch=record.epoch, learning_rate=record.learning_rate,
                loss=loss, gradient_norm=grad_norm,
            )  # fmt: skip
        raise NonFiniteError(
            f"Step {record.step}: the {what} is not finite{name_images(images)}. The {len(images)} images of the step "
            f"are in {self.report}; the last checkpoint is kept. Use a lower learning rate, or remove the image."
        )


def loss_rows(examples: Sequence[Example], losses: Sequence[float]) -> list[dict[str, Any]]:
    """Return images with their losses as JSON types; null stands for NaN and infinite."""
    return [
        {"image_id": one.image_id, "image": one.image, "category": one.category, "loss": _finite_or_none(loss)}
        for one, loss in zip(examples, losses, strict=True)
    ]


def name_images(rows: Sequence[dict[str, Any]]) -> str:
    """Return the names of the first images without a finite loss, as part of a sentence; empty if there are none."""
    bad = [row["image"] for row in rows if row["loss"] is None]
    return f"; without a finite loss: {', '.join(bad[:3])}" if bad else ""


def write_report(path: Path, images: Sequence[dict[str, Any]], **numbers: float) -> None:
    """Write the images of a step and its numbers as JSON; null stands for NaN and infinite."""
    write_json(path, {name: _finite_or_none(value) for name, value in numbers.items()} | {"images": list(images)})


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None

"""Curves in Weights & Biases, when the user has asked for them.

Online where WANDB_API_KEY is set, offline (kept under log/wandb/) where WANDB_MODE is `offline`, off else. The key is
read by wandb from the environment and never passes through here.
"""

import os
from collections.abc import Mapping
from typing import Any, Protocol

from skincare.categories import CATEGORIES, UNKNOWN
from skincare.paths import Layout
from skincare.training.loop import EpochResult


class Tracker(Protocol):
    """What a training run reports to; `run_id` is what it knows the run by."""

    run_id: str

    def epoch(self, result: EpochResult) -> None:
        """Report one epoch."""

    def finish(self, results: Mapping[str, Any]) -> None:
        """Report what the run came to."""


class NoTracker:
    """Reports nothing."""

    run_id = ""

    def epoch(self, result: EpochResult) -> None:
        """Do nothing."""

    def finish(self, results: Mapping[str, Any]) -> None:
        """Do nothing."""


class WandbTracker:
    """Reports curves, one confusion matrix and sample answers per epoch."""

    def __init__(
        self, project: str, run: str, config: Mapping[str, Any], layout: Layout, mode: str, run_id: str
    ) -> None:  # fmt: skip
        import wandb  # takes seconds to import, and most runs are without it

        self._wandb = wandb
        folder = layout.root / "log"
        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=project, name=run, config=dict(config), dir=folder, mode=mode,  # type: ignore[arg-type]
            id=run_id or None, resume="allow" if run_id else None,
        )  # fmt: skip
        self.run_id = str(self._run.id)

    def epoch(self, result: EpochResult) -> None:
        """Log the epoch's row, its confusion matrix and its answers."""
        row = {name: value for name, value in vars(result.row).items() if value is not None}
        answers = self._wandb.Table(columns=["image", "truth", "answer", "category", "status"])
        for one in result.predictions[:50]:
            answers.add_data(one.file, one.truth, one.text, one.category or UNKNOWN, one.status)
        names = [*CATEGORIES, UNKNOWN]
        matrix = self._wandb.plot.confusion_matrix(
            y_true=[names.index(one.truth) for one in result.predictions],
            preds=[names.index(one.category or UNKNOWN) for one in result.predictions],
            class_names=names,
        )
        self._run.log({**row, "val_confusion": matrix, "val_answers": answers}, step=result.row.epoch)

    def finish(self, results: Mapping[str, Any]) -> None:
        """Write the summary and close the run."""
        self._run.summary.update(dict(results))
        self._run.finish()


def make_tracker(project: str, run: str, config: Mapping[str, Any], layout: Layout, run_id: str = "") -> Tracker:
    """Return the tracker that the environment asks for; a `run_id` of earlier goes on as the same run there."""
    if os.environ.get("WANDB_MODE") == "offline":
        return WandbTracker(project, run, config, layout, "offline", run_id)
    if os.environ.get("WANDB_API_KEY") and os.environ.get("WANDB_MODE", "online") == "online":
        return WandbTracker(project, run, config, layout, "online", run_id)
    return NoTracker()

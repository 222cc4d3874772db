"""Optional tracking with Weights & Biases.

Online if WANDB_API_KEY is set, offline (files in log/wandb/) if WANDB_MODE is `offline`, otherwise disabled. wandb
reads the key from the environment itself.
"""

import os
from collections.abc import Mapping
from typing import Any, Protocol

from skincare.labels import UNKNOWN
from skincare.paths import Layout
from skincare.training.epoch_results import EpochResult


class Tracker(Protocol):
    """Receives the results of a training run; `run_id` is the tracker's id of the run."""

    run_id: str

    def epoch(self, result: EpochResult) -> None:
        """Record one epoch."""

    def finish(self, results: Mapping[str, Any]) -> None:
        """Record the final results."""


class NoTracker:
    """Records nothing."""

    run_id = ""

    def epoch(self, result: EpochResult) -> None:
        """Do nothing."""

    def finish(self, results: Mapping[str, Any]) -> None:
        """Do nothing."""


class WandbTracker:
    """Records curves, and a confusion matrix and sample answers per epoch."""

    def __init__(
        self, project: str, run: str, config: Mapping[str, Any], layout: Layout, mode: str, run_id: str
    ) -> None:  # fmt: skip
        import wandb  # takes seconds to import, and most runs do not use it

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
        names = [*(one.category for one in result.scores.categories), UNKNOWN]
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
    """Return the tracker that the environment selects; an earlier `run_id` continues that run."""
    if os.environ.get("WANDB_MODE") == "offline":
        return WandbTracker(project, run, config, layout, "offline", run_id)
    if os.environ.get("WANDB_API_KEY") and os.environ.get("WANDB_MODE", "online") == "online":
        return WandbTracker(project, run, config, layout, "online", run_id)
    return NoTracker()

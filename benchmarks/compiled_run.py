"""A whole finetune.py run with --compile, compared with the same run without it, on the embedded tiny model.

Both runs start from the same seed and see the same images in the same order, so that only rounding can differ: compiled
layers add in another order, and training amplifies the difference from step to step.

In: a finished sample run (`python src/run_all.py --sample`). Its own trained model stays; the two runs are replaced.
Out: benchmarks/results/compiled_run.json: the loss of every step, and what was selected.
Command: python benchmarks/compiled_run.py --root sample_run
Time: three minutes of one CPU core, of which the compiler takes one to two. Needs a C++ compiler.
"""

import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

import tyro
from torch._dynamo.utils import counters

import finetune
from skincare.paths import TINY_MODEL, Layout
from skincare.runlog import environment
from skincare.tables import HISTORY
from skincare.training import loop
from skincare.training.step_records import StepRecords

logger = logging.getLogger("compiled_run")


@dataclass(frozen=True)
class Config:
    """Options of the benchmark."""

    root: Path = REPOSITORY / "sample_run"
    """Root of a finished sample run."""
    max_epochs: int = 2
    """Epochs of each run."""
    out: Path = REPOSITORY / "benchmarks" / "results" / "compiled_run.json"
    """Output file."""


class RecordingSteps(StepRecords):
    """Keeps the loss of every step of all runs."""

    losses: list[float] = []  # noqa: RUF012

    def read(self) -> list[tuple[float, float]]:
        """Return what StepRecords returns."""
        found = super().read()
        self.losses.extend(loss for loss, _ in found)
        return found


def train(config: Config, name: str, *, is_compiled: bool) -> dict[str, Any]:
    """Run finetune.py; return the losses of its steps and its results."""
    RecordingSteps.losses.clear()
    counters.clear()
    layout = Layout(config.root.resolve())
    settings = finetune.Config(
        root=layout.root, model=str(TINY_MODEL), recipe="sample", run=name, min_tokens=36, max_tokens=36,
        max_epochs=config.max_epochs, compile=is_compiled, overwrite=True,
    )  # fmt: skip
    results = finetune.run(settings, layout).results
    history = HISTORY.read(layout.finetune_log(name) / "history.csv")
    return {
        "n_graphs": counters["stats"]["unique_graphs"],
        "best_epoch": results["best_epoch"],
        "val_accuracies": [row.val_accuracy for row in history],
        "val_losses": [row.val_loss for row in history],
        "step_losses": [round(loss, 7) for loss in RecordingSteps.losses],
    }


def differences(plain: dict[str, Any], compiled: dict[str, Any], n_epochs: int) -> dict[str, float]:
    """Return the largest difference of a step's loss, relative to the plain one, over growing parts of the run."""
    pairs = list(zip(plain["step_losses"], compiled["step_losses"], strict=True))
    found = [abs(one - other) / one for one, other in pairs]
    n_steps = len(found) // n_epochs
    parts = {"first_step": 1, "first_10_steps": 10, "first_epoch": n_steps, "all_steps": len(found)}
    return {name: max(found[:n]) for name, n in parts.items()}


def main() -> None:
    """Train both, write and log the comparison."""
    config = tyro.cli(Config, description=__doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    loop.StepRecords = RecordingSteps
    plain = train(config, "plain", is_compiled=False)
    compiled = train(config, "compiled", is_compiled=True)
    found = differences(plain, compiled, config.max_epochs)
    logger.info("largest relative difference of a step's loss: %s", found)
    results = {"max_epochs": config.max_epochs, "largest_relative_difference": found, "plain": plain}
    config.out.write_text(
        json.dumps({**results, "compiled": compiled, **environment()}, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()

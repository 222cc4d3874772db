"""What label smoothing, the moving average, Muon, DoRA and rank-stabilised LoRA change on the embedded tiny model.

Each option is compared with the recipe that it changes, on the same split and with the same seeds: the difference in
accuracy, paired by seed, with its 95 % t-interval over the seeds. Every run that is finished is stored below the root,
so that the same command continues.

In: a finished sample run (`python src/run_all.py --sample`).
Out: benchmarks/results/recipe_options.json.
Command: python benchmarks/recipe_options.py --root sample_run
Time: half a minute per recipe and seed on a quiet machine.
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

from skincare.paths import TINY_MODEL, Layout
from skincare.runlog import environment
from skincare.tables import ComparisonRow
from skincare.training import recipe_comparison, run_spec
from skincare.training.run_settings import RunSettings

logger = logging.getLogger("recipe_options")


@dataclass(frozen=True)
class Config:
    """Options of the benchmark."""

    root: Path = REPOSITORY / "sample_run"
    """Root of a finished sample run."""
    groups: tuple[str, ...] = ("sample,sample-smooth,sample-ema,sample-muon", "sample-lora,sample-dora,sample-rslora")
    """Recipes to compare, separated by commas: the one that is changed, then its changes."""
    n_seeds: int = 3
    """Number of seeds per recipe."""
    max_epochs: int = 4
    """Epochs of a run."""
    out: Path = REPOSITORY / "benchmarks" / "results" / "recipe_options.json"
    """Output file, written again after each seed."""


def run(config: Config) -> dict[str, Any]:
    """Train the missing runs, write the results after each seed and return them."""
    layout = Layout(config.root.resolve())
    settings = RunSettings(model=str(TINY_MODEL), min_tokens=36, max_tokens=36, max_epochs=config.max_epochs)
    data = run_spec.read_data(settings, layout)
    names = [group.split(",") for group in config.groups]
    rows: dict[str, list[ComparisonRow]] = {name: [] for group in names for name in group}
    results: dict[str, Any] = {}
    for seed in range(config.n_seeds):
        specs = [run_spec.make_spec(settings, name, seed, data) for name in rows]
        for one in recipe_comparison.identify(specs):
            rows[one.spec.recipe_name].append(recipe_comparison.result(one, layout))
        groups = [[row for name in group for row in rows[name]] for group in names]
        results = {
            "max_epochs": config.max_epochs,
            "n_seeds": seed + 1,
            "n_train": len(data.train),
            "n_val": len(data.val),
            "n_test": len(data.test),
            "recipes": recipe_comparison.summarise([row for group in groups for row in group]),
            "differences": [one for group in groups for one in recipe_comparison.differences(group)],
            "environment": environment(),
        }
        config.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        for line in recipe_comparison.describe_differences(results["differences"]):
            logger.info("%s", line)
    return results


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run(tyro.cli(Config, description=__doc__))

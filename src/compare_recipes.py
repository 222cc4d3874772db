"""Train several recipes with several seeds on the same split and set them side by side.

In: clean_dataset/{train,val,test}.json, a model of the hub or a folder.
Out: log/recipe_comparison.csv (one row per recipe and seed), log/compare_recipes.json (means and spreads),
plots/recipe_comparison.png. Models are not kept.
Command: python src/compare_recipes.py --recipes reference,reference-k2,reference-merger --seeds 0,1,2
Time: a finetune.py run per recipe and seed. Interrupted, the same command goes on where it was.

A result counts only for what it was measured on: other data, another model or other settings are trained anew.

Recipes are chosen by val; test stands beside it to show what that choice is worth, not to choose by.
"""

import json
import logging
import shutil
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from skincare import figures, runlog, stage
from skincare.dataset.chat import Example
from skincare.dataset.dataset_source import image_files, read_parts
from skincare.errors import StageError
from skincare.evaluation import metrics
from skincare.files import write_json
from skincare.inference import answer_parser, decoders
from skincare.inference.evaluated import EvaluatedModel
from skincare.modeling import device_memory
from skincare.modeling.batches import PromptEncoder
from skincare.modeling.model import load_processor
from skincare.paths import Layout
from skincare.runlog import Summary
from skincare.tables import COMPARISON, ComparisonRow
from skincare.training import export_check, run_identity, sampling, training_run
from skincare.training.loop import EpochResult
from skincare.training.recipes import Recipe, get_recipe
from skincare.training.training_run import RunSettings

logger = logging.getLogger(__name__)

# Of the settings: what changes how long a run takes, or how much memory; what it learns is in its identity.
_COSTS: Final = ("vram_gb", "micro_batch_size", "gradient_checkpointing", "attention", "cache_images")


@dataclass(frozen=True, kw_only=True)
class Config(RunSettings, stage.StageConfig):
    """What the stage can be told."""

    recipes: str = "reference,reference-k2,reference-merger"
    """Recipes to compare, separated by commas; finetune.py --list-recipes shows them."""
    seeds: str = "0,1,2"
    """Seeds to train each with, separated by commas."""
    restart: bool = False
    """Forget results of earlier comparisons."""

    def how_to_go_on(self, layout: Layout) -> str:
        """Return what to do after an interruption; --restart once more would forget what this comparison has done."""
        del layout
        return f"go on by `{runlog.command(leave_out=('--restart',))}`"


@dataclass(frozen=True)
class Compared:
    """One run of the comparison: a recipe and a seed, on this data."""

    recipe_name: str
    seed: int
    recipe: Recipe
    parts: Mapping[str, Sequence[Example]]
    identity: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Return a name that no other run has."""
        return f"{self.recipe_name}-seed{self.seed}-{run_identity.digest(self.identity)}"


def run(config: Config, layout: Layout) -> Summary:
    """Train what is not trained yet, then write the table and draw it."""
    names = [name.strip() for name in config.recipes.split(",") if name.strip()]
    try:
        seeds = [int(seed) for seed in config.seeds.split(",")]
    except ValueError as error:
        raise StageError(f"--seeds must be whole numbers separated by commas, not {config.seeds!r}") from error
    for name in names:
        training_run.check_requirements(config, get_recipe(name))  # all of them before the first hour of training
    parts, encoder = read_parts(config.dataset, layout), PromptEncoder(load_processor(config.model, config.limits))
    runs = [_compared(config, layout, encoder, parts, name, seed) for name in names for seed in seeds]
    if config.restart:
        for folder in (layout.comparison_results, layout.finetuned_model(layout.compared_run(""))):
            shutil.rmtree(folder, ignore_errors=True)
    rows = [_result(config, layout, one) for one in runs]
    _name_unfinished(layout)
    runlog.take_back_summary("compare_recipes", layout)
    COMPARISON.write(layout.comparison_table, rows)
    table = summarise(rows)
    figures.draw_recipe_comparison(table, len(parts["test"]), layout.plot("recipe_comparison"))
    for line in _lines(table):
        logger.info("%s", line)
    best = max(table, key=lambda one: one["val_mean"])
    return Summary(
        headline=f"{len(names)} recipes x {len(seeds)} seeds; best on val: {best['recipe']}, "
        f"{best['val_mean']:.1%} there, {best['test_mean']:.1%} on test (n = {len(parts['test'])})",
        counts={"runs": len(rows)},
        results={"recipes": table, "n_val": len(parts["val"]), "n_test": len(parts["test"])},
    )


def _compared(
    config: Config, layout: Layout, encoder: PromptEncoder, parts: dict[str, list[Example]], name: str, seed: int
) -> Compared:
    """Return a run with all that decides its row."""
    recipe, files = training_run.recipe_with_overrides(name, config), image_files(config.dataset, layout)
    train = sampling.subsample(parts["train"], recipe.data_share, seed)
    identity = run_identity.compute(config.model, encoder, recipe, seed, train, parts["val"], files)
    identity["test"] = run_identity.fingerprint(parts["test"], files)
    identity["settings"] = {key: getattr(config, key) for key in _COSTS}
    identity["versions"] = {"decoder": decoders.VERSION, "parser": answer_parser.ALIASES_VERSION}
    return Compared(name, seed, recipe, {**parts, "train": train}, identity)


def _result(config: Config, layout: Layout, one: Compared) -> ComparisonRow:
    """Return a run's row, from its file where the same run has been made before."""
    path = layout.comparison_results / f"{one.label}.json"
    saved = _saved(layout)
    if path in saved and saved[path]["identity"] == one.identity:
        return ComparisonRow(**saved[path]["row"])
    for file, other in saved.items():
        if (other["row"]["recipe"], other["row"]["seed"]) == (one.recipe_name, one.seed):
            changed = ", ".join(run_identity.differences(other["identity"], one.identity))
            logger.info("%s, seed %d is trained anew: %s is of other %s", one.recipe_name, one.seed, file.name, changed)
    row = _train(config, layout, one)
    write_json(path, {"identity": one.identity, "row": asdict(row)})
    return row


def _saved(layout: Layout) -> dict[Path, dict[str, Any]]:
    """Return the results of all comparisons by their files."""
    found = {file: json.loads(file.read_text(encoding="utf-8")) for file in layout.comparison_results.glob("*.json")}
    return {file: one for file, one in sorted(found.items()) if {"identity", "row"} <= one.keys()}


def _name_unfinished(layout: Layout) -> None:
    """Say what runs of other comparisons have left unfinished: nothing is removed unasked."""
    folder = layout.finetuned_model(layout.compared_run(""))
    left = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if left:
        logger.info("unfinished under other settings or data: %s; --restart removes them", ", ".join(left))
    elif folder.is_dir():
        folder.rmdir()


def _train(config: Config, layout: Layout, one: Compared) -> ComparisonRow:
    name, seed, run_name = one.recipe_name, one.seed, layout.compared_run(one.label)
    training = training_run.prepare(config, one.recipe, seed, layout, run_name, one.parts["train"], one.parts["val"])
    training.resume(config.micro_batch_size)
    device = training.images.recogniser.device
    device_memory.reset_peak(device)

    def on_epoch(result: EpochResult) -> None:
        row = result.row
        logger.info("%s, seed %d, epoch %d: val %.1f %%", name, seed, row.epoch, 100 * row.val_accuracy)

    training.run(on_epoch)
    peak_bytes = device_memory.peak_bytes(device)
    training.release()
    folder = layout.finetuned_model(run_name)
    export = training_run.export(training, config, folder)
    files = image_files(config.dataset, layout)
    exported = EvaluatedModel(folder, layout, cache_images=config.cache_images, cache_answers=False, files=files)
    scores = metrics.score(exported.predict(one.parts["test"], "test", exported.decoder(training.decoder_name)))
    val_again = export_check.evaluate_export(training, export, exported)["val"]["exported"]
    shutil.rmtree(folder)
    progress = training.progress
    return ComparisonRow(
        recipe=name,
        seed=seed,
        val_accuracy=progress.best_accuracy,
        test_accuracy=scores.accuracy,
        test_low=scores.accuracy_low,
        test_high=scores.accuracy_high,
        test_macro_f1=scores.f1_macro,
        best_epoch=progress.best_epoch,
        n_epochs=progress.epoch,
        n_trainable=sum(parameter.numel() for parameter in training.parameters.values()),
        training_seconds=round(sum(row["seconds"] for row in progress.history), 1),
        peak_bytes=peak_bytes,
        exported_val_accuracy=val_again["accuracy"],
    )


def summarise(rows: Sequence[ComparisonRow]) -> list[dict[str, Any]]:
    """Return per recipe, in their order, means and standard deviations over the seeds."""
    by_recipe: dict[str, list[ComparisonRow]] = defaultdict(list)
    for row in rows:
        by_recipe[row.recipe].append(row)
    return [
        {
            "recipe": name,
            "n_seeds": len(some),
            **{
                f"{short}_{kind}": function([getattr(row, field) for row in some])
                for short, field in (("val", "val_accuracy"), ("test", "test_accuracy"), ("test_f1", "test_macro_f1"))
                for kind, function in (("mean", statistics.fmean), ("spread", _spread))
            },
            "n_trainable": some[0].n_trainable,
            "training_seconds": statistics.fmean(row.training_seconds for row in some),
            "peak_bytes": max(row.peak_bytes for row in some),
        }
        for name, some in by_recipe.items()
    ]


def _spread(values: Sequence[float]) -> float:
    """Return the standard deviation of a sample, 0 for one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _lines(table: Sequence[dict[str, Any]]) -> list[str]:
    width = max(len(one["recipe"]) for one in table)
    return [
        f"{'recipe':{width}}  val             test            seconds  peak memory",
        *(
            f"{one['recipe']:{width}}  {one['val_mean']:6.1%} ± {one['val_spread']:5.1%}  {one['test_mean']:6.1%} ± "
            f"{one['test_spread']:5.1%}  {one['training_seconds']:7.0f}  {one['peak_bytes'] / 2**30:6.2f} GiB"
            for one in table
        ),
    ]


def main() -> None:
    """Run the stage from the command line."""
    stage.main("compare_recipes", Config, run)


if __name__ == "__main__":
    main()

"""The runs of a recipe comparison: their stored results, their training, and the table over seeds."""

import json
import logging
import math
import shutil
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from scipy import stats

from skincare.evaluation import metrics
from skincare.files import write_json
from skincare.inference import decoders
from skincare.inference.answer_parser import PARSER_VERSION
from skincare.inference.classifier import Classifier
from skincare.modeling import device_memory
from skincare.modeling.loading import load_processor
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.paths import Layout
from skincare.tables import ComparisonRow
from skincare.training import export_check, run_identity, training_run
from skincare.training.epoch_results import EpochResult
from skincare.training.loop import Trainer
from skincare.training.run_spec import RunSpec

logger = logging.getLogger(__name__)

# Settings that affect time and memory of a run; those that affect what it learns are part of its identity.
_EXECUTION_SETTINGS: Final = (
    "vram_gb", "micro_batch_size", "gradient_checkpointing", "attention", "compile", "cache_images"
)  # fmt: skip


@dataclass(frozen=True)
class ComparedRun:
    """One run of the comparison, with everything that its row depends on."""

    spec: RunSpec
    identity: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Return a unique name of the run."""
        return f"{self.spec.recipe_name}-seed{self.spec.seed}-{run_identity.digest(self.identity)}"


def identify(specs: Sequence[RunSpec]) -> list[ComparedRun]:
    """Return the runs of a comparison, which share model and image limits, with their identities."""
    settings = specs[0].settings
    encoder = PromptEncoder(load_processor(settings.model, settings.limits), specs[0].data.labels)
    return [ComparedRun(spec, _identity(spec, encoder)) for spec in specs]


def _identity(spec: RunSpec, encoder: PromptEncoder) -> dict[str, Any]:
    return run_identity.compute(spec, encoder) | {
        "test": run_identity.fingerprint(spec.data.test, spec.data.files),
        "settings": {key: getattr(spec.settings, key) for key in _EXECUTION_SETTINGS},
        "versions": {"decoder": decoders.VERSION, "parser": PARSER_VERSION},
    }


def delete_results(layout: Layout) -> None:
    """Remove the stored results and unfinished runs of all comparisons."""
    for folder in (layout.comparison_results, layout.finetuned_model(layout.compared_run(""))):
        shutil.rmtree(folder, ignore_errors=True)


def result(run: ComparedRun, layout: Layout) -> ComparisonRow:
    """Return a run's row: the stored one of an equal identity, or that of a new training."""
    path = layout.comparison_results / f"{run.label}.json"
    stored = _stored_results(layout)
    if path in stored and stored[path]["identity"] == run.identity:
        return ComparisonRow(**stored[path]["row"])
    name, seed = run.spec.recipe_name, run.spec.seed
    for file, other in stored.items():
        if (other["row"]["recipe"], other["row"]["seed"]) == (name, seed):
            changed = ", ".join(run_identity.differences(other["identity"], run.identity))
            logger.info("%s, seed %d is trained again: %s has other %s", name, seed, file.name, changed)
    row = train(run, layout)
    write_json(path, {"identity": run.identity, "row": asdict(row)})
    return row


def _stored_results(layout: Layout) -> dict[Path, dict[str, Any]]:
    """Return the results of all comparisons by file."""
    found = {file: json.loads(file.read_text(encoding="utf-8")) for file in layout.comparison_results.glob("*.json")}
    return {file: one for file, one in sorted(found.items()) if {"identity", "row"} <= one.keys()}


def log_unfinished(layout: Layout) -> None:
    """Log the unfinished runs of other comparisons; they are removed by --restart only."""
    folder = layout.finetuned_model(layout.compared_run(""))
    unfinished = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if unfinished:
        logger.info("unfinished with other settings or data: %s; --restart removes them", ", ".join(unfinished))
    elif folder.is_dir():
        folder.rmdir()


def train(run: ComparedRun, layout: Layout) -> ComparisonRow:
    """Train, export and evaluate a run, resuming an interrupted one; the exported model is removed."""
    spec, name = run.spec, layout.compared_run(run.label)
    trainer = training_run.prepare(spec, layout, name)
    trainer.resume(spec.settings.micro_batch_size)
    device = trainer.classifier.network.device
    device_memory.reset_peak(device)

    def on_epoch(result: EpochResult) -> None:
        epoch, accuracy = result.row.epoch, 100 * result.row.val_accuracy
        logger.info("%s, seed %d, epoch %d: val %.1f %%", spec.recipe_name, spec.seed, epoch, accuracy)

    trainer.run(on_epoch)
    peak_bytes = device_memory.peak_bytes(device)
    trainer.release()
    folder = layout.finetuned_model(name)
    row = _evaluate(trainer, layout, folder, peak_bytes)
    shutil.rmtree(folder)
    return row


def _evaluate(trainer: Trainer, layout: Layout, folder: Path, peak_bytes: int) -> ComparisonRow:
    """Export the best epoch to `folder`, evaluate it on test and again on val; return the run's row."""
    spec, progress = trainer.spec, trainer.progress
    export = training_run.export(trainer, folder)
    exported = Classifier.load(
        folder, spec.data.labels, spec.data.files,
        vision_cache=layout.vision_cache if spec.settings.cache_images else None,
    )  # fmt: skip
    tested = exported.predict(spec.data.test, "test", exported.decoder(trainer.decoder_name))
    scores = metrics.score(tested, spec.data.labels)
    return ComparisonRow(
        recipe=spec.recipe_name,
        seed=spec.seed,
        val_accuracy=progress.best_accuracy,
        test_accuracy=scores.accuracy,
        test_low=scores.accuracy_low,
        test_high=scores.accuracy_high,
        test_macro_f1=scores.f1_macro,
        best_epoch=progress.best_epoch,
        n_epochs=progress.epoch,
        n_trainable=sum(parameter.numel() for parameter in trainer.parameters.values()),
        training_seconds=trainer.seconds,
        peak_bytes=peak_bytes,
        exported_val_accuracy=export_check.evaluate_export(trainer, export, exported)["val"]["exported"]["accuracy"],
    )


def summarise(rows: Sequence[ComparisonRow]) -> list[dict[str, Any]]:
    """Return means and standard deviations over the seeds per recipe, in the order of the recipes."""
    by_recipe: dict[str, list[ComparisonRow]] = defaultdict(list)
    for row in rows:
        by_recipe[row.recipe].append(row)
    return [
        {
            "recipe": name,
            "n_seeds": len(members),
            **{
                f"{short}_{kind}": function([getattr(row, field) for row in members])
                for short, field in (("val", "val_accuracy"), ("test", "test_accuracy"), ("test_f1", "test_macro_f1"))
                for kind, function in (("mean", statistics.fmean), ("spread", _standard_deviation))
            },
            "n_trainable": members[0].n_trainable,
            "training_seconds": statistics.fmean(row.training_seconds for row in members),
            "peak_bytes": max(row.peak_bytes for row in members),
        }
        for name, members in by_recipe.items()
    ]


def _standard_deviation(values: Sequence[float]) -> float:
    """Return the sample standard deviation; 0 for one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def differences(rows: Sequence[ComparisonRow]) -> list[dict[str, Any]]:
    """Return each recipe's accuracy minus that of the first recipe, paired by seed, with 95 % t-intervals.

    The intervals cover the seed of the training, not the choice of the images; they are None without a spread over the
    seeds. `is_decided`: the interval of the difference on val does not contain 0.
    """
    by_recipe: dict[str, dict[int, ComparisonRow]] = defaultdict(dict)
    for row in rows:
        by_recipe[row.recipe][row.seed] = row
    (first, of_first), *others = by_recipe.items()
    found = []
    for name, members in others:
        seeds = sorted(members.keys() & of_first.keys())
        difference: dict[str, Any] = {"recipe": name, "minus": first, "n_seeds": len(seeds)}
        for split in ("val", "test"):
            field = f"{split}_accuracy"
            pairs = [getattr(members[seed], field) - getattr(of_first[seed], field) for seed in seeds]
            mean, low, high = _mean_with_interval(pairs)
            difference |= {f"{split}_difference": mean, f"{split}_low": low, f"{split}_high": high}
        low, high = difference["val_low"], difference["val_high"]
        found.append(difference | {"is_decided": low is not None and (low > 0 or high < 0)})
    return found


def _mean_with_interval(values: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """Return the mean of values and its 95 % t-interval; None for values that do not differ, which show no spread."""
    if not values:
        return None, None, None
    mean = statistics.fmean(values)
    if max(values) - min(values) < 1e-9:
        return mean, None, None
    margin = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - margin, mean + margin


def describe_differences(found: Sequence[dict[str, Any]]) -> list[str]:
    """Return the differences on val as lines of text."""
    return [
        f"{one['recipe']} minus {one['minus']}, {one['n_seeds']} seeds: {one['val_difference']:+.1%} on val "
        f"({one['val_low']:+.1%} to {one['val_high']:+.1%}): {'decided' if one['is_decided'] else 'not decided'}"
        for one in found
        if one["val_low"] is not None
    ]


def describe(table: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table as lines of text."""
    width = max(len(one["recipe"]) for one in table)
    return [
        f"{'recipe':{width}}  val             test            seconds  peak memory",
        *(
            f"{one['recipe']:{width}}  {one['val_mean']:6.1%} ± {one['val_spread']:5.1%}  {one['test_mean']:6.1%} ± "
            f"{one['test_spread']:5.1%}  {one['training_seconds']:7.0f}  {one['peak_bytes'] / 2**30:6.2f} GiB"
            for one in table
        ),
    ]

"""Fine-tune a part of the model on the training images; choose the epoch on val; read test once.

In: clean_dataset/{train,val,test}.json and their images, a model of the hub or a folder.
Out: models/finetuned/<run>/ (loads with from_pretrained), log/finetune/<run>/{history.csv,val_predictions.jsonl,
test_predictions.jsonl,test_ranked.jsonl,manifest.json,test_metrics.json,{comparison,baselines,confidence,export}.json},
plots/{lr,val_*,cm_epoch_N,cm_after_training,confidence}.png (of a run under way in log/finetune/<run>/plots/).
Command: python src/finetune.py [--recipe NAME] [--resume]
         python src/finetune.py --run NAME --overwrite   (a finished run stays until the new one is trained and tested)
         python src/finetune.py --dataset s3://bucket/skincare   (from shards of export_dataset.py)
         python src/finetune.py --plan --vram-gb 16   (memory and batch size, without loading weights)
Time: about a minute for the embedded sample on two cores.
"""

import dataclasses
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from skincare import figures, runlog, stage, tables
from skincare.dataset.chat import Example
from skincare.dataset.dataset_source import image_files, read_parts
from skincare.errors import MissingInputError
from skincare.evaluation import comparison, confidence, metrics, scoring
from skincare.evaluation.metrics import Scores
from skincare.files import write_json
from skincare.inference import predictions
from skincare.inference.evaluated import EvaluatedModel
from skincare.inference.predictions import Prediction
from skincare.modeling.batches import PromptEncoder
from skincare.modeling.model import load_config, load_processor
from skincare.paths import SPLITS, Layout
from skincare.runlog import Summary, to_plain
from skincare.tables import HistoryRow
from skincare.training import (
    distributed,
    export_check,
    memory_plan,
    run_folders,
    sampling,
    tracking,
    training_run,
)
from skincare.training.loop import EpochResult, Trainer
from skincare.training.model_export import ExportStatistics
from skincare.training.recipes import RECIPES, Recipe
from skincare.training.run_folders import RunFolders
from skincare.training.training_run import RunSettings

logger = logging.getLogger(__name__)

_WANTED_RISKS: Final = (0.05, 0.1, 0.2, 0.3)


@dataclass(frozen=True, kw_only=True)
class Config(RunSettings, stage.StageConfig):
    """What the stage can be told."""

    recipe: str = "reference"
    """What trains and how; --list-recipes shows them."""
    run: str = ""
    """Name of the run's folders; if left out the recipe's, with the seed unless 0 and a number where it is taken."""
    seed: int = 0
    """Seed of the order of the images."""
    resume: bool = False
    """Go on with a run that was interrupted."""
    restart: bool = False
    """Throw away what an interrupted run of this name has saved."""
    overwrite: bool = False
    """Take the place of a finished run of this name, once this one is finished."""
    list_recipes: bool = False
    """Show the recipes and stop."""
    plan: bool = False
    """Show what the run would take, without loading weights, and stop."""
    wandb_project: str = "skincare-recognition"
    """Project for Weights & Biases, when WANDB_API_KEY or WANDB_MODE=offline is set."""

    @property
    def leaves_record(self) -> bool:
        """Tell whether a model is trained: what only shows something must not speak for a run."""
        return not (self.plan or self.list_recipes)

    def how_to_go_on(self, layout: Layout) -> str:
        """Return what to do after an interruption: only what has been saved can be resumed."""
        if run_folders.is_resumable(layout, self.run, self.recipe, self.seed):
            typed = runlog.command(leave_out=("--restart", "--overwrite"), add="--resume")
            # What launched several processes is not known here.
            launcher = "your `accelerate launch` in place of python: " if "WORLD_SIZE" in os.environ else ""
            return f"go on by {launcher}`{typed}`"
        return "nothing was saved yet: run the same command again"


def run(config: Config, layout: Layout) -> Summary:
    """Train, choose, export, test."""
    if config.list_recipes:
        return _list_recipes()
    if config.plan:
        return _show_plan(config, layout)
    what = run_folders.existing_run_policy(resume=config.resume, restart=config.restart, overwrite=config.overwrite)
    world = distributed.connect()
    recipe = training_run.recipe_with_overrides(config.recipe, config)
    training_run.check_requirements(config, recipe)
    train, val, test = read_parts(config.dataset, layout).values()
    train = sampling.subsample(train, recipe.data_share, config.seed)
    chosen = [run_folders.choose(layout, config.run, config.recipe, config.seed, what)] if world.is_writer else []
    run = world.gather(chosen)[0]
    logger.info("run %s", run.name)
    training = training_run.prepare(config, recipe, config.seed, layout, run.working_name, train, val, world)
    # From here on the run can start: only now may an unfinished one go.
    if world.is_writer and what in ("restart", "overwrite"):
        run_folders.clear(layout, run)
    world.barrier()
    if config.resume and not training.resume(config.micro_batch_size):
        logger.info("nothing saved to go on from: starting at the beginning")
    if not world.is_writer:
        training.run(lambda _: None)
        world.barrier()
        return Summary(headline="the first process has written what there is")
    known_as = training.progress.tracking_id
    tracker = tracking.make_tracker(config.wandb_project, run.name, to_plain(config), layout, known_as)
    training.progress.tracking_id = tracker.run_id or known_as

    def on_epoch(result: EpochResult) -> None:
        _record_epoch(training, result, layout, run)
        tracker.epoch(result)

    stop_reason = training.run(on_epoch)
    results = training_run.results(training, run.name, config.recipe, config, stop_reason)
    training.release()
    export = training_run.export(training, config, layout.finetuned_model(run.working_name))
    check, scores = _test(config, layout, run, test, training, export)
    results = {**results, "export": check}
    runlog.take_back_summary("finetune", layout)
    run_folders.publish(layout, run)
    tracker.finish({**results, "test_accuracy": scores.accuracy})
    world.barrier()
    return Summary(
        headline=f"best epoch {training.progress.best_epoch} of {training.progress.epoch}, "
        f"{metrics.headline(scores)} on test",
        counts={"train images": len(train), "val images": len(val), "test images": len(test)},
        results=results,
    )


def _record_epoch(training: Trainer, result: EpochResult, layout: Layout, run: RunFolders) -> None:
    """Write history, curves, matrix and, for the best epoch, its answers."""
    history = [HistoryRow(**row) for row in training.progress.history]
    folder, plots = layout.finetune_log(run.working_name), layout.run_plots(run.working_name)
    tables.HISTORY.write(folder / "history.csv", history)
    figures.draw_training_curves(history, training.progress.best_epoch, plots)
    epoch = result.row.epoch
    figures.draw_confusion_matrix(result.scores, f"Validation, epoch {epoch}", plots / f"cm_epoch_{epoch}.png")
    if result.is_best:
        predictions.write_jsonl(folder / "val_predictions.jsonl", result.predictions)
    logger.info(
        "epoch %d: val loss %.3f, accuracy %.1f %%%s",
        epoch, result.row.val_loss, 100 * result.row.val_accuracy, " (best)" if result.is_best else "",
    )  # fmt: skip


def _test(
    config: Config,
    layout: Layout,
    run: RunFolders,
    test: Sequence[Example],
    training: Trainer,
    export: ExportStatistics,
) -> tuple[dict[str, Any], Scores]:
    """Ask the exported model about the test images: once, at the end; compare with zero-shot where it was run.

    Returns also what it makes of val, beside what was measured in training.
    """
    val, decoder = training.val, training.decoder_name
    files, folder = image_files(config.dataset, layout), layout.finetuned_model(run.working_name)
    exported = EvaluatedModel(folder, layout, cache_images=config.cache_images, files=files)
    exported.source = layout.finetuned_model(run.name)  # what the manifest names: where the model will be
    answered = exported.predict(test, "test", exported.decoder(decoder))
    scores = metrics.score(answered)
    log, plots = layout.finetune_log(run.working_name), layout.run_plots(run.working_name)
    # Free text carries no probabilities; the likelihood of all names does.
    sure = exported.decoder("rank" if decoder == "generate" else decoder)
    ranked = {split: exported.predict(part, split, sure) for split, part in (("val", val), ("test", test))}
    for split, some in ranked.items():
        predictions.write_jsonl(log / f"{split}_ranked.jsonl", some)
    exported.write_manifest(log, config, {"test_predictions.jsonl": answered, "test_ranked.jsonl": ranked["test"]})
    summary = confidence.summarise(ranked["val"], ranked["test"], _WANTED_RISKS)
    write_json(log / "confidence.json", summary)
    figures.draw_confidence(summary, plots / "confidence.png")
    predictions.write_jsonl(log / "test_predictions.jsonl", answered)
    figures.draw_confusion_matrix(scores, "After training", plots / "cm_after_training.png")
    scoring.compare_with_zero_shot(layout, log, answered)
    comparison.compare_with_baselines(layout, log)
    check = export_check.evaluate_export(training, export, exported, _chosen_answers(training, log))
    write_json(log / "export.json", check)
    # Last: its presence says that the run is finished.
    write_json(log / "test_metrics.json", metrics.to_json(scores))
    return check, scores


def _chosen_answers(training: Trainer, log: Path) -> list[Prediction]:
    """Return the chosen epoch's answers on val; none where the run was stopped before it could write them."""
    path = log / "val_predictions.jsonl"
    found = predictions.read_jsonl(path) if path.is_file() else []
    return found if found and metrics.score(found).accuracy == training.progress.best_accuracy else []


def _show_plan(config: Config, layout: Layout) -> Summary:
    """Log the plan and write it to log/finetune_plan.json."""
    recipe = training_run.recipe_with_overrides(config.recipe, config)
    encoder = PromptEncoder(load_processor(config.model, config.limits))
    parts = _planned_parts(config, recipe, layout)
    plan = training_run.plan_memory(config, recipe, encoder, [*parts["train"], *parts["val"]])
    on_disk = _plan_disk(config, recipe, parts, plan.cache_bytes_per_image)
    write_json(layout.finetune_plan, dataclasses.asdict(plan) | on_disk)
    for line in memory_plan.describe(plan):
        logger.info("%s", line)
    if on_disk:
        logger.info(
            "for the %d images that this dataset's run keeps: at most %.2f GB",
            on_disk["n_cached_images"], on_disk["cache_bytes"] / 1e9,
        )  # fmt: skip
    fits = "fits" if plan.fits else "DOES NOT FIT"
    total, capacity = plan.total_bytes / memory_plan.GIB, plan.capacity_bytes / memory_plan.GIB
    return Summary(headline=f"{total:.1f} of {capacity:.1f} GiB: {fits}, written to {layout.finetune_plan}")


def _planned_parts(config: Config, recipe: Recipe, layout: Layout) -> dict[str, list[Example]]:
    """Return the examples that a run would take; none where there is no dataset yet."""
    try:
        parts = read_parts(config.dataset, layout)
    except MissingInputError:
        return {split: [] for split in SPLITS}
    return parts | {"train": sampling.subsample(parts["train"], recipe.data_share, config.seed)}


def _plan_disk(config: Config, recipe: Recipe, parts: dict[str, list[Example]], bytes_per_image: int) -> dict[str, int]:
    """Return what the image cache will hold; empty where there is no dataset yet."""
    if not any(parts.values()):
        return {}
    if not config.cache_images:
        return {"n_cached_images": 0, "cache_bytes": 0}
    is_fp32 = load_config(config.model).dtype == torch.float32
    by_training, by_export = training_run.n_cached_images(recipe, **parts, is_fp32=is_fp32)
    n_as_large = by_training + by_export * (1 if is_fp32 else 2)
    return {"n_cached_images": by_training + by_export, "cache_bytes": n_as_large * bytes_per_image}


def _list_recipes() -> Summary:
    for name, recipe in RECIPES.items():
        logger.info("%-24s %s", name, recipe.description)
    return Summary(headline=f"{len(RECIPES)} recipes")


def main() -> None:
    """Run the stage from the command line."""
    stage.main("finetune", Config, run)


if __name__ == "__main__":
    main()

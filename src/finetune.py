"""Fine-tune a part of the model on the training pictures; choose the epoch on val; read test once.

In: clean_dataset/{train,val,test}.json and their pictures, a model of the hub or a folder.
Out: models/finetuned/<run>/ (loads with from_pretrained), log/finetune/<run>/{history.csv,val_predictions.jsonl,
test_predictions.jsonl,test_metrics.json,comparison.json}, plots/{lr,val_*,cm_epoch_N,cm_after_training}.png.
Command: python src/finetune.py [--recipe NAME] [--resume]
         python src/finetune.py --plan --vram-gb 16   (memory and batch size, without loading weights)
Time: about a minute for the embedded sample on two cores.
"""

import dataclasses
import hashlib
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skincare import (
    evaluation,
    figures,
    freezing,
    memory_plan,
    metrics,
    predictions,
    preflight,
    stage,
    tables,
    tracking,
)
from skincare.batches import PromptEncoder
from skincare.categories import CATEGORIES
from skincare.chat import Example, read_dataset
from skincare.checkpoints import export_model
from skincare.errors import StageError
from skincare.files import write_json
from skincare.memory_plan import MemoryPlan
from skincare.metrics import Scores
from skincare.model import (
    DEFAULT_MODEL,
    PixelLimits,
    default_device,
    load_config,
    load_model,
    load_processor,
    memory_capacity,
)
from skincare.paths import SPLITS, Layout
from skincare.pictures import PictureStates, prefix_key
from skincare.recipes import RECIPES, Recipe, recipe_named
from skincare.recogniser import Recogniser
from skincare.runlog import Summary, to_plain
from skincare.tables import HistoryRow
from skincare.training import EpochResult, Speed, Training

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """What the stage can be told."""

    model: str = DEFAULT_MODEL
    """Model of the Hugging Face hub, or a local folder."""
    recipe: str = "reference"
    """What trains and how; --list-recipes shows them."""
    run: str = ""
    """Name of the run's folders; the recipe's name if left out."""
    resume: bool = False
    """Go on with a run that was interrupted."""
    restart: bool = False
    """Throw away what an interrupted run of this name has saved."""
    list_recipes: bool = False
    """Show the recipes and stop."""
    seed: int = 0
    """Seed of the order of the pictures."""
    max_epochs: int | None = None
    """Fewer or more epochs than the recipe's."""
    learning_rate: float | None = None
    """Another peak learning rate than the recipe's."""
    min_tokens: int = 64
    """Least visual tokens of a picture (28 x 28 pixels each)."""
    max_tokens: int = 128
    """Most visual tokens of a picture."""
    plan: bool = False
    """Show what the run would take, without loading weights, and stop."""
    vram_gb: float | None = None
    """Memory to plan for, in GiB; what the machine has if left out."""
    micro_batch_size: int | None = None
    """Pictures per forward pass, accumulated to the recipe's batch; the plan's choice if left out."""
    gradient_checkpointing: bool | None = None
    """Recompute activations instead of keeping them; the plan's choice if left out."""
    cache_pictures: bool = True
    """Keep the frozen vision prefix's output on disk (.cache/vision)."""
    wandb_project: str = "skincare-recognition"
    """Project for Weights & Biases, when WANDB_API_KEY or WANDB_MODE=offline is set."""


def run(config: Config, layout: Layout) -> Summary:
    """Train, choose, export, test."""
    if config.list_recipes:
        return _list_recipes()
    if config.plan:
        return _show_plan(config, layout)
    recipe, name = _recipe(config), config.run or config.recipe
    train, val, test = (read_dataset(layout, split) for split in SPLITS)
    _make_way(config, layout, name)
    training = _prepare(config, layout, recipe, name, train, val)
    tracker = tracking.tracker(config.wandb_project, name, to_plain(config), layout)

    def on_epoch(result: EpochResult) -> None:
        _record_epoch(training, result, layout, name)
        tracker.epoch(result)

    stop_reason = training.run(on_epoch)
    training.load_best()
    recogniser, encoder = training.pictures.recogniser, training.pictures.encoder
    export_model(layout.finetuned_model(name), recogniser.model, encoder.processor)
    scores = _test(layout, name, test)
    progress = training.progress
    results = {
        "run": name,
        "recipe": config.recipe,
        "model": config.model,
        "n_parameters": freezing.count(recogniser.parameters()),
        "n_trainable": freezing.count(training.parameters.values()),
        "trainable_modules": list(freezing.trainable_modules(recogniser.model, recipe.trainable)),
        "best_epoch": progress.best_epoch,
        "n_epochs": progress.epoch,
        "stop_reason": stop_reason,
        "training_seconds": round(sum(row["seconds"] for row in progress.history), 1),
        "recipe_settings": to_plain(recipe),
        "device": str(recogniser.device),
    }
    tracker.finish({**results, "test_accuracy": scores.accuracy})
    return Summary(
        headline=f"best epoch {progress.best_epoch} of {progress.epoch}, {metrics.headline(scores)} on test",
        counts={"train pictures": len(train), "val pictures": len(val), "test pictures": len(test)},
        results=results,
    )


def _prepare(
    config: Config, layout: Layout, recipe: Recipe, name: str, train: Sequence[Example], val: Sequence[Example]
) -> Training:
    """Load, freeze, fill the picture cache and prove on the first batch that the right things would be learnt."""
    processor = load_processor(config.model, PixelLimits(config.min_tokens, config.max_tokens))
    model = load_model(config.model, default_device())
    parameters = freezing.freeze(model, recipe.trainable)
    plan = plan_memory(config, recipe, PromptEncoder(processor))
    checkpointing = (
        plan.gradient_checkpointing if config.gradient_checkpointing is None else config.gradient_checkpointing
    )
    micro_batch_size = config.micro_batch_size or plan.micro_batch_size
    if checkpointing:
        enable_checkpointing(model)
    logger.info(
        "%s of %s parameters learn: %s",
        f"{freezing.count(parameters.values()):,}", f"{freezing.count(model.parameters()):,}", recipe.description,
    )  # fmt: skip
    pictures = PictureStates(
        Recogniser(model), PromptEncoder(processor), layout.root, layout.vision_cache if config.cache_pictures else None
    )
    pictures.fill([example.image for example in [*train, *val]])
    preflight.check(pictures, parameters, train[:micro_batch_size], recipe.learning_rate)
    identity = {
        "recipe": to_plain(recipe),
        "seed": config.seed,
        "data": _fingerprint([*train, *val]),
        "vision": prefix_key(pictures.recogniser, pictures.encoder),
    }
    speed = Speed(micro_batch_size=micro_batch_size)
    state_folder = layout.training_state(name)
    training = Training(pictures, parameters, recipe, train, val, config.seed, speed, state_folder, identity)
    if config.resume and not training.resume():
        logger.info("nothing saved to go on from: starting at the beginning")
    return training


def enable_checkpointing(model: Any) -> None:
    """Recompute the language layers' activations in the backward pass.

    transformers also hooks the embeddings of every nested model so that their outputs need gradients, which would
    send the backward pass through all frozen vision blocks; the hooks are taken off again.
    """
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.disable_input_require_grads()
    for nested in (model.model, model.model.visual, model.model.language_model):
        nested.disable_input_require_grads()


def _recipe(config: Config) -> Recipe:
    recipe = recipe_named(config.recipe)
    if config.max_epochs is not None:
        recipe = dataclasses.replace(recipe, max_epochs=config.max_epochs)
    if config.learning_rate is not None:
        recipe = dataclasses.replace(recipe, learning_rate=config.learning_rate)
    return recipe


def _make_way(config: Config, layout: Layout, name: str) -> None:
    """Remove what an earlier, finished run of this name left; refuse to throw an unfinished one away unasked."""
    if config.resume:
        return
    if layout.is_interrupted(name) and not config.restart:
        raise StageError(
            f"Run {name!r} was interrupted. Go on with it by --resume, throw it away by --restart, "
            "or give this one another name by --run."
        )
    for folder in (layout.finetuned_model(name), layout.finetune_log(name)):
        shutil.rmtree(folder, ignore_errors=True)


def _record_epoch(training: Training, result: EpochResult, layout: Layout, name: str) -> None:
    """Write history, curves, matrix and, for the best epoch, its answers."""
    history = [HistoryRow(**row) for row in training.progress.history]
    folder = layout.finetune_log(name)
    tables.HISTORY.write(folder / "history.csv", history)
    figures.draw_training_curves(history, training.progress.best_epoch, layout)
    epoch = result.row.epoch
    figures.draw_confusion_matrix(result.scores, f"Validation, epoch {epoch}", layout.plot(f"cm_epoch_{epoch}"))
    if result.is_best:
        predictions.write_jsonl(folder / "val_predictions.jsonl", result.predictions)
    logger.info(
        "epoch %d: val loss %.3f, accuracy %.1f %%%s",
        epoch, result.row.val_loss, 100 * result.row.val_accuracy, " (best)" if result.is_best else "",
    )  # fmt: skip


def _test(layout: Layout, name: str, test: Sequence[Example]) -> Scores:
    """Ask the exported model, loaded as a user would, about the test pictures: once, at the end."""
    source = layout.finetuned_model(name)
    model = load_model(source, default_device()).requires_grad_(False)
    pictures = PictureStates(Recogniser(model), PromptEncoder(load_processor(source)), layout.root)
    answered = evaluation.predict(pictures, test, "test", batch_size=16)
    scores = metrics.score(answered)
    log = layout.finetune_log(name)
    predictions.write_jsonl(log / "test_predictions.jsonl", answered)
    figures.draw_confusion_matrix(scores, "After training", layout.plot("cm_after_training"))
    before = layout.zero_shot / "predictions.jsonl"
    if before.is_file():
        zero_shot = predictions.read_jsonl(before)
        if {p.image_id for p in zero_shot} == {p.image_id for p in answered}:
            write_json(log / "comparison.json", metrics.to_json(metrics.compare(zero_shot, answered)))
    write_json(log / "test_metrics.json", metrics.to_json(scores))
    return scores


def plan_memory(config: Config, recipe: Recipe, encoder: PromptEncoder) -> MemoryPlan:
    """Plan for the largest picture that the limits allow and a long answer."""
    grid = (1, encoder.merge_size, config.max_tokens * encoder.merge_size)
    n_tokens = encoder.batch([grid], [max(CATEGORIES, key=len)]).input_ids.shape[1]
    capacity = config.vram_gb * memory_plan.GIB if config.vram_gb else memory_capacity(default_device())
    return memory_plan.plan(
        load_config(config.model), recipe.trainable, n_tokens, grid, recipe.effective_batch_size, int(capacity)
    )


def _show_plan(config: Config, layout: Layout) -> Summary:
    """Log the plan and write it to log/finetune_plan.json."""
    processor = load_processor(config.model, PixelLimits(config.min_tokens, config.max_tokens))
    plan = plan_memory(config, _recipe(config), PromptEncoder(processor))
    write_json(layout.finetune_plan, dataclasses.asdict(plan))
    for line in memory_plan.describe(plan):
        logger.info("%s", line)
    return Summary(headline=f"{plan.total_bytes / memory_plan.GIB:.1f} GiB, written to {layout.finetune_plan}")


def _fingerprint(examples: Sequence[Example]) -> str:
    """Return 16 hex digits over pictures' names and categories."""
    lines = sorted(f"{example.image}\t{example.category}" for example in examples)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _list_recipes() -> Summary:
    for name, recipe in RECIPES.items():
        logger.info("%s: %s", name, recipe.description)
        for key, value in to_plain(recipe).items():
            if key != "description":
                logger.info("    %s = %s", key, value)
    return Summary(headline=f"{len(RECIPES)} recipes")


def main() -> None:
    """Run the stage from the command line."""
    stage.main("finetune", Config, run)


if __name__ == "__main__":
    main()

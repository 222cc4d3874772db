"""Fine-tune a part of the model on the training images; select the epoch on val; evaluate once on test.

In: clean_dataset/{train,val,test}.json and their images, a model of the hub or a folder.
Out: models/finetuned/<run>/ (loads with from_pretrained), log/finetune/<run>/{history.csv,val_predictions.jsonl,
test_predictions.jsonl,test_ranked.jsonl,manifest.json,test_metrics.json,{comparison,baselines,confidence,export}.json},
plots/{lr,val_*,cm_epoch_N,cm_after_training,confidence}.png (during a run in log/finetune/<run>/plots/).
Command: python src/finetune.py [--recipe NAME] [--resume]
         python src/finetune.py --run NAME --overwrite   (the finished run is kept until the new one is tested)
         python src/finetune.py --dataset s3://bucket/skincare   (from shards of export_dataset.py)
         python src/finetune.py --max-minutes 230 --resume   (for a job queue: saves its state, exits with 75)
         python src/finetune.py --plan --vram-gb 16   (memory and batch size, without loading weights or a hub)
Time: about a minute for the embedded sample on two cores.
"""

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skincare import runlog, stage
from skincare.errors import MissingInputError
from skincare.paths import Layout
from skincare.runlog import Summary, to_plain
from skincare.training import run_folders
from skincare.training.recipes import RECIPES, get_recipe
from skincare.training.run_folders import ExistingRunPolicy
from skincare.training.run_settings import RunSettings

if TYPE_CHECKING:
    from skincare.training.distributed import World
    from skincare.training.epoch_results import EpochResult
    from skincare.training.run_spec import RunSpec
    from skincare.training.stopping import StopRequest

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config(RunSettings, stage.StageConfig):
    """Options of the stage."""

    recipe: str = "reference"
    """Training recipe; --list-recipes shows them."""
    run: str = ""
    """Name of the run's folders; by default the recipe's, with the seed unless it is 0 and a number if it is taken."""
    seed: int = 0
    """Seed of the order of the images."""
    resume: bool = False
    """Continue an interrupted run."""
    restart: bool = False
    """Discard the checkpoints of an interrupted run of this name."""
    overwrite: bool = False
    """Replace a finished run of this name, once this one is finished."""
    max_minutes: float | None = None
    """Wall-clock limit: after the next step the state is saved and the stage exits with 75, to continue by --resume."""
    list_recipes: bool = False
    """Show the recipes and exit."""
    plan: bool = False
    """Show memory, batch size and disk space of the run, without loading weights, and exit."""
    wandb_project: str = "skincare-recognition"
    """Project at Weights & Biases, used if WANDB_API_KEY or WANDB_MODE=offline is set."""

    @property
    def writes_summary(self) -> bool:
        """Return whether a model is trained: --plan and --list-recipes leave the record of a run unchanged."""
        return not (self.plan or self.list_recipes)

    def resume_hint(self, layout: Layout) -> str:
        """Return the command that continues after an interruption: only a run with a checkpoint can be resumed."""
        if run_folders.is_resumable(layout, self.run, self.recipe, self.seed):
            command = runlog.command(leave_out=("--restart", "--overwrite"), add="--resume")
            # How several processes were launched is not known here.
            launcher = "your `accelerate launch` in place of python: " if "WORLD_SIZE" in os.environ else ""
            return f"continue with {launcher}`{command}`"
        return f"no checkpoint was written yet; start again with `{runlog.command()}`"


def run(config: Config, layout: Layout) -> Summary:
    """List the recipes, plan a run, or train one."""
    if config.list_recipes:
        return _list_recipes()
    get_recipe(config.recipe)  # a usage error is reported before anything is imported or read
    policy = run_folders.existing_run_policy(
        resume=config.resume, restart=config.restart, overwrite=config.overwrite
    )  # fmt: skip
    return _plan(config, layout) if config.plan else _train(config, layout, policy)


def _train(config: Config, layout: Layout, policy: ExistingRunPolicy) -> Summary:
    """Lock the run's name, train, export the best epoch and evaluate it on test."""
    # Importing torch, transformers and peft takes seconds, which --help must not wait for.
    from skincare.training import distributed, run_lock, run_spec, training_run
    from skincare.training.stopping import StopRequest, TimeLimitError

    stop = StopRequest(config.max_minutes)
    world = distributed.connect()
    training_run.check_requirements(config, run_spec.recipe_with_overrides(config.recipe, config))
    spec = run_spec.make_spec(config, config.recipe, config.seed, run_spec.read_data(config, layout))
    if not world.is_writer:
        return _train_with_others(config, layout, spec, world, stop)
    name = run_folders.choose_name(layout, config.run, config.recipe, config.seed, policy)
    with run_lock.locked(layout.run_lock(name), name):
        folders = run_folders.choose(layout, name, config.recipe, config.seed, policy)
        logger.info("run %s", folders.name)
        world.gather([folders])
        try:
            return _train_and_test(config, layout, folders, spec, world, stop, policy)
        except TimeLimitError as limit:
            raise TimeLimitError(f"{limit}; {config.resume_hint(layout)}") from None


def _train_with_others(config: Config, layout: Layout, spec: "RunSpec", world: "World", stop: "StopRequest") -> Summary:
    """Train in a process that writes no files."""
    from skincare.training import training_run

    nothing: list[run_folders.RunFolders] = []
    folders = world.gather(nothing)[0]
    trainer = training_run.prepare(spec, layout, folders.working_name, world, stop, resumes=config.resume)
    world.barrier()
    if config.resume:
        trainer.resume(config.micro_batch_size)
    trainer.run(lambda _: None)
    world.barrier()
    return Summary(headline="the first process has written the results")


def _train_and_test(
    config: Config, layout: Layout, folders: run_folders.RunFolders, spec: "RunSpec", world: "World",
    stop: "StopRequest", policy: ExistingRunPolicy,
) -> Summary:  # fmt: skip
    """Train in the process that writes the files, export the best epoch and evaluate it on test."""
    from skincare.evaluation import metrics
    from skincare.training import tracking, training_run
    from skincare.training.run_outputs import RunOutputs

    trainer = training_run.prepare(spec, layout, folders.working_name, world, stop, resumes=config.resume)
    # Only now, when the new run is able to start, may an unfinished one be removed.
    if policy in ("restart", "overwrite"):
        run_folders.clear(layout, folders)
    world.barrier()
    if config.resume and not trainer.resume(config.micro_batch_size):
        logger.info("no checkpoint to resume from: starting at the beginning")
    outputs, previous_id = RunOutputs(layout, folders), trainer.progress.tracking_id
    tracker = tracking.make_tracker(config.wandb_project, folders.name, to_plain(config), layout, previous_id)
    trainer.progress.tracking_id = tracker.run_id or previous_id

    def on_epoch(result: "EpochResult") -> None:
        outputs.record_epoch(trainer, result)
        tracker.epoch(result)

    stop_reason = trainer.run(on_epoch)
    results = training_run.results(trainer, folders.name, stop_reason)
    trainer.release()
    export = training_run.export(trainer, layout.finetuned_model(folders.working_name))
    check, scores = outputs.evaluate(trainer, export)
    results = {**results, "export": check}
    runlog.remove_summary("finetune", layout)
    run_folders.publish(layout, folders)
    tracker.finish({**results, "test_accuracy": scores.accuracy})
    world.barrier()
    anls = trainer.progress.best_document_anls
    selected = "" if anls is None else f" by the document ANLS* on val ({anls:.3f})"
    return Summary(
        headline=f"best epoch {trainer.progress.best_epoch} of {trainer.progress.epoch}{selected}, "
        f"{metrics.headline(scores)} on test",
        counts={f"{split} images": len(getattr(spec.data, split)) for split in ("train", "val", "test")},
        results=results,
    )


def _plan(config: Config, layout: Layout) -> Summary:
    from skincare.training import planning, run_spec

    try:
        data = run_spec.read_data(config, layout)
    except MissingInputError:
        data = run_spec.no_data(layout)
    return planning.plan_run(run_spec.make_spec(config, config.recipe, config.seed, data), layout)


def _list_recipes() -> Summary:
    for name, recipe in RECIPES.items():
        logger.info("%-24s %s", name, recipe.description)
    return Summary(headline=f"{len(RECIPES)} recipes")


def main() -> None:
    """Run the stage from the command line."""
    stage.main("finetune", Config, run)


if __name__ == "__main__":
    main()

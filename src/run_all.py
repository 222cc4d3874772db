"""Run all stages in order, and stop at the first that fails.

In: the catalogue.
Out: everything that the stages write; the report's headline is printed last.
Command: python src/run_all.py --sample   (the embedded shop and model, under sample_run/)
         python src/run_all.py --sample --target product   (packs with full labels, under sample_product/)
         python src/run_all.py            (the real shop and Qwen/Qwen2-VL-2B, in the repository's own folders)
Time: about 5 minutes for the sample on two cores.

After an interruption the same command continues: scrape.py fetches nothing twice, finetune.py resumes the training run.
"""

import logging
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import tyro

from skincare import runlog, stage
from skincare.errors import StageError
from skincare.paths import REPOSITORY, TINY_MODEL, Layout
from skincare.product import store
from skincare.prompts import Target
from skincare.runlog import Summary
from skincare.sample.shop import serve, stock
from skincare.training import run_folders

logger = logging.getLogger(__name__)

StageName = Literal[
    "scrape",
    "clean",
    "read_text",
    "product_facts",
    "build_dataset",
    "baselines",
    "make_tiny_model",
    "zero_shot",
    "finetune",
    "fuse",
    "score_products",
    "explain",
    "ablations",
    "report",
]
STAGES: Final[dict[Target, tuple[StageName, ...]]] = {
    "category": (
        "scrape", "clean", "read_text", "build_dataset", "baselines", "zero_shot", "finetune", "fuse", "explain",
        "ablations", "report",
    ),
    "product": (
        "scrape", "clean", "read_text", "product_facts", "build_dataset", "zero_shot", "finetune", "fuse",
        "score_products", "report",
    ),
}  # fmt: skip
# What the names of the sample's products state, without the brand: the embedded model cannot read it.
_SAMPLE_FIELDS: Final = ("category", "size", "forNightOrMorning")


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """Options of the stage."""

    sample: bool = False
    """Use the embedded shop and tiny model; the root is sample_run/ or sample_product/ unless --root is given."""
    target: Target = "category"
    """What the model answers with: the category, or the product as JSON."""
    fields: tuple[str, ...] | None = None
    """Fields of the product that are answered, as of build_dataset.py; all if left out, three with --sample."""
    model: str | None = None
    """Model of the Hugging Face hub, or a local folder; the stages' default if left out, the embedded with --sample."""
    recipe: str = "reference"
    """Recipe for finetune.py; --sample uses its own."""
    max_epochs: int | None = None
    """Highest number of epochs of finetune.py; that of the recipe if left out, 8 with --sample --target product."""
    first: StageName = "scrape"
    """Stage to begin with; the outputs of earlier stages are used unchanged."""
    plan: Annotated[bool, tyro.conf.arg(aliases=("--list",))] = False
    """Show the stages in order, and exit."""

    @property
    def writes_summary(self) -> bool:
        """Return whether stages are run."""
        return not self.plan

    @property
    def layout(self) -> Layout:
        """Return the layout below the root; the sample never mixes with real data by default."""
        if self.sample and self.root == REPOSITORY:
            return Layout(REPOSITORY / ("sample_product" if self.target == "product" else "sample_run"))
        return super().layout


def run(config: Config, layout: Layout) -> Summary:
    """Run the stages one after another, each in its own process."""
    if config.sample and config.labels:
        raise StageError("--sample sells skincare products, which other --labels do not name: leave one of the two out")
    if config.fields is not None:
        store.check_fields(config.fields)
        if config.target != "product":
            raise StageError("--fields needs --target product")
    stages = stages_of(config)
    if config.plan:
        for name in stages:
            logger.info("python src/%s.py", name)
        return Summary(headline=f"{len(stages)} stages, none was run", counts={"stages": len(stages)})
    runlog.remove_summary("run_all", layout)
    has_shop = config.sample and "scrape" in stages
    shop = serve(stock(layout, 0, has_full_labels=config.target == "product")) if has_shop else nullcontext("")
    with shop as shop_url:
        for name in stages:
            _run_stage(name, [*stage_options(name, config, layout, shop_url), *shared_options(layout)])
    return Summary(headline=f"{len(stages)} stages; open {layout.report_html}", counts={"stages": len(stages)})


def stages_of(config: Config) -> tuple[StageName, ...]:
    """Return the stages to run; StageError if the target does not have the first one."""
    stages = STAGES[config.target]
    if config.sample and config.target == "product":
        i = stages.index("zero_shot")
        stages = (*stages[:i], "make_tiny_model", *stages[i:])
    if config.first not in stages:
        raise StageError(f"--first {config.first} is none of the stages of this run: {', '.join(stages)}")
    return stages[stages.index(config.first) :]


def shared_options(layout: Layout) -> list[str]:
    """Return the options common to all stages."""
    return ["--root", str(layout.root), *(["--labels", str(layout.labels)] if layout.labels else [])]


def stage_options(name: StageName, config: Config, layout: Layout, shop_url: str) -> list[str]:
    """Return the command-line options of a stage."""
    is_product = config.target == "product"
    name_of_model = str(layout.tiny_product_model if is_product else TINY_MODEL) if config.sample else config.model
    model = ["--model", name_of_model] if name_of_model else []
    recipe = "sample" if config.sample else config.recipe
    # 36 tokens: the image size that the tiny model was trained with.
    pixels = ["--min-tokens", "36", "--max-tokens", "36"] if config.sample else []
    fields = config.fields or (_SAMPLE_FIELDS if config.sample else ())
    dataset = ["--target", "product", *(["--fields", *fields] if fields else [])]
    # Longer answers: the epochs of the recipe would take more than the sample's five minutes.
    max_epochs = config.max_epochs or (8 if config.sample and is_product else None)
    options: dict[StageName, list[str]] = {
        "scrape": ["--shop-url", shop_url, "--delay-s", "0"] if config.sample else [],
        # Drawn packs have no small print, and fewer pixels take a third of the time.
        "read_text": ["--detection-px", "100000"] if config.sample else [],
        "build_dataset": dataset if is_product else [],
        "baselines": [*model, *pixels],
        "make_tiny_model": ["--target", "product"],
        "zero_shot": [*model, *pixels],
        "finetune": [*model, "--recipe", recipe, *pixels, *(["--max-epochs", str(max_epochs)] if max_epochs else [])],
    }
    if name == "ablations":
        # Evaluated after finetune.py, which chooses the name of its run.
        return ["--model", str(layout.finetuned_model(runlog.last_training_run(layout))), *pixels]
    if run_folders.is_resumable(layout, "", recipe, seed=0):
        options["finetune"].append("--resume")
    elif config.sample:
        options["finetune"].append("--overwrite")
    return options.get(name, [])


def _run_stage(name: StageName, options: list[str]) -> None:
    logger.info("")
    logger.info("--- %s %s", name, " ".join(options))
    finished = subprocess.run([sys.executable, str(REPOSITORY / "src" / f"{name}.py"), *options], check=False)
    if finished.returncode:
        error = StageError(f"{name}.py ended with exit code {finished.returncode}; its messages are above")
        error.exit_code = max(finished.returncode, 1)
        raise error


def main() -> None:
    """Run the stage from the command line."""
    stage.main("run_all", Config, run)


if __name__ == "__main__":
    main()

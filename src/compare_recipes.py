"""Train several recipes with several seeds on the same split and compare their results.

In: clean_dataset/{train,val,test}.json, a model of the hub or a folder.
Out: log/recipe_comparison.csv (one row per recipe and seed), log/compare_recipes.json (means and standard deviations),
plots/recipe_comparison.png. Models are not kept.
Command: python src/compare_recipes.py --recipes reference,tuned,tuned-head,best --seeds 0,1,2
Time: that of a finetune.py run per recipe and seed. After an interruption the same command continues.

A stored result is reused only for the same data, model and settings; otherwise the run is trained again.

Recipes are selected on val; the accuracy on test shows what the selection is worth and must not be used to select. A
recipe differs from the first one if the interval of its difference on val, paired by seed, does not contain 0.
"""

import logging
from dataclasses import dataclass

from skincare import runlog, stage
from skincare.errors import StageError
from skincare.paths import Layout
from skincare.prompts import target_of
from skincare.runlog import Summary
from skincare.training.recipes import get_recipe
from skincare.training.run_settings import RunSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config(RunSettings, stage.StageConfig):
    """Options of the stage."""

    recipes: str = "reference,tuned,tuned-head,best"
    """Recipes to compare with the first one, separated by commas; finetune.py --list-recipes shows them."""
    seeds: str = "0,1,2"
    """Seeds to train each recipe with, separated by commas."""
    restart: bool = False
    """Delete the results of earlier comparisons."""

    def resume_hint(self, layout: Layout) -> str:
        """Return the command that continues; --restart would delete what this comparison has finished."""
        del layout
        return f"continue with `{runlog.command(leave_out=('--restart',))}`"


def run(config: Config, layout: Layout) -> Summary:
    """Train the runs that have no stored result, then write and draw the table."""
    names, seeds = _names(config), _seeds(config)
    for name in names:
        get_recipe(name)  # a usage error is reported before anything is imported or read
    # Importing torch, transformers and peft takes seconds, which --help must not wait for.
    from skincare.tables import COMPARISON
    from skincare.training import recipe_comparison, run_spec, training_plots, training_run

    for name in names:
        training_run.check_requirements(config, run_spec.recipe_with_overrides(name, config))
    data = run_spec.read_data(config, layout)
    if target_of(data.labels) == "product":
        logger.warning("structured answers: epochs are selected by ANLS*, the table shows the accuracy of the category")
    specs = [run_spec.make_spec(config, name, seed, data) for name in names for seed in seeds]
    runs = recipe_comparison.identify(specs)
    if config.restart:
        recipe_comparison.delete_results(layout)
    rows = [recipe_comparison.result(one, layout) for one in runs]
    recipe_comparison.log_unfinished(layout)
    runlog.remove_summary("compare_recipes", layout)
    COMPARISON.write(layout.comparison_table, rows)
    table = recipe_comparison.summarise(rows)
    training_plots.draw_recipe_comparison(table, len(data.test), layout.plot("recipe_comparison"))
    differences = recipe_comparison.differences(rows)
    for line in (*recipe_comparison.describe(table), *recipe_comparison.describe_differences(differences)):
        logger.info("%s", line)
    best = max(table, key=lambda one: one["val_mean"])
    return Summary(
        headline=f"{len(names)} recipes x {len(seeds)} seeds; best on val: {best['recipe']}, "
        f"{best['val_mean']:.1%} on val, {best['test_mean']:.1%} on test (n = {len(data.test)})",
        counts={"runs": len(rows)},
        results={"recipes": table, "differences": differences, "n_val": len(data.val), "n_test": len(data.test)},
    )


def _names(config: Config) -> list[str]:
    names = [name.strip() for name in config.recipes.split(",") if name.strip()]
    if not names:
        raise StageError("--recipes must name at least one recipe")
    return names


def _seeds(config: Config) -> list[int]:
    try:
        return [int(seed) for seed in config.seeds.split(",")]
    except ValueError as error:
        raise StageError(f"--seeds must be whole numbers separated by commas, not {config.seeds!r}") from error


def main() -> None:
    """Run the stage from the command line."""
    stage.main("compare_recipes", Config, run)


if __name__ == "__main__":
    main()

"""The specification of a run: its settings, recipe and seed, and the data that it trains on."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from skincare.dataset.chat import Example, target_of_examples
from skincare.dataset.dataset_source import image_files, read_parts
from skincare.dataset.image_files import FolderImages, ImageFiles
from skincare.errors import StageError
from skincare.labels import Labels, labels_of
from skincare.paths import Layout
from skincare.prompts import labels_for, target_of
from skincare.training import sampling
from skincare.training.recipes import Recipe, get_recipe
from skincare.training.run_settings import RunSettings


@dataclass(frozen=True)
class SplitDataset:
    """The examples of each split, the files of their images, and the labels."""

    train: Sequence[Example]
    val: Sequence[Example]
    test: Sequence[Example]
    files: ImageFiles
    labels: Labels


@dataclass(frozen=True)
class RunSpec:
    """Everything that a training run is made from; `data.train` is the recipe's share of the training images."""

    settings: RunSettings
    recipe_name: str
    recipe: Recipe
    seed: int
    data: SplitDataset


def read_data(settings: RunSettings, layout: Layout) -> SplitDataset:
    """Return the dataset that the settings name; raise MissingInputError if there is none."""
    parts = read_parts(settings.dataset, layout)
    target = target_of_examples(one for part in parts.values() for one in part)
    files, labels = image_files(settings.dataset, layout), labels_for(target, labels_of(layout))
    return SplitDataset(parts["train"], parts["val"], parts["test"], files, labels)


def no_data(layout: Layout) -> SplitDataset:
    """Return an empty dataset, for the plan of a run whose dataset does not exist yet."""
    return SplitDataset((), (), (), FolderImages(layout.root), labels_of(layout))


def make_spec(settings: RunSettings, recipe_name: str, seed: int, data: SplitDataset) -> RunSpec:
    """Return a specification with the recipe as the settings change it and the recipe's share of the data."""
    recipe = recipe_with_overrides(recipe_name, settings)
    if recipe.head != "none" and target_of(data.labels) == "product":
        raise StageError(
            f"The head of the recipe {recipe_name} predicts labels, not structured answers; choose another"
        )
    train = sampling.subsample(data.train, recipe.data_share, seed)
    return RunSpec(settings, recipe_name, recipe, seed, dataclasses.replace(data, train=train))


def recipe_with_overrides(name: str, settings: RunSettings) -> Recipe:
    """Return a recipe with the epochs and the learning rate of the settings, if given.

    Raises StageError for an unknown recipe or a learning rate that is not positive.
    """
    changes = {key: getattr(settings, key) for key in ("max_epochs", "learning_rate")}
    recipe = dataclasses.replace(get_recipe(name), **{key: v for key, v in changes.items() if v is not None})
    if not recipe.learning_rate > 0:
        raise StageError(f"--learning-rate must be positive, not {recipe.learning_rate}")
    return recipe

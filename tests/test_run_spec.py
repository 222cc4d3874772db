"""A run's specification: the recipe as the settings change it, and its share of the training data."""

import pytest

from skincare.errors import MissingInputError, StageError
from skincare.paths import Layout
from skincare.training import run_spec
from skincare.training.recipes import RECIPES
from skincare.training.run_settings import RunSettings
from tests.dataset_helpers import write_dataset_files


def test_settings_override_epochs_and_learning_rate_only():
    found = run_spec.recipe_with_overrides("tuned", RunSettings(max_epochs=2, learning_rate=1e-3))
    assert (found.max_epochs, found.learning_rate) == (2, 1e-3)
    assert run_spec.recipe_with_overrides("tuned", RunSettings()) == RECIPES["tuned"]


@pytest.mark.parametrize("value", [0.0, -1e-5, float("nan")])
def test_a_learning_rate_that_is_not_positive_is_rejected(value):
    with pytest.raises(StageError, match="--learning-rate must be positive"):
        run_spec.recipe_with_overrides("sample", RunSettings(learning_rate=value))


def test_the_specification_holds_the_recipes_share_of_the_training_data_only(tmp_path):
    layout = Layout(tmp_path)
    with pytest.raises(MissingInputError):
        run_spec.read_data(RunSettings(), layout)
    write_dataset_files(layout, {"train": 30, "val": 4, "test": 3})
    data = run_spec.read_data(RunSettings(), layout)
    whole, quarter = (run_spec.make_spec(RunSettings(), name, 0, data) for name in ("sample", "sample-quarter"))
    assert [len(part) for part in (whole.data.train, whole.data.val, whole.data.test)] == [30, 4, 3]
    # Of 30 images in 14 categories, a quarter of each, rounded up.
    assert [len(part) for part in (quarter.data.train, quarter.data.val, quarter.data.test)] == [14, 4, 3]

"""Recipes are compared on the same split, stored results are reused, interrupted runs are resumed."""

import dataclasses
import json
import shutil

import pytest
import scipy.stats

import compare_recipes
from skincare.errors import StageError
from skincare.paths import TINY_MODEL, Layout
from skincare.tables import COMPARISON, ComparisonRow
from skincare.training import recipe_comparison, training_plots, training_run
from skincare.training.loop import Trainer
from skincare.training.run_settings import RunSettings
from tests.dataset_helpers import write_dataset_files


@pytest.fixture
def layout(tmp_path, monkeypatch):
    found = Layout(tmp_path)
    write_dataset_files(found, {"train": 8, "val": 4, "test": 4})
    return found


def config(layout, **changes):
    settings = {"model": str(TINY_MODEL), "recipes": "sample,sample-probe", "seeds": "0,1", "min_tokens": 36,
                "max_tokens": 36, "max_epochs": 1, "micro_batch_size": 8}  # fmt: skip
    return compare_recipes.Config(root=layout.root, **{**settings, **changes})


def test_there_is_a_row_per_recipe_and_seed_and_no_model_is_kept(layout):
    summary = compare_recipes.run(config(layout), layout)
    rows = COMPARISON.read(layout.comparison_table)
    assert [(row.recipe, row.seed) for row in rows] == [
        ("sample", 0),
        ("sample", 1),
        ("sample-probe", 0),
        ("sample-probe", 1),
    ]
    assert rows[0].n_trainable > 100 * rows[2].n_trainable
    assert all(row.peak_bytes > 2**20 for row in rows)
    # Nothing is rounded in an fp32 checkpoint.
    assert all(row.exported_val_accuracy == row.val_accuracy for row in rows)
    assert len(summary.results["recipes"]) == 2
    assert layout.plot("recipe_comparison").read_bytes().startswith(b"\x89PNG")
    assert not list(layout.finetuned_model("").glob("*"))


def test_stored_results_are_reused(layout, monkeypatch):
    monkeypatch.setattr(training_plots, "draw_recipe_comparison", lambda *_: None)
    compare_recipes.run(config(layout), layout)
    first = layout.comparison_table.read_bytes()
    prepared = []
    original = training_run.prepare
    monkeypatch.setattr(training_run, "prepare", lambda spec, *a: prepared.append(spec.seed) or original(spec, *a))
    compare_recipes.run(config(layout), layout)
    assert prepared == []
    assert layout.comparison_table.read_bytes() == first
    compare_recipes.run(config(layout, recipes="sample", seeds="0,2"), layout)
    assert prepared == [2], "just the new seed"
    compare_recipes.run(config(layout, recipes="sample", seeds="0", learning_rate=1e-4), layout)
    assert prepared == [2, 0], "other settings are another run"
    compare_recipes.run(config(layout), layout)
    assert prepared == [2, 0], "the first results are still stored"


@pytest.fixture
def trained(monkeypatch):
    """The runs that would be trained: (recipe name, seed, val examples); training is replaced."""
    found = []

    def train(run, layout):
        spec = run.spec
        found.append((spec.recipe_name, spec.seed, [example.image_id for example in spec.data.val]))
        row = ComparisonRow(spec.recipe_name, spec.seed, 0.5, 0.4, 0.3, 0.5, 0.35, 2, 3, 10, 5.0, 100)
        return dataclasses.replace(row, test_accuracy=0.01 * len(found))

    monkeypatch.setattr(training_plots, "draw_recipe_comparison", lambda *_: None)
    monkeypatch.setattr(recipe_comparison, "train", train)
    return found


def test_results_of_another_dataset_are_reported_and_trained_again(layout, trained, caplog):
    caplog.set_level("INFO")
    settings = config(layout, recipes="sample", seeds="0")
    compare_recipes.run(settings, layout)
    compare_recipes.run(settings, layout)
    assert len(trained) == 1
    write_dataset_files(layout, {"train": 8, "val": 4, "test": 4}, first=40)
    compare_recipes.run(settings, layout)
    assert len(trained) == 2
    assert "trained again" in caplog.text
    assert "has other data (train, val), test" in caplog.text
    assert COMPARISON.read(layout.comparison_table)[0].test_accuracy == 0.02


def test_a_changed_image_of_the_same_name_is_other_data(layout, trained):
    settings = config(layout, recipes="sample", seeds="0")
    compare_recipes.run(settings, layout)
    first, second, *_ = sorted(layout.clean_images.iterdir())
    first.write_bytes(second.read_bytes())
    compare_recipes.run(settings, layout)
    assert len(trained) == 2


def test_a_copied_model_is_the_same_run(layout, trained, tmp_path):
    settings = config(layout, recipes="sample", seeds="0")
    compare_recipes.run(settings, layout)
    elsewhere = shutil.copytree(TINY_MODEL, tmp_path / "copy")
    compare_recipes.run(dataclasses.replace(settings, model=str(elsewhere)), layout)
    assert len(trained) == 1


def test_every_setting_is_part_of_the_identity_of_a_compared_run():
    learned = {"model", "max_epochs", "learning_rate", "min_tokens", "max_tokens", "dataset"}
    settings = {field.name for field in dataclasses.fields(RunSettings)}
    assert settings - learned == set(recipe_comparison._EXECUTION_SETTINGS)


def test_a_result_holds_for_its_settings_decoder_and_identity_only(layout, trained, monkeypatch):
    settings = config(layout, recipes="sample", seeds="0")
    compare_recipes.run(settings, layout)
    compare_recipes.run(dataclasses.replace(settings, micro_batch_size=4), layout)
    assert len(trained) == 2
    (path, *_), known = sorted(layout.comparison_results.glob("*.json")), len(trained)
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "identity": {**stored["identity"], "seed": 9}}))
    for micro_batch_size in (8, 4):
        compare_recipes.run(dataclasses.replace(settings, micro_batch_size=micro_batch_size), layout)
    assert len(trained) == known + 1, "the result with another identity under its name"
    monkeypatch.setattr(recipe_comparison.decoders, "VERSION", "another")
    compare_recipes.run(settings, layout)
    assert len(trained) == known + 2


def test_an_interrupted_comparison_does_not_block_other_settings(layout, monkeypatch, caplog):
    caplog.set_level("INFO")
    settings = config(layout, recipes="sample", seeds="0", max_epochs=2)
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_train_epoch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            compare_recipes.run(settings, layout)
    monkeypatch.setattr(training_plots, "draw_recipe_comparison", lambda *_: None)
    compare_recipes.run(dataclasses.replace(settings, max_epochs=1), layout)
    assert "unfinished with other settings or data: sample-seed0-" in caplog.text
    compare_recipes.run(settings, layout)
    assert "resuming after epoch 0" in caplog.text


def test_restart_removes_the_files_of_comparisons_only(layout, trained):
    compare_recipes.run(config(layout, recipes="sample", seeds="0"), layout)
    users = layout.finetuned_model("compare-mine")
    users.mkdir(parents=True)
    with pytest.raises(StageError):
        compare_recipes.run(config(layout, recipes="sample", seeds="0", restart=True, model="no/such"), layout)
    assert list(layout.comparison_results.iterdir()), "a failing start removes nothing"
    compare_recipes.run(config(layout, recipes="sample", seeds="0", restart=True), layout)
    assert len(trained) == 2
    assert users.is_dir()


def test_after_ctrl_c_the_command_has_no_restart(layout, monkeypatch):
    monkeypatch.setattr("sys.argv", ["src/compare_recipes.py", "--restart", "--seeds", "0"])
    assert config(layout).resume_hint(layout) == "continue with `python src/compare_recipes.py --seeds 0`"


def test_means_and_standard_deviations_are_over_seeds():
    row = ComparisonRow("a", 0, 0.5, 0.4, 0.3, 0.5, 0.35, 2, 3, 10, 5.0, 100)
    rows = [row, dataclasses.replace(row, seed=1, val_accuracy=0.7, test_accuracy=0.6, peak_bytes=300)]
    table = recipe_comparison.summarise([*rows, dataclasses.replace(row, recipe="b")])
    assert [one["recipe"] for one in table] == ["a", "b"]
    assert table[0]["val_mean"] == pytest.approx(0.6)
    assert table[0]["val_spread"] == pytest.approx(0.1 * 2**0.5)
    assert table[0]["peak_bytes"] == 300
    assert table[1]["test_spread"] == 0


def test_differences_are_paired_by_seed_and_have_t_intervals():
    row = ComparisonRow("a", 0, 0.5, 0.4, 0.3, 0.5, 0.35, 2, 3, 10, 5.0, 100)
    values = {"a": (0.5, 0.7, 0.6), "b": (0.6, 0.8, 0.72), "c": (0.4, 0.8), "d": (0.4, 0.6, 0.48)}
    rows = [
        dataclasses.replace(row, recipe=name, seed=seed, val_accuracy=value)
        for name, accuracies in values.items()
        for seed, value in enumerate(accuracies)
    ]
    # A seed that only one of the recipes has forms no pair.
    b, c, d = recipe_comparison.differences([*rows, dataclasses.replace(row, recipe="c", seed=7)])
    expected = scipy.stats.ttest_rel(values["b"], values["a"]).confidence_interval(0.95)
    assert (b["val_low"], b["val_high"]) == pytest.approx((expected.low, expected.high))
    assert (b["recipe"], b["minus"], b["n_seeds"], b["is_decided"]) == ("b", "a", 3, True)
    assert (c["n_seeds"], c["val_difference"], c["is_decided"]) == (2, pytest.approx(0.0), False)
    assert (d["val_difference"] < 0, d["is_decided"]) == (True, True)
    assert (b["test_difference"], b["test_low"]) == (0, None), "equal differences show no spread"
    first, second = recipe_comparison.describe_differences([b, c])
    assert first.endswith(": decided")
    assert second.endswith("not decided")
    (single,) = recipe_comparison.differences([rows[0], rows[3]])
    assert (single["val_difference"], single["val_low"], single["is_decided"]) == (pytest.approx(0.1), None, False)
    assert recipe_comparison.describe_differences([single]) == []


@pytest.mark.parametrize("changes", [{"recipes": "sample,nonsense"}, {"recipes": " ,"}, {"seeds": "0,x"}])
def test_usage_errors_are_found_before_the_first_run(layout, changes, monkeypatch):
    monkeypatch.setattr(training_run, "prepare", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(StageError):
        compare_recipes.run(config(layout, **changes), layout)

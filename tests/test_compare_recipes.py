"""Recipes are compared on the same split, go on where they were, and are chosen by val."""

import dataclasses

import pytest

import compare_recipes
from skincare import figures
from skincare.errors import StageError
from skincare.paths import TINY_MODEL, Layout
from skincare.tables import COMPARISON, ComparisonRow
from skincare.training import finetuning
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
    assert len(summary.results["recipes"]) == 2
    assert layout.plot("recipe_comparison").read_bytes().startswith(b"\x89PNG")
    assert not list(layout.finetuned_model("").glob("*"))


def test_what_is_trained_already_is_not_trained_again(layout, monkeypatch):
    monkeypatch.setattr(figures, "draw_recipe_comparison", lambda *_: None)
    compare_recipes.run(config(layout), layout)
    first = layout.comparison_table.read_bytes()
    prepared = []
    original = finetuning.prepare
    monkeypatch.setattr(finetuning, "prepare", lambda *a, **k: prepared.append(a[2]) or original(*a, **k))
    compare_recipes.run(config(layout), layout)
    assert prepared == []
    assert layout.comparison_table.read_bytes() == first
    compare_recipes.run(config(layout, recipes="sample", seeds="0,2"), layout)
    assert prepared == [2], "just the new seed"
    compare_recipes.run(config(layout, recipes="sample", seeds="0", learning_rate=1e-4), layout)
    assert prepared == [2, 0], "other settings are another run"


def test_means_and_spreads_are_over_seeds():
    row = ComparisonRow("a", 0, 0.5, 0.4, 0.3, 0.5, 0.35, 2, 3, 10, 5.0, 100)
    rows = [row, dataclasses.replace(row, seed=1, val_accuracy=0.7, test_accuracy=0.6, peak_bytes=300)]
    table = compare_recipes.summarise([*rows, dataclasses.replace(row, recipe="b")])
    assert [one["recipe"] for one in table] == ["a", "b"]
    assert table[0]["val_mean"] == pytest.approx(0.6)
    assert table[0]["val_spread"] == pytest.approx(0.1 * 2**0.5)
    assert table[0]["peak_bytes"] == 300
    assert table[1]["test_spread"] == 0


@pytest.mark.parametrize("changes", [{"recipes": "sample,nonsense"}, {"seeds": "0,x"}])
def test_mistakes_are_found_before_the_first_run(layout, changes, monkeypatch):
    monkeypatch.setattr(finetuning, "prepare", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(StageError):
        compare_recipes.run(config(layout, **changes), layout)

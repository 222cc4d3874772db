"""A resumed run gives equal weights; the best epoch is exported; checkpoints of other runs are rejected."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

import finetune
from skincare import stage
from skincare.errors import StageError
from skincare.modeling.loading import load_model
from skincare.paths import TINY_MODEL, Layout
from skincare.tables import HISTORY
from skincare.training import checkpoints
from skincare.training.loop import Trainer
from skincare.training.recipes import RECIPES
from skincare.training.run_outputs import RunOutputs
from tests.dataset_helpers import write_dataset_files
from tests.plots import replace_training_plots

SIZES = {"train": 10, "val": 4, "test": 4}


@pytest.fixture(autouse=True)
def no_plots(request, monkeypatch):
    """Skip the plots, which take longer than these small runs, except in the test of plots."""
    if "plots" not in request.function.__name__:
        replace_training_plots(monkeypatch)


@pytest.fixture
def layout(tmp_path):
    found = Layout(tmp_path / "root")
    write_dataset_files(found, SIZES)
    return found


def config(layout, **changes):
    settings = {"model": str(TINY_MODEL), "recipe": "sample", "run": "r", "min_tokens": 36, "max_tokens": 36,
                "max_epochs": 3, "micro_batch_size": 4}  # fmt: skip
    return finetune.Config(root=layout.root, **{**settings, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, only read by the tests."""
    found = Layout(tmp_path_factory.mktemp("finished"))
    write_dataset_files(found, SIZES)
    with pytest.MonkeyPatch.context() as patched:
        replace_training_plots(patched)
        finetune.run(config(found), found)
    return found


def weights(layout, run="r"):
    return load_file(layout.finetuned_model(run) / "model.safetensors")


def history(layout, run="r"):
    """The history of a run, without times."""
    return [dataclasses.replace(row, seconds=0.0) for row in HISTORY.read(layout.finetune_log(run) / "history.csv")]


def assert_same_run(layout, one, other):
    first, second = weights(layout, one), weights(layout, other)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
    assert history(layout, one) == history(layout, other)
    answers = [(layout.finetune_log(run) / "test_metrics.json").read_text() for run in (one, other)]
    assert answers[0] == answers[1]


def test_equal_seeds_give_equal_weights_and_other_seeds_do_not(layout):
    finetune.run(config(layout, run="a"), layout)
    finetune.run(config(layout, run="b"), layout)
    assert_same_run(layout, "a", "b")
    finetune.run(config(layout, run="c", seed=1), layout)
    assert history(layout, "c") != history(layout, "a")


def test_a_run_resumed_after_any_step_gives_equal_weights(layout, monkeypatch):
    finetune.run(config(layout, run="uninterrupted"), layout)
    original, n_taken = Trainer._step, 0

    def step(self, examples):
        nonlocal n_taken
        if n_taken == n_steps:
            raise KeyboardInterrupt
        n_taken += 1
        return original(self, examples)

    for n_steps in (1, 2, 3, 5):
        n_taken, run = 0, f"resumed_{n_steps}"
        monkeypatch.setattr(Trainer, "_step", step)
        with pytest.raises(KeyboardInterrupt):
            finetune.run(config(layout, run=run), layout)
        monkeypatch.setattr(Trainer, "_step", original)
        finetune.run(config(layout, run=run, resume=True), layout)
        assert_same_run(layout, "uninterrupted", run)


def test_the_best_epoch_is_exported_not_the_last(layout):
    summary = finetune.run(config(layout, learning_rate=0.3, max_epochs=4), layout)
    rows = history(layout)
    best = max(rows, key=lambda row: (row.val_accuracy, -row.val_loss))
    assert summary.results["best_epoch"] == best.epoch < rows[-1].epoch


def test_the_export_loads_with_from_pretrained_and_holds_the_best_weights(finished):
    folder = finished.finetuned_model("r")
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    assert processor.image_processor.size["longest_edge"] == 36 * 784
    trained = load_file(checkpoints.latest_state(finished.training_state("r"), "best") / "trained.safetensors")
    loaded = dict(model.named_parameters())
    for name, tensor in trained.items():
        assert torch.equal(loaded[name], tensor), name


def test_only_the_trainable_modules_change(finished):
    before = load_model(TINY_MODEL, torch.device("cpu")).state_dict()
    after = load_model(finished.finetuned_model("r"), torch.device("cpu")).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    promised = ("model.visual.blocks.3.", "model.visual.merger.", "model.language_model.layers.3.")
    assert changed
    assert all(name.startswith(promised) for name in changed)
    assert all(any(name.startswith(one) for name in changed) for one in promised)


def test_early_stopping_ends_a_run(layout, monkeypatch):
    monkeypatch.setitem(RECIPES, "sample", dataclasses.replace(RECIPES["sample"], patience_epochs=1))
    summary = finetune.run(config(layout, learning_rate=1e-12, max_epochs=9), layout)
    assert summary.results["stop_reason"] == "patience"
    assert summary.results["n_epochs"] < 9


def test_an_interrupted_run_is_discarded_only_with_restart(layout, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trainer, "_train_epoch", lambda self, bar: (_ for _ in ()).throw(KeyboardInterrupt))
        finetune.run(config(layout), layout)
    with pytest.raises(StageError, match="--resume"):
        finetune.run(config(layout), layout)
    finetune.run(config(layout, restart=True), layout)


def test_a_checkpoint_of_other_data_or_recipe_is_rejected(layout, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(RunOutputs, "evaluate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        finetune.run(config(layout), layout)
    with pytest.raises(StageError, match="other recipe"):
        finetune.run(config(layout, resume=True, learning_rate=1e-4), layout)
    write_dataset_files(layout, SIZES, first=40)
    with pytest.raises(StageError, match="other data"):
        finetune.run(config(layout, resume=True), layout)


@pytest.fixture
def other_language_model(tmp_path):
    """The same model except for one tensor of a frozen language layer."""
    folder = shutil.copytree(TINY_MODEL, tmp_path / "other")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "layers.0.mlp" in name)
    tensors[name] *= 1.01
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_run_is_not_resumed_with_another_model_or_processor(layout, monkeypatch, other_language_model):
    with monkeypatch.context() as patched:
        patched.setattr(RunOutputs, "evaluate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            finetune.run(config(layout), layout)
    with pytest.raises(StageError, match=r"other model \(weights\)\. "):
        finetune.run(config(layout, resume=True, model=str(other_language_model)), layout)
    with pytest.raises(StageError, match=r"other processor \(size"):
        finetune.run(config(layout, resume=True, max_tokens=49), layout)
    with pytest.raises(StageError, match=r"other recipe \(max_epochs 3, now 4\), seed 0, now 1\. "):
        finetune.run(config(layout, resume=True, max_epochs=4, seed=1), layout)
    copy = shutil.copytree(TINY_MODEL, other_language_model.parent / "copy")
    finetune.run(config(layout, resume=True, model=str(copy)), layout)


def test_a_given_micro_batch_size_overrides_the_saved_one(layout, monkeypatch, caplog):
    caplog.set_level("INFO")
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_train_epoch", lambda self, bar: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            finetune.run(config(layout, micro_batch_size=8), layout)
    sizes, original = set(), Trainer._accumulate_gradients

    def accumulate(self, examples, micro_batch_size):
        sizes.add(micro_batch_size)
        return original(self, examples, micro_batch_size)

    monkeypatch.setattr(Trainer, "_accumulate_gradients", accumulate)
    finetune.run(config(layout, resume=True, micro_batch_size=1), layout)
    assert sizes == {1}
    assert "1 image(s) per pass instead of the saved 8" in caplog.text


def test_a_damaged_checkpoint_is_reported(layout, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(RunOutputs, "evaluate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        finetune.run(config(layout), layout)
    state = checkpoints.latest_state(layout.training_state("r"), "last")
    (state / "trained.safetensors").write_bytes(b"damaged")
    with pytest.raises(StageError, match="cannot be read"):
        finetune.run(config(layout, resume=True), layout)


def test_only_the_last_and_the_best_checkpoint_are_kept(finished):
    kinds = [path.name.partition("-")[0] for path in finished.training_state("r").iterdir()]
    assert sorted(kinds) == ["best", "last"]


def test_ctrl_c_exits_130_and_leaves_no_summary(layout, monkeypatch):
    monkeypatch.setattr(Trainer, "_train_epoch", lambda self, bar: (_ for _ in ()).throw(KeyboardInterrupt))
    assert stage.execute("finetune", config(layout), layout, finetune.run) == 130
    assert not layout.summary("finetune").exists()


def test_results_and_plots_are_written_to_their_documented_paths(layout):
    assert stage.execute("finetune", config(layout), layout, finetune.run) == 0
    for name in ("lr", "val_loss", "val_accuracy", "val_precision", "val_recall", "val_f1", "cm_epoch_3"):
        assert layout.plot(name).read_bytes().startswith(b"\x89PNG"), name
    results = json.loads(layout.summary("finetune").read_text())["results"]
    assert results["trainable_modules"] == [
        "model.visual.blocks.3",
        "model.visual.merger",
        "model.language_model.layers.3",
    ]
    assert Path(layout.finetune_log("r") / "val_predictions.jsonl").is_file()


def test_plan_and_list_leave_the_summary_and_log_of_a_run_unchanged(layout):
    assert stage.execute("finetune", config(layout, max_epochs=1), layout, finetune.run) == 0
    record = [path.read_bytes() for path in (layout.summary("finetune"), layout.stage_log("finetune"))]
    for changes in ({"plan": True}, {"list_recipes": True}):
        settings = config(layout, **changes)
        assert stage.execute("finetune", settings, layout, finetune.run) == 0
    assert [path.read_bytes() for path in (layout.summary("finetune"), layout.stage_log("finetune"))] == record
    assert json.loads(layout.finetune_plan.read_text())["micro_batch_size"] == 8


@pytest.mark.parametrize("recipe", ["sample", "sample-merger", "sample-all"])
def test_the_plan_counts_the_images_that_a_run_caches(layout, recipe):
    settings = config(layout, recipe=recipe, max_epochs=1, learning_rate=1e-4)
    finetune.run(dataclasses.replace(settings, plan=True), layout)
    planned = json.loads(layout.finetune_plan.read_text())
    finetune.run(settings, layout)
    assert planned["n_cached_images"] == len(list(layout.vision_cache.rglob("*.safetensors")))
    assert planned["cache_bytes"] == planned["n_cached_images"] * planned["cache_bytes_per_image"]


def test_a_plan_needs_no_dataset(tmp_path):
    empty = Layout(tmp_path)
    finetune.run(config(empty, plan=True), empty)
    assert "cache_bytes" not in json.loads(empty.finetune_plan.read_text())

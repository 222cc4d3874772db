"""Weights & Biases tracks a run only if it is configured; offline files are in log/."""

import dataclasses
import json
import time
from types import SimpleNamespace

import pytest
import wandb

import finetune
from skincare.paths import TINY_MODEL, Layout
from skincare.training import tracking
from skincare.training.loop import Trainer
from tests.dataset_helpers import write_dataset_files
from tests.plots import replace_training_plots


@pytest.fixture(autouse=True)
def nobody_asked(monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


def test_tracking_is_disabled_by_default(tmp_path, monkeypatch):
    assert isinstance(tracking.make_tracker("p", "r", {}, Layout(tmp_path)), tracking.NoTracker)
    monkeypatch.setenv("WANDB_API_KEY", "key")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert isinstance(tracking.make_tracker("p", "r", {}, Layout(tmp_path)), tracking.NoTracker)


def logged_tables(run, name):
    return [json.loads(path.read_text())["data"] for path in run.rglob(f"{name}_*.table.json")]


@pytest.mark.slow
def test_an_offline_run_is_written_to_the_log_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HF_TOKEN", "s3cr3t-value")
    replace_training_plots(monkeypatch)
    layout = Layout(tmp_path)
    examples = write_dataset_files(layout, {"train": 6, "val": 3, "test": 3})
    settings = finetune.Config(
        root=tmp_path, model=str(TINY_MODEL), recipe="sample", run="r", min_tokens=36, max_tokens=36, max_epochs=1
    )
    finetune.run(settings, layout)
    runs = list((tmp_path / "log" / "wandb").glob("offline-run-*"))
    assert len(runs) == 1
    written, latest = b"", time.monotonic() + 20
    # wandb's own process writes the last records a moment after the run has finished.
    while b"val_answers" not in written and time.monotonic() < latest:
        written = b"".join(path.read_bytes() for path in runs[0].rglob("*") if path.is_file())
    for name in (b"val_accuracy", b"learning_rate", b"grad_norm", b"val_confusion", b"val_answers"):
        assert name in written, name
    assert b"s3cr3t" not in written
    # Epochs with the same rows share a file.
    answers, matrices = (logged_tables(runs[0], name) for name in ("val_answers", "val_confusion_table"))
    truths = sorted(one.category for one in examples["val"])
    assert answers
    assert all(sorted(row[1] for row in rows) == truths for rows in answers)
    assert matrices
    assert all(sum(n for _, _, n in rows) == len(truths) for rows in matrices)


def wandb_ids(layout):
    """The ids of all offline runs; a second folder of the same second has a number after its id."""
    return [path.name.split("-")[3] for path in (layout.root / "log" / "wandb").glob("offline-run-*")]


@pytest.mark.slow
def test_a_resumed_run_keeps_its_wandb_id(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    replace_training_plots(monkeypatch)
    layout = Layout(tmp_path)
    write_dataset_files(layout, {"train": 6, "val": 3, "test": 3})
    settings = finetune.Config(
        root=tmp_path, model=str(TINY_MODEL), recipe="sample", run="r", min_tokens=36, max_tokens=36, max_epochs=1
    )
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_train_epoch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            finetune.run(settings, layout)
    wandb.finish()
    finetune.run(dataclasses.replace(settings, resume=True), layout)
    ids = wandb_ids(layout)
    assert len(ids) == 2
    assert len(set(ids)) == 1
    finetune.run(dataclasses.replace(settings, run="other"), layout)
    assert len(set(wandb_ids(layout))) == 2


def test_the_run_id_is_passed_to_wandb(tmp_path, monkeypatch):
    given = []
    monkeypatch.setenv("WANDB_API_KEY", "key")
    monkeypatch.setattr(wandb, "init", lambda **settings: given.append(settings) or SimpleNamespace(id="abc"))
    assert tracking.make_tracker("p", "r", {}, Layout(tmp_path)).run_id == "abc"
    tracking.make_tracker("p", "r", {}, Layout(tmp_path), "abc")
    assert [(one["id"], one["resume"]) for one in given] == [(None, None), ("abc", "allow")]

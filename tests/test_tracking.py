"""Weights & Biases gets what the user asked for, under log/, and nothing where nobody asked."""

import json

import pytest

import finetune
from skincare import figures
from skincare.paths import TINY_MODEL, Layout
from skincare.training import tracking
from tests.dataset_helpers import write_dataset_files


@pytest.fixture(autouse=True)
def nobody_asked(monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


def test_nothing_is_reported_unasked(tmp_path, monkeypatch):
    assert isinstance(tracking.tracker("p", "r", {}, Layout(tmp_path)), tracking.NoTracker)
    monkeypatch.setenv("WANDB_API_KEY", "key")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert isinstance(tracking.tracker("p", "r", {}, Layout(tmp_path)), tracking.NoTracker)


def logged_tables(run, name):
    return [json.loads(path.read_text())["data"] for path in run.rglob(f"{name}_*.table.json")]


@pytest.mark.slow
def test_an_offline_run_is_kept_under_log(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HF_TOKEN", "s3cr3t-value")
    monkeypatch.setattr(figures, "draw_training_curves", lambda *_: None)
    monkeypatch.setattr(figures, "draw_confusion_matrix", lambda *_: None)
    layout = Layout(tmp_path)
    examples = write_dataset_files(layout, {"train": 6, "val": 3, "test": 3})
    settings = finetune.Config(
        root=tmp_path, model=str(TINY_MODEL), recipe="sample", run="r", min_tokens=36, max_tokens=36, max_epochs=1
    )
    finetune.run(settings, layout)
    runs = list((tmp_path / "log" / "wandb").glob("offline-run-*"))
    assert len(runs) == 1
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

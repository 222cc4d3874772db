"""The files of a training run survive a failing start and another run of the same name."""

import importlib
import json
import shutil

import pytest

import finetune
from skincare import stage
from skincare.errors import MissingInputError, StageError
from skincare.paths import TINY_MODEL, Layout
from skincare.training.loop import Trainer
from tests.dataset_helpers import write_dataset_files
from tests.plots import replace_training_plots


@pytest.fixture
def layout(tmp_path, monkeypatch):
    replace_training_plots(monkeypatch, lambda *given: _touch(given[-1]))
    found = Layout(tmp_path / "root")
    write_dataset_files(found, {"train": 8, "val": 4, "test": 4})
    return found


def _touch(path):
    path = path if path.suffix else path / "lr.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(str(path.parent.parent.name).encode())


def config(layout, **changes):
    settings = {"model": str(TINY_MODEL), "recipe": "sample", "run": "r", "min_tokens": 36, "max_tokens": 36,
                "max_epochs": 1, "micro_batch_size": 4}  # fmt: skip
    return finetune.Config(root=layout.root, **{**settings, **changes})


def execute(layout, **changes):
    return stage.execute("finetune", config(layout, **changes), layout, finetune.run)


def outputs(layout):
    """All outputs of a run: its two folders, the plots, the summary."""
    folders = [layout.root / name for name in ("models", "log", "plots")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix != ".log"]
    return {path.relative_to(layout.root).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def other_family(tmp_path):
    folder = shutil.copytree(TINY_MODEL, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    return str(folder)


@pytest.fixture
def without_bitsandbytes(monkeypatch):
    original = importlib.import_module

    def absent(name, *given):
        if name == "bitsandbytes":
            raise ImportError(name)
        return original(name, *given)

    monkeypatch.setattr(importlib, "import_module", absent)


def test_a_failing_start_leaves_a_finished_run_unchanged(layout, other_family, without_bitsandbytes):
    assert execute(layout) == 0
    before = outputs(layout)
    assert "log/finetune.json" in before
    failing = [
        {"model": "no/such"}, {"model": other_family}, {"recipe": "sample-qlora4"}, {"recipe": "sample-adamw8bit"},
        {"recipe": "nonsense"}, {"dataset": str(layout.root / "nowhere")},
    ]  # fmt: skip
    for changes in failing:
        for also in ({}, {"overwrite": True}, {"restart": True}):
            assert execute(layout, **changes, **also) in (1, 2)
            assert outputs(layout) == before, (changes, also)
    assert execute(layout, seed=1) == 1, "another seed under the same name"
    assert outputs(layout) == before
    assert layout.stage_log("finetune").read_text().count("on test") == 1, "the log of the finished run"


def test_a_failing_start_leaves_an_interrupted_run_resumable(layout, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_train_epoch", lambda self, bar: (_ for _ in ()).throw(KeyboardInterrupt))
        assert execute(layout) == 130
    before = outputs(layout)
    with pytest.raises(MissingInputError):
        finetune.run(config(layout, model="no/such", restart=True), layout)
    assert outputs(layout) == before


def test_overwrite_replaces_a_run_only_when_the_new_one_is_finished(layout, monkeypatch):
    assert execute(layout) == 0
    before = outputs(layout)
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_train_epoch", lambda self, bar: (_ for _ in ()).throw(KeyboardInterrupt))
        assert execute(layout, overwrite=True, seed=1) == 130
    now = outputs(layout)
    assert {name: now[name] for name in before} == before
    with pytest.raises(StageError, match="--resume"):
        finetune.run(config(layout, overwrite=True, seed=1), layout)
    assert execute(layout, resume=True, seed=1) == 0
    after = outputs(layout)
    model = "models/finetuned/r/model.safetensors"
    assert after[model] != before[model]
    assert not [name for name in after if ".new" in name or ".old" in name]
    manifest = json.loads(after["log/finetune/r/manifest.json"])
    assert manifest["model"]["source"].endswith("models/finetuned/r")
    assert json.loads(after["log/finetune.json"])["config"]["seed"] == 1
    # The expected result of an uninterrupted run of that name.
    assert execute(layout, run="other", seed=1) == 0
    assert outputs(layout)["models/finetuned/other/model.safetensors"] == after[model]


def test_default_names_never_collide(layout):
    for seed in (0, 1, 0):
        assert execute(layout, run="", seed=seed) == 0
    assert sorted(path.name for path in layout.finetuned_model("").iterdir()) == ["sample", "sample-2", "sample-seed1"]


def test_ctrl_c_prints_the_command_that_continues(layout, monkeypatch, caplog):
    monkeypatch.setattr("sys.argv", ["src/finetune.py", "--run", "my run", "--overwrite"])
    monkeypatch.setattr("skincare.runlog.setup", lambda *_, **__: None)
    monkeypatch.setattr(Trainer, "run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert execute(layout) == 130
    assert (
        "no checkpoint was written yet; start again with `python src/finetune.py --run 'my run' --overwrite`"
        in caplog.text
    )
    monkeypatch.undo()
    monkeypatch.setattr("sys.argv", ["src/finetune.py", "--run", "my run", "--restart"])
    monkeypatch.setattr("skincare.runlog.setup", lambda *_, **__: None)
    monkeypatch.setattr(Trainer, "_train_epoch", lambda self, bar: (_ for _ in ()).throw(KeyboardInterrupt))
    assert execute(layout) == 130
    assert "continue with `python src/finetune.py --run 'my run' --resume`" in caplog.text

"""Run names are unique, and a finished run is kept until its replacement is finished."""

import pytest

from skincare.errors import StageError
from skincare.paths import Layout
from skincare.training import run_folders
from skincare.training.run_folders import RunFolders


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path)


def create(layout, run, content="", *, is_finished=True):
    """Create the files of a run: checkpoints and, if finished, model and results."""
    (layout.training_state(run) / "last-0001-0000000").mkdir(parents=True)
    if is_finished:
        layout.finetune_log(run).mkdir(parents=True)
        (layout.finetuned_model(run) / "config.json").write_text(content)
        (layout.finetune_log(run) / "test_metrics.json").write_text(content)


def content(layout, run):
    files = (layout.finetuned_model(run) / "config.json", layout.finetune_log(run) / "test_metrics.json")
    return [file.read_text() if file.is_file() else None for file in files]


def test_default_names_hold_recipe_seed_and_a_counter(layout):
    names = []
    for seed in (0, 0, 1, 0, 1):
        run = run_folders.choose(layout, "", "tuned", seed, "keep")
        assert run.name == run.working_name
        names.append(run.name)
        create(layout, run.name)
    assert names == ["tuned", "tuned-2", "tuned-seed1", "tuned-3", "tuned-seed1-2"]


def test_a_finished_run_is_replaced_only_with_overwrite(layout):
    create(layout, "r")
    with pytest.raises(StageError, match="--overwrite"):
        run_folders.choose(layout, "r", "tuned", 0, "keep")
    with pytest.raises(StageError, match="--overwrite"):
        run_folders.choose(layout, "r", "tuned", 0, "restart")
    assert run_folders.choose(layout, "r", "tuned", 0, "overwrite") == RunFolders("r", layout.replacement("r"))


def test_a_foreign_model_under_a_run_name_counts_as_finished(layout):
    layout.finetuned_model("r").mkdir(parents=True)
    (layout.finetuned_model("r") / "config.json").write_text("{}")
    for policy in ("keep", "resume"):
        with pytest.raises(StageError, match="is finished"):
            run_folders.choose(layout, "r", "tuned", 0, policy)


def test_an_interrupted_run_is_resumed_or_discarded_only_on_request(layout):
    create(layout, "tuned", is_finished=False)
    for name in ("", "tuned"):
        with pytest.raises(StageError, match="--resume"):
            run_folders.choose(layout, name, "tuned", 0, "keep")
        for policy in ("resume", "restart"):
            assert run_folders.choose(layout, name, "tuned", 0, policy).working_name == "tuned"
    assert layout.training_state("tuned").is_dir(), "choose removes nothing"
    run_folders.clear(layout, RunFolders("tuned", "tuned"))
    assert not layout.training_state("tuned").exists()


def test_an_interrupted_replacement_is_resumed(layout):
    create(layout, "r", "old")
    create(layout, layout.replacement("r"), is_finished=False)
    assert run_folders.is_resumable(layout, "r", "tuned", 0)
    for policy in ("resume", "restart"):
        run = run_folders.choose(layout, "r", "tuned", 0, policy)
        assert run.working_name == layout.replacement("r")
    run_folders.clear(layout, run)
    assert content(layout, "r") == ["old", "old"]


def test_a_finished_run_is_never_cleared(layout):
    create(layout, "r", "old")
    run_folders.clear(layout, RunFolders("r", "r"))
    assert content(layout, "r") == ["old", "old"]


def test_a_replacement_leaves_no_folders_behind(layout):
    create(layout, "r", "old")
    create(layout, layout.replacement("r"), "new")
    run_folders.publish(layout, RunFolders("r", layout.replacement("r")))
    assert content(layout, "r") == ["new", "new"]
    for folder in (layout.finetuned_model(""), layout.finetune_log("")):
        assert [path.name for path in folder.iterdir()] == ["r"]


@pytest.mark.parametrize("n_renames", range(4))
def test_an_interrupted_swap_is_completed_by_the_next_start(layout, monkeypatch, n_renames):
    create(layout, "r", "old")
    create(layout, layout.replacement("r"), "new")
    original, n_done = type(layout.root).rename, 0

    def rename(self, target):
        nonlocal n_done
        if n_done == n_renames:
            raise KeyboardInterrupt
        n_done += 1
        return original(self, target)

    monkeypatch.setattr(type(layout.root), "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        run_folders.publish(layout, RunFolders("r", layout.replacement("r")))
    monkeypatch.undo()
    assert run_folders.is_resumable(layout, "r", "tuned", 0)
    assert run_folders.choose(layout, "r", "tuned", 0, "resume") == RunFolders("r", "r")
    assert content(layout, "r") == ["new", "new"]
    assert [path.name for path in layout.finetuned_model("").iterdir()] == ["r"]


def test_plots_are_those_of_the_latest_finished_run(layout):
    layout.plot("").parent.mkdir()
    for name in ("cm_epoch_9", "lr", "cm_before_training"):
        layout.plot(name).write_bytes(b"old")
    layout.run_plots("r").mkdir(parents=True)
    for name in ("cm_epoch_1", "lr"):
        (layout.run_plots("r") / f"{name}.png").write_bytes(b"new")
    run_folders.publish(layout, RunFolders("r", "r"))
    found = {path.stem: path.read_bytes() for path in layout.plot("").parent.iterdir()}
    assert found == {"cm_epoch_1": b"new", "lr": b"new", "cm_before_training": b"old"}


@pytest.mark.parametrize("name", ["../r", ".new", "a/b", "-r", "r\n", " "])
def test_an_invalid_run_name_is_rejected(layout, name):
    with pytest.raises(StageError, match="names folders"):
        run_folders.choose(layout, name, "tuned", 0, "overwrite")


def test_mutually_exclusive_options_are_rejected():
    with pytest.raises(StageError, match="--resume and --overwrite are mutually exclusive"):
        run_folders.existing_run_policy(resume=True, restart=False, overwrite=True)
    assert run_folders.existing_run_policy(resume=False, restart=False, overwrite=False) == "keep"


def test_a_tested_run_without_its_summary_is_resumable(layout):
    """It was interrupted between the test and the summary, where the same command would find it finished."""
    create(layout, "r")
    assert run_folders.is_resumable(layout, "r", "tuned", 0)
    assert run_folders.choose(layout, "r", "tuned", 0, "resume") == RunFolders("r", "r")
    layout.summary("finetune").write_text("{}")
    assert not run_folders.is_resumable(layout, "r", "tuned", 0)
    assert not run_folders.is_resumable(layout, "other", "tuned", 0)

"""Checkpoints are complete before they have their name, and the older one is removed only then."""

import errno
import json
import os
import resource
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from skincare.errors import StageError
from skincare.training import checkpoints
from skincare.training.checkpoints import Progress


@pytest.fixture
def run():
    """Parameters and an optimizer with states."""
    parameters = {"a.weight": torch.nn.Parameter(torch.ones(3))}
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.1)
    parameters["a.weight"].grad = torch.ones(3)
    optimizer.step()
    return parameters, optimizer


def save(folder, run, step):
    checkpoints.save_state(folder, "last", *run, Progress(step=step, step_in_epoch=step), {"seed": 0})


def test_a_checkpoint_restores_weights_and_optimizer_state(tmp_path, run):
    save(tmp_path, run, 1)
    parameters = {"a.weight": torch.nn.Parameter(torch.zeros(3))}
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.1)
    progress = checkpoints.load_state(checkpoints.latest_state(tmp_path, "last"), parameters, optimizer, {"seed": 0})
    assert progress == Progress(step=1, step_in_epoch=1)
    assert torch.equal(parameters["a.weight"], run[0]["a.weight"])
    expected, found = run[1].state[run[0]["a.weight"]], optimizer.state[parameters["a.weight"]]
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_a_checkpoint_from_before_the_first_step_leaves_no_state_of_later_ones(tmp_path, run):
    parameters = {"a.weight": torch.nn.Parameter(torch.ones(3))}
    save(tmp_path, (parameters, torch.optim.AdamW(parameters.values())), 0)
    checkpoints.load_state(checkpoints.latest_state(tmp_path, "last"), *run, {"seed": 0})
    assert not run[1].state


def test_states_keep_dtype_and_device_and_may_share_memory(tmp_path, run):
    """8-bit optimizers share a lookup table between two states; moments may have more bits than their weights."""
    state, table = run[1].state[run[0]["a.weight"]], torch.arange(4.0)
    state |= {"exp_avg": torch.full((3,), 1 + 2**-20), "map1": table, "map2": table}
    save(tmp_path, run, 1)
    for device, dtype in (("cpu", torch.bfloat16), ("meta", torch.float32)):
        parameters = {"a.weight": torch.nn.Parameter(torch.zeros(3, dtype=dtype, device=device))}
        optimizer = torch.optim.AdamW(parameters.values())
        checkpoints.load_state(checkpoints.latest_state(tmp_path, "last"), parameters, optimizer, {"seed": 0})
        found = optimizer.state[parameters["a.weight"]]
        assert found["step"].device.type == "cpu"
        assert found["map1"].device.type == found["exp_avg"].device.type == device
        if device == "cpu":
            assert all(torch.equal(found[key], one) for key, one in state.items())


def test_only_the_writer_writes(tmp_path, run):
    checkpoints.save_state(tmp_path, "last", *run, Progress(), {}, is_writer=False)
    assert not [*tmp_path.iterdir()]


def test_the_newest_checkpoint_is_loaded_and_older_ones_are_removed(tmp_path, run):
    for step in (9, 10):
        save(tmp_path, run, step)
    assert [path.name for path in tmp_path.iterdir()] == ["last-0000-0000010"]
    (tmp_path / "last-0000-0000002").mkdir()
    assert checkpoints.latest_state(tmp_path, "last").name == "last-0000-0000010"
    assert checkpoints.latest_state(tmp_path, "best") is None


def test_a_checkpoint_of_another_run_is_rejected(tmp_path, run):
    save(tmp_path, run, 1)
    with pytest.raises(StageError, match="other seed 0, now 1"):
        checkpoints.load_state(checkpoints.latest_state(tmp_path, "last"), *run, {"seed": 1})


def with_values(saved, **values):
    return json.dumps(saved | {"progress": saved["progress"] | values})


@pytest.mark.parametrize("damage", [
    lambda saved: "[]", lambda saved: "[" * 100_000, lambda saved: '{"identity": {}}',
    lambda saved: json.dumps(saved | {"progress": []}), lambda saved: with_values(saved, step=[1]),
    lambda saved: with_values(saved, history=3), lambda saved: with_values(saved, of_another_version=1),
])  # fmt: skip
def test_a_damaged_progress_is_an_error_that_says_what_to_do(tmp_path, run, damage):
    save(tmp_path, run, 1)
    path = checkpoints.latest_state(tmp_path, "last") / "progress.json"
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(StageError, match=r"cannot be read .*--restart"):
        checkpoints.load_state(path.parent, *run, {"seed": 0})


@pytest.mark.parametrize(("file", "tensors"), [
    ("trained", {}), ("trained", {"a.weight": torch.ones(2)}), ("optimizer", {"b.weight|exp_avg": torch.ones(3)}),
    ("optimizer", {"no_separator": torch.ones(3)}),
])  # fmt: skip
def test_tensors_of_another_run_are_an_error(tmp_path, run, file, tensors):
    save(tmp_path, run, 1)
    state = checkpoints.latest_state(tmp_path, "last")
    save_file(tensors, state / f"{file}.safetensors")
    with pytest.raises(StageError, match="cannot be read"):
        checkpoints.load_state(state, *run, {"seed": 0})


@pytest.mark.parametrize("interrupted", ["save_file", "write_json", "rename"])
def test_an_interrupted_write_keeps_the_older_checkpoint(tmp_path, run, monkeypatch, interrupted):
    save(tmp_path, run, 1)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(*((Path, "rename") if interrupted == "rename" else (checkpoints, interrupted)), interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, run, 2)
    monkeypatch.undo()
    assert checkpoints.latest_state(tmp_path, "last").name == "last-0000-0000001"
    save(tmp_path, run, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["last-0000-0000002"]


def test_every_file_is_synced_before_the_checkpoint_has_its_name(tmp_path, run, monkeypatch):
    calls, synced = [], set()
    fsync, rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.add(Path(f"/proc/self/fd/{fd}").readlink()), fsync(fd))[1])

    def record_rename(self, target):
        names = {path.name for path in synced if path.parent == self.resolve()}
        calls.append(names >= {path.name for path in self.iterdir()} - {"progress.json"})
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", record_rename)
    save(tmp_path, run, 1)
    assert calls == [True]


NO_SPACE = [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), SafetensorError("I/O error: No space left on device")]


def test_a_full_disk_at_the_first_checkpoint_says_what_to_do(tmp_path, run, monkeypatch):
    def refuse(*_, **__):
        raise NO_SPACE[0]

    monkeypatch.setattr(checkpoints, "save_file", refuse)
    with pytest.raises(StageError, match="No earlier one exists: make space and start again with --restart"):
        save(tmp_path, run, 1)


@pytest.mark.parametrize("error", NO_SPACE, ids=["OSError", "SafetensorError"])
@pytest.mark.parametrize("place", ["save_file", "write_json", "fsync"])
def test_a_full_disk_keeps_the_last_good_state_and_says_what_to_do(tmp_path, run, monkeypatch, place, error):
    save(tmp_path, run, 1)

    def refuse(*_, **__):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(*((os, "fsync") if place == "fsync" else (checkpoints, place)), refuse)
        with pytest.raises(StageError, match=r"(?s)cannot be written.*No space left.*free.*last-0000-0000001 is"):
            save(tmp_path, run, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["last-0000-0000001"], "the partial files are removed"
    parameters = {"a.weight": torch.nn.Parameter(torch.zeros(3))}
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.1)
    state = checkpoints.latest_state(tmp_path, "last")
    assert checkpoints.load_state(state, parameters, optimizer, {"seed": 0}).step == 1


def test_a_file_that_the_system_cuts_off_keeps_the_last_good_state(tmp_path, run):
    """The write itself fails, as on a full disk: files may not be longer than 64 bytes."""
    save(tmp_path, run, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        with pytest.raises(StageError, match="cannot be written"):
            save(tmp_path, run, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["last-0000-0000001"]


def test_a_state_of_another_run_is_rejected_without_reading_tensors(tmp_path, run):
    checkpoints.check_resumable(tmp_path, {"seed": 1})
    save(tmp_path, run, 1)
    for file in tmp_path.glob("last-*/*.safetensors"):
        file.unlink()
    checkpoints.check_resumable(tmp_path, {"seed": 0})
    with pytest.raises(StageError, match="other seed 0, now 1"):
        checkpoints.check_resumable(tmp_path, {"seed": 1})

"""Two processes cannot train under one run name; a lock left by a killed process is taken over."""

import fcntl
import json
import os
import socket
import subprocess
import sys

import pytest

from skincare.paths import REPOSITORY, Layout
from skincare.training import run_lock
from skincare.training.run_lock import RunLockedError, locked

HOLD = """
import sys
from pathlib import Path
from skincare.training.run_lock import locked
with locked(Path(sys.argv[1]), "r"):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    return Layout(tmp_path).run_lock("r")


@pytest.fixture
def owner(path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
    )  # fmt: skip
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_process_is_refused_with_process_and_host_of_the_first(path, owner):
    expected = f"Run 'r' is being trained by process {owner.pid} on {socket.gethostname()}, started .*--run"
    with pytest.raises(RunLockedError, match=expected), locked(path, "r"):
        pytest.fail("locked twice")
    assert json.loads(path.read_text())["pid"] == owner.pid, "the refused process changes nothing"


def test_the_lock_of_a_killed_process_is_taken_over(path, owner, caplog):
    owner.kill()
    owner.wait()
    assert path.is_file()
    with caplog.at_level("INFO"), locked(path, "r"):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert f"taking over the lock of process {owner.pid}" in caplog.text
    assert not path.exists()


def test_a_lock_whose_file_was_removed_by_its_owner_is_acquired_anew(path, monkeypatch):
    """Another process removes the file before it is locked: the lock on a removed file protects nothing."""
    original, calls = fcntl.flock, []

    def flock(descriptor, how):
        if not calls:
            path.unlink()
        calls.append(how)
        return original(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(path, "r"):
        assert len(calls) == 2
        assert path.is_file()


@pytest.mark.parametrize("content", [b"", b"not json", b"[]", b'{"pid": 1}'])
def test_an_unreadable_lock_file_is_no_obstacle(path, content):
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with locked(path, "r"):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_file_system_without_locks_gives_a_warning(path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(run_lock.fcntl, "flock", refuse)
    with locked(path, "r"):
        assert "no locks" in caplog.text

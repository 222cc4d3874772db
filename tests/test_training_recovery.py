"""Training that is killed at any point, while it writes a checkpoint too, ends as an uninterrupted run.

The processes are real. They are forked from one that has imported the stage, so that a start takes no imports.
"""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress

import pytest

from skincare.paths import REPOSITORY, TINY_MODEL, Layout
from skincare.tables import HISTORY
from skincare.training import checkpoints
from tests.dataset_helpers import write_dataset_files

N_KILLS = 3
_FORKER = """
import os, sys
import finetune
from pathlib import Path
from skincare import figures, stage
figures.draw_training_curves = figures.draw_confusion_matrix = figures.draw_confidence = lambda *_: None
print(flush=True)
for line in sys.stdin:
    root, model, run = line.split()
    child = os.fork()
    if not child:
        config = finetune.Config(root=Path(root), model=model, recipe="sample", run=run, min_tokens=36, max_tokens=36,
                                 max_epochs=6, micro_batch_size=4, resume=True)
        os._exit(stage.execute("finetune", config, config.layout, finetune.run))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Forker:
    """Starts the stage as a process of its own, as often as asked."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _FORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env=environment,
        )  # fmt: skip
        self._process.stdout.readline()  # it has imported what it needs

    def start(self, layout: Layout, run: str) -> int:
        self._process.stdin.write(f"{layout.root} {TINY_MODEL} {run}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def exit_code(self) -> int:
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=10)


@pytest.fixture(scope="module")
def forker():
    with closing(Forker()) as found:
        yield found


@pytest.fixture
def layout(tmp_path):
    found = Layout(tmp_path)
    write_dataset_files(found, {"train": 10, "val": 4, "test": 4})
    return found


def finished(layout, run, forker):
    """Let a run come to its end; return all that counts of it: not what time it took."""
    forker.start(layout, run)
    assert forker.exit_code() == 0
    folder = layout.training_state(run)
    states = {kind: checkpoints.latest_state(folder, kind) for kind in ("last", "best")}
    assert sorted(folder.iterdir()) == sorted(states.values()), "nothing torn is left"
    log = layout.finetune_log(run)
    history = [dataclasses.replace(row, seconds=0.0) for row in HISTORY.read(log / "history.csv")]
    tensors = [path for state in states.values() for path in sorted(state.glob("*.safetensors"))]
    tensors.append(layout.finetuned_model(run) / "model.safetensors")
    return {
        "states": {kind: state.name for kind, state in states.items()},
        "tensors": [path.read_bytes() for path in tensors],
        "history": history,
        "best epoch": json.loads(layout.summary("finetune").read_text())["results"]["best_epoch"],
        "test": (log / "test_metrics.json").read_bytes(),
    }


def stamp(folder):
    with suppress(FileNotFoundError):
        return folder.stat().st_mtime_ns


def is_running(child):
    with suppress(ProcessLookupError):
        os.kill(child, 0)
        return True


def kill(child, forker):
    """Return whether the process was still at work."""
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    return forker.exit_code() == -signal.SIGKILL


def kill_while_it_writes(layout, run, kind, forker, wait_s):
    """Kill a run a moment after it began to write a checkpoint; return whether it was torn."""
    part = layout.training_state(run) / f".{kind}.part"
    left_by_another, child = stamp(part), forker.start(layout, run)
    while stamp(part) in (None, left_by_another) and is_running(child):
        pass
    time.sleep(wait_s)
    return kill(child, forker) and part.exists()


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_as_an_uninterrupted_one(layout, forker):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201  shown when the test fails
    chance = random.Random(seed)
    started = time.monotonic()
    uninterrupted = finished(layout, "whole", forker)
    seconds = time.monotonic() - started
    # Checkpoints take some milliseconds to write, so not every one of these kills must come in time.
    kinds = ("best", "last", "last")
    torn = [kill_while_it_writes(layout, "torn", kind, forker, chance.uniform(0, 0.003)) for kind in kinds]
    assert any(torn), "no kill came while a checkpoint was written"
    n_killed = 0
    for _ in range(N_KILLS):
        child = forker.start(layout, "torn")
        time.sleep(chance.uniform(0, seconds))
        n_killed += kill(child, forker)
    assert n_killed, "all kills came too late"
    assert finished(layout, "torn", forker) == uninterrupted

"""A training run killed at any point, also while it writes a checkpoint, ends like an uninterrupted one.

The processes are real. They are forked from one that has imported the training modules, which takes seconds.
"""

import dataclasses
import json
import os
import random
import signal
import time
from contextlib import closing, suppress

import pytest

from skincare.paths import TINY_MODEL, Layout
from skincare.tables import HISTORY
from skincare.training import checkpoints
from tests.dataset_helpers import write_dataset_files
from tests.forker import Forker

# Sent at random times; further kills are aimed at the writing of checkpoints.
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL)
_PREPARATION = """from skincare.evaluation import confidence_plot, confusion_plot
from skincare.training import run_outputs, tracking, training_plots, training_run
training_plots.draw_training_curves = confusion_plot.draw_confusion_matrix = lambda *_: None
confidence_plot.draw_confidence = lambda *_: None
"""


def start(forker, layout, run):
    return forker.start(
        "--root", layout.root, "--model", TINY_MODEL, "--recipe", "sample", "--run", run, "--resume",
        "--min-tokens", 36, "--max-tokens", 36, "--max-epochs", 6, "--micro-batch-size", 4,
    )  # fmt: skip


@pytest.fixture(scope="module")
def forker():
    with closing(Forker("finetune", _PREPARATION)) as found:
        yield found


@pytest.fixture
def layout(tmp_path):
    found = Layout(tmp_path)
    write_dataset_files(found, {"train": 10, "val": 4, "test": 4})
    return found


def finished(layout, run, forker):
    """Complete a run; return its results, without times."""
    start(forker, layout, run)
    assert forker.exit_code() == 0
    folder = layout.training_state(run)
    states = {kind: checkpoints.latest_state(folder, kind) for kind in ("last", "best")}
    assert sorted(folder.iterdir()) == sorted(states.values()), "no partial checkpoint is left"
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


def kill(child, forker, by=signal.SIGKILL):
    """Kill a process; return whether it was still running."""
    with suppress(ProcessLookupError):
        os.kill(child, by)
    # 130 is the exit code of an interrupted stage; right after its start the handler is not installed yet.
    return forker.exit_code() in (-by, 130)


def kill_while_it_writes(layout, run, kind, forker, wait_s):
    """Kill a run right after it began to write a checkpoint; return whether the checkpoint was left incomplete."""
    part = layout.training_state(run) / f".{kind}.part"
    left_by_another, child = stamp(part), start(forker, layout, run)
    while stamp(part) in (None, left_by_another) and is_running(child):
        pass
    time.sleep(wait_s)
    return kill(child, forker) and part.exists()


@pytest.mark.slow
def test_a_repeatedly_killed_run_equals_an_uninterrupted_one(layout, forker):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201  shown when the test fails
    chance = random.Random(seed)
    started = time.monotonic()
    uninterrupted = finished(layout, "uninterrupted", forker)
    seconds = time.monotonic() - started
    # Writing a checkpoint takes milliseconds, so that some kills come too late.
    kinds = ("best", "last", "last")
    incomplete = [kill_while_it_writes(layout, "killed", kind, forker, chance.uniform(0, 0.003)) for kind in kinds]
    assert any(incomplete), "no kill came during the writing of a checkpoint"
    n_killed = 0
    # Part of the run is complete: without an early kill all of them could come too late.
    for by, latest_s in zip(SIGNALS, (seconds / 3, seconds, seconds), strict=True):
        child = start(forker, layout, "killed")
        time.sleep(chance.uniform(0, latest_s))
        n_killed += kill(child, forker, by)
    assert n_killed, "all kills came too late"
    assert finished(layout, "killed", forker) == uninterrupted

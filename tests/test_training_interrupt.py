"""After Ctrl-C the last line of a training stage is a command, and that command completes the run."""

import os
import re
import shlex
import signal
import subprocess
import sys

import pytest

from skincare.paths import REPOSITORY, TINY_MODEL, Layout
from tests.dataset_helpers import write_dataset_files

pytestmark = pytest.mark.slow

OPTIONS = ("--min-tokens", "36", "--max-tokens", "36", "--max-epochs", "2", "--micro-batch-size", "4")
STAGES = {
    "finetune": ("--recipe", "sample", "--run", "mine"),
    "compare_recipes": ("--recipes", "sample", "--seeds", "0"),
}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def layout(tmp_path):
    found = Layout(tmp_path)
    write_dataset_files(found, {"train": 10, "val": 3, "test": 3})
    return found


def interrupt(command, at_line):
    """Run a command, send SIGINT when a line of its log matches; return exit code and last line."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY, env=ENVIRONMENT)
    lines = []
    for line in process.stderr:
        lines.append(line.strip())
        if re.search(at_line, line):
            process.send_signal(signal.SIGINT)
            at_line = "$^"  # once
    return process.wait(), [line for line in lines if line][-1]


@pytest.mark.parametrize(
    ("stage", "at_line"),
    [("finetune", "^epoch 1: val"), ("compare_recipes", "epoch 1: val")],
)
def test_the_printed_command_completes_the_run(layout, stage, at_line):
    script = f"src/{stage}.py"
    options = ["--root", str(layout.root), "--model", str(TINY_MODEL), *OPTIONS, *STAGES[stage]]
    code, last = interrupt([sys.executable, script, *options], at_line)
    assert code == 130
    printed = re.search(r"`python (.*)`$", last)
    assert printed, last
    assert (stage == "finetune") == ("--resume" in printed[1])
    done = subprocess.run(
        [sys.executable, *shlex.split(printed[1])], capture_output=True, text=True, cwd=REPOSITORY, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    assert layout.summary(stage).is_file()

"""Two processes train like one and only one writes files; a run can resume with another number of processes."""

import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from skincare.paths import REPOSITORY, TINY_MODEL, Layout
from skincare.tables import HISTORY
from skincare.training import checkpoints, distributed
from skincare.training.distributed import World
from tests.dataset_helpers import write_dataset_files

# One thread per process, since two share the cores.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


# torch.distributed.run, since accelerate's launcher with --cpu ignores --num_processes and starts a single process.
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--"]
FSDP_LAUNCHER = [sys.executable, "-m", "accelerate.commands.launch", "--use_fsdp", "--num_processes", "2",
                 "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]  # fmt: skip


def command(layout, run, *options, launcher=()):
    return [*(launcher or [sys.executable]), str(REPOSITORY / "src" / "finetune.py"),
            "--root", str(layout.root), "--model", str(TINY_MODEL), "--recipe", "sample", "--run", run,
            "--min-tokens", "36", "--max-tokens", "36", "--micro-batch-size", "4", *options]  # fmt: skip


def launch(layout, run, *options, **how):
    found = subprocess.run(command(layout, run, *options, **how), capture_output=True, text=True, env=ENVIRONMENT)
    assert found.returncode == 0, found.stderr
    assert ("process 1 of 2" in found.stderr) == bool(how), "number of processes"
    return found.stderr


@pytest.fixture
def layout(tmp_path):
    found = Layout(tmp_path)
    write_dataset_files(found, {"train": 21, "val": 5, "test": 3})
    return found


def assert_alike(layout, one, other):
    """Equal up to the order of additions, whose effect AdamW steps amplify."""
    first, second = (HISTORY.read(layout.finetune_log(run) / "history.csv") for run in (one, other))
    assert [row.val_accuracy for row in first] == [row.val_accuracy for row in second]
    assert [row.val_loss for row in first] == pytest.approx([row.val_loss for row in second], rel=1e-3)
    assert [row.train_loss for row in first[1:]] == pytest.approx([row.train_loss for row in second[1:]], rel=1e-3)
    # Before clipping; the weights hide the scale of a gradient, since AdamW is invariant to it.
    assert [row.grad_norm for row in first[1:]] == pytest.approx([row.grad_norm for row in second[1:]], rel=1e-2)
    tensors = [load_file(layout.finetuned_model(run) / "model.safetensors") for run in (one, other)]
    for name in tensors[0]:
        torch.testing.assert_close(tensors[0][name], tensors[1][name], rtol=1e-2, atol=2e-4)


@pytest.mark.slow
def test_two_processes_train_like_one(layout):
    launch(layout, "one", "--max-epochs", "2")
    log = launch(layout, "two", "--max-epochs", "2", launcher=LAUNCHER)
    assert_alike(layout, "one", "two")
    assert log.count("finetune: best epoch") == 1, "one process writes"
    assert json.loads(layout.summary("finetune").read_text())["results"]["run"] == "two"
    answers = (layout.finetune_log("two") / "val_predictions.jsonl").read_text().splitlines()
    assert len(answers) == 5, "all answers are gathered"


def test_every_item_belongs_to_one_process():
    items = list(range(11))
    shares = [World(rank, 3).local_items(items) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_collectives_of_one_process_return_its_own_values():
    alone = World()
    assert alone.sum_scalar(2.5) == 2.5
    assert alone.gather([1, 2]) == [1, 2]
    parameter = torch.nn.Parameter(torch.zeros(2))
    alone.sum_gradients([parameter])
    assert parameter.grad is None
    assert alone.is_writer


def test_the_barrier_timeout_exceeds_any_evaluation(monkeypatch):
    settings = {}

    def connected(**given):
        settings.update(given)
        return SimpleNamespace(process_index=1, num_processes=2)

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "PartialState", connected)
    assert distributed.connect() == World(1, 2)
    assert settings["timeout"] >= timedelta(hours=24)


@pytest.mark.slow
def test_a_run_of_two_processes_is_resumed_by_one(layout):
    launch(layout, "uninterrupted", "--max-epochs", "6")
    process = subprocess.Popen(
        command(layout, "resumed", "--max-epochs", "6", launcher=LAUNCHER),
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    for line in process.stderr:
        if line.startswith("epoch 2"):
            process.terminate()
            break
    process.wait()
    assert layout.is_interrupted("resumed")
    launch(layout, "resumed", "--max-epochs", "6", "--resume")
    assert_alike(layout, "uninterrupted", "resumed")


@pytest.mark.slow
def test_two_processes_with_sharded_weights_train_like_one(layout):
    """All tensors are trained; the 5 images of the last step make two passes in one process and one in the other."""
    options = ("--recipe", "sample-all", "--learning-rate", "1e-4", "--micro-batch-size", "2")
    launch(layout, "one", *options, "--max-epochs", "2")
    log = launch(layout, "two", *options, "--max-epochs", "2", "--gradient-checkpointing", "True",
                  launcher=FSDP_LAUNCHER)  # fmt: skip
    assert_alike(layout, "one", "two")
    # Checkpoints hold full tensors, for any number of processes.
    for file in ("trained", "optimizer"):
        states = [
            load_file(checkpoints.latest_state(layout.training_state(run), "last") / f"{file}.safetensors")
            for run in ("one", "two")
        ]
        assert states[0].keys() == states[1].keys()
        for name, tensor in states[0].items():
            torch.testing.assert_close(tensor, states[1][name], rtol=1e-3, atol=1e-4)
    n_parameters = json.loads(layout.summary("finetune").read_text())["results"]["n_parameters"]
    shard_sizes = [int(n.replace(",", "")) for n in re.findall(r"process \d of 2 stores ([0-9,]+) of", log)]
    assert shard_sizes
    assert all(n == pytest.approx(n_parameters / 2, rel=0.01) for n in shard_sizes)


@pytest.mark.slow
def test_out_of_memory_in_one_sharded_process_is_explained_by_all(layout):
    worker = str(REPOSITORY / "tests" / "sharded_failure_worker.py")
    done = subprocess.run(
        [*FSDP_LAUNCHER, worker, str(layout.root)], capture_output=True, text=True, env=ENVIRONMENT, timeout=120
    )
    assert done.returncode != 0
    reasons = dict(re.findall(r"rank (\d) ended: (.*)", done.stderr))
    assert reasons.keys() == {"0", "1"}, done.stderr[-2000:]
    assert "Out of memory in training with 2 image(s) per pass: use a smaller --micro-batch-size" in reasons["1"]
    assert reasons["0"] == f"process 2 of 2: {reasons['1']}"


@pytest.mark.slow
def test_a_sharded_run_is_resumed_by_one_process(layout):
    options = ("--recipe", "sample-all", "--learning-rate", "1e-4", "--micro-batch-size", "2", "--max-epochs", "2")
    stopped = command(layout, "resumed", *options, "--max-minutes", "0", launcher=FSDP_LAUNCHER)
    done = subprocess.run(stopped, capture_output=True, text=True, env=ENVIRONMENT)
    # A launcher replaces the exit code of its processes.
    assert done.returncode == 1, done.stderr
    assert "stopped by --max-minutes in epoch 1, after step 1" in done.stderr
    assert checkpoints.latest_state(layout.training_state("resumed"), "last").name == "last-0000-0000001"
    launch(layout, "resumed", *options, "--resume")
    launch(layout, "whole", *options)
    assert_alike(layout, "whole", "resumed")

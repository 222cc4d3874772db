"""Two processes train like one and only one writes files; a run can resume with another number of processes.

Starting a process takes longer than a run of a tiny model, so the runs of two processes share two launches: one with
the whole model in each process, one with sharded weights. Meanwhile this process makes the runs of a single one.
"""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
import tyro
from PIL import Image
from safetensors.torch import load_file

import finetune
from skincare.paths import REPOSITORY, TINY_MODEL, Layout
from skincare.tables import HISTORY
from skincare.training import checkpoints, distributed
from skincare.training.distributed import World
from skincare.training.stopping import TimeLimitError
from tests.dataset_helpers import jpeg, write_dataset_files
from tests.launched_runs import add_combined_recipe, leave_out_slow_parts
from tests.test_accumulation import assert_gradients_equal, make_training, of_the_mean

# torch.distributed.run, since accelerate's launcher with --cpu ignores --num_processes and starts a single process.
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--"]
FSDP_LAUNCHER = [sys.executable, "-m", "accelerate.commands.launch", "--use_fsdp", "--num_processes", "2",
                 "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]  # fmt: skip

EMBEDDED = ("--model", str(TINY_MODEL), "--recipe", "sample", "--max-epochs", "3", "--min-tokens", "36",
            "--max-tokens", "36", "--micro-batch-size", "4")  # fmt: skip
# DoRA, a head, Muon, label smoothing and the moving average of the weights.
COMBINED = tuple({"sample": "combined", "3": "1"}.get(word, word) for word in EMBEDDED)


@dataclass
class Processes:
    """Cases that two processes run in turn, each in its own log; see `launched_runs`."""

    layout: Layout
    process: subprocess.Popen

    @classmethod
    def start(cls, launcher, layout, cases):
        file = layout.root / "cases.json"
        file.write_text(json.dumps(cases))
        worker = str(REPOSITORY / "tests" / "launched_runs.py")
        process = subprocess.Popen(
            [*launcher, worker, str(layout.root), str(file)], stderr=subprocess.PIPE, text=True,
            # One thread per process, since two share the cores.
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        return cls(layout, process)

    def log(self, case, rank=0):
        return self._file(case, rank).read_text()

    def exit_codes(self, case):
        return [self.log(case, rank).splitlines()[-1].removeprefix("exit code ") for rank in range(2)]

    def wait_for(self, case, line, seconds=600):
        """Wait until the first process has logged a line that starts so."""
        end = time.monotonic() + seconds
        while not (self._file(case, 0).exists() and f"\n{line}" in f"\n{self.log(case)}"):
            assert self.process.poll() is None, self.process.stderr.read()[-4000:]
            assert time.monotonic() < end, f"{case} has not logged {line!r}"
            time.sleep(0.05)

    def wait(self):
        _, errors = self.process.communicate(timeout=900)
        return errors

    def _file(self, case, rank):
        return self.layout.root / f"{case}.{rank}.log"


def run_alone(layout, *arguments):
    """Run the stage in this process."""
    with pytest.MonkeyPatch.context() as patch:
        leave_out_slow_parts(patch)
        add_combined_recipe(patch)
        config = tyro.cli(finetune.Config, args=["--root", str(layout.root), *arguments])
        return finetune.run(config, layout)


def new_dataset(folder):
    """Write images of three shapes, of which a batch has several numbers of patches and windows."""
    layout = Layout(folder)
    write_dataset_files(layout, {"train": 21, "val": 5, "test": 3})
    for i, path in enumerate(sorted(layout.clean_images.glob("*.jpg"))):
        image = Image.open(path)
        path.write_bytes(jpeg(image.crop((0, 0, image.width, (224, 150, 190)[i % 3]))))
    return layout


def weights(layout, run):
    return load_file(layout.finetuned_model(run) / "model.safetensors")


def assert_alike(one, other):
    """Runs, given as layout and name, are equal up to the order of additions, whose effect AdamW steps amplify."""
    first, second = (HISTORY.read(layout.finetune_log(run) / "history.csv") for layout, run in (one, other))
    assert [row.val_accuracy for row in first] == [row.val_accuracy for row in second]
    assert [row.val_loss for row in first] == pytest.approx([row.val_loss for row in second], rel=1e-3)
    assert [row.train_loss for row in first[1:]] == pytest.approx([row.train_loss for row in second[1:]], rel=1e-3)
    # Before clipping; the weights hide the scale of a gradient, since AdamW is invariant to it.
    assert [row.grad_norm for row in first[1:]] == pytest.approx([row.grad_norm for row in second[1:]], rel=1e-2)
    tensors = [weights(*one), weights(*other)]
    assert tensors[0].keys() == tensors[1].keys()
    for name in tensors[0]:
        torch.testing.assert_close(tensors[0][name], tensors[1][name], rtol=1e-2, atol=2e-4)


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Two processes, each with the whole model; the last run is ended by SIGTERM after its first epoch."""
    layout = new_dataset(tmp_path_factory.mktemp("launched"))
    alone = new_dataset(tmp_path_factory.mktemp("alone"))
    processes = Processes.start(LAUNCHER, layout, {
        "gradients": [str(layout.root / "gradients.safetensors"), "5"],
        "combined": [*COMBINED, "--run", "combined"],
        "two": [*EMBEDDED, "--run", "two"],
        "interrupted": [*EMBEDDED, "--run", "interrupted"],
    })  # fmt: skip
    run_alone(alone, *EMBEDDED, "--run", "one")
    run_alone(alone, *COMBINED, "--run", "combined")
    processes.wait_for("interrupted", "epoch 1: ")
    processes.process.terminate()
    processes.wait()
    return processes, alone


@pytest.mark.slow
def test_two_processes_compute_the_gradients_of_one(launched):
    processes, alone = launched
    found = load_file(processes.layout.root / "gradients.safetensors")
    assert found.pop("processes").item() == 2
    training = make_training(alone, 8)
    loss, expected = of_the_mean(training, training.train[:5])
    assert found.pop("loss").item() == pytest.approx(loss, rel=1e-5)
    assert_gradients_equal(found, expected)


@pytest.mark.slow
def test_two_processes_train_like_one(launched):
    processes, alone = launched
    layout = processes.layout
    assert processes.exit_codes("two") == ["0", "0"]
    assert_alike((alone, "one"), (layout, "two"))
    assert "process 1 of 2" in processes.log("two")
    written = [processes.log("two", rank).count("finetune: best epoch") for rank in range(2)]
    assert written == [1, 0], "one process writes"
    assert json.loads(layout.summary("finetune").read_text())["results"]["run"] == "two"
    answers = (layout.finetune_log("two") / "val_predictions.jsonl").read_text().splitlines()
    assert len(answers) == 5, "all answers are gathered"


@pytest.mark.slow
def test_two_processes_train_all_options_of_a_recipe_like_one(launched):
    processes, alone = launched
    layout = processes.layout
    assert processes.exit_codes("combined") == ["0", "0"], processes.log("combined")
    assert_alike((alone, "combined"), (layout, "combined"))
    states = [
        load_file(checkpoints.latest_state(place.training_state("combined"), "last") / "optimizer.safetensors")
        for place in (alone, layout)
    ]
    assert states[0].keys() == states[1].keys()
    for name in (one for one in states[0] if one.endswith("|average")):
        torch.testing.assert_close(states[0][name], states[1][name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_run_of_two_processes_is_resumed_by_one(launched):
    processes, alone = launched
    layout = processes.layout
    assert processes.exit_codes("interrupted") == ["130", "130"]
    assert layout.is_interrupted("interrupted")
    run_alone(layout, *EMBEDDED, "--run", "interrupted", "--resume")
    assert_alike((alone, "one"), (layout, "interrupted"))


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


# What is trained of each family, and for how many epochs: all tensors, with the vision tower in the backward pass, and
# the parts of the reference recipe, behind cached vision features (with those of the DeepStack mergers in Qwen3-VL).
SHARDED = {
    "qwen2_vl-all": ("sample-all", "2"), "qwen2_vl-head": ("sample-head", "1"), "qwen2_5_vl-all": ("sample-all", "1"),
    "qwen2_5_vl": ("sample", "1"), "qwen3_vl-all": ("sample-all", "1"), "qwen3_vl": ("sample", "1"),
}  # fmt: skip


def sharded_arguments(folders, case, run):
    """Return a run of a tiny model; the 5 images of its last step make two passes in a process, one in the other."""
    recipe, n_epochs = SHARDED[case]
    return ["--model", str(folders[case.partition("-")[0]]), "--recipe", recipe, "--max-epochs", n_epochs,
            "--learning-rate", "1e-4", "--min-tokens", "20", "--max-tokens", "30", "--micro-batch-size", "2",
            "--run", run]  # fmt: skip


@pytest.fixture(scope="module")
def sharded(tmp_path_factory, folders):
    """Two processes with sharded weights; the last case runs out of memory."""
    layout = new_dataset(tmp_path_factory.mktemp("sharded"))
    alone = new_dataset(tmp_path_factory.mktemp("alone"))
    arguments = {case: sharded_arguments(folders, case, case) for case in SHARDED}
    with pytest.raises(TimeLimitError):
        run_alone(layout, *sharded_arguments(folders, "qwen3_vl", "continued"), "--max-minutes", "0")
    processes = Processes.start(FSDP_LAUNCHER, layout, {
        **{case: [*these, *(["--gradient-checkpointing", "True"] if case.endswith("-all") else [])]
           for case, these in arguments.items()},
        "stopped": [*sharded_arguments(folders, "qwen3_vl", "stopped"), "--max-minutes", "0"],
        "continued": [*sharded_arguments(folders, "qwen3_vl", "continued"), "--resume"],
        "out_of_memory": [],
    })  # fmt: skip
    for these in arguments.values():
        run_alone(alone, *these)
    processes.wait()
    return processes, alone


@pytest.mark.slow
@pytest.mark.parametrize("case", SHARDED)
def test_two_processes_with_sharded_weights_train_like_one(sharded, case):
    processes, alone = sharded
    layout, log = processes.layout, processes.log(case)
    assert processes.exit_codes(case) == ["0", "0"], log
    assert_alike((alone, case), (layout, case))
    # Checkpoints hold full tensors, for any number of processes.
    for file in ("trained", "optimizer"):
        states = [
            load_file(checkpoints.latest_state(place.training_state(case), "last") / f"{file}.safetensors")
            for place in (alone, layout)
        ]
        assert states[0].keys() == states[1].keys()
        for name, tensor in states[0].items():
            torch.testing.assert_close(tensor, states[1][name], rtol=1e-3, atol=1e-4)
    sizes = re.search(r"process 1 of 2 stores ([0-9,]+) of ([0-9,]+) parameters", log)
    stored, total = (int(size.replace(",", "")) for size in sizes.groups())
    assert stored == pytest.approx(total / 2, rel=0.01)


@pytest.mark.slow
def test_a_sharded_run_is_resumed_by_one_process(sharded, folders):
    processes, alone = sharded
    layout = processes.layout
    assert processes.exit_codes("stopped") == ["75", "75"]
    assert "stopped by --max-minutes in epoch 1, after step 1" in processes.log("stopped")
    assert checkpoints.latest_state(layout.training_state("stopped"), "last").name == "last-0000-0000001"
    run_alone(layout, *sharded_arguments(folders, "qwen3_vl", "stopped"), "--resume")
    assert_alike((alone, "qwen3_vl"), (layout, "stopped"))


@pytest.mark.slow
def test_a_run_of_one_process_is_resumed_with_sharded_weights(sharded):
    processes, alone = sharded
    assert processes.exit_codes("continued") == ["0", "0"]
    assert_alike((alone, "qwen3_vl"), (processes.layout, "continued"))


@pytest.mark.slow
def test_out_of_memory_in_one_sharded_process_is_explained_by_all(sharded):
    processes, _ = sharded
    first, second = processes.exit_codes("out_of_memory")
    assert second.startswith("Out of memory in training with 2 image(s) per pass: use a smaller --micro-batch-size")
    assert first == f"process 2 of 2: {second}"

"""Runs of finetune.py on the device: settings of speed and memory do not change the training."""

import dataclasses
import math
import os
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

import finetune
from skincare.modeling.freezing import trainable_modules
from skincare.modeling.loading import load_model, load_processor
from skincare.modeling.settings import Trainable
from skincare.paths import REPOSITORY, TINY_MODEL
from skincare.tables import HISTORY
from skincare.training import checkpoints
from skincare.training.loop import Trainer
from tests.plots import replace_training_plots

pytestmark = pytest.mark.gpu

# An epoch is one step of its 8 images.
BATCH_SIZE = 8


@dataclasses.dataclass
class Steps:
    """The inputs of the optimizer steps of a run: gradients before clipping, their norms, the losses."""

    gradients: list[list[torch.Tensor]]
    norms: list[float]
    losses: list[float]


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    replace_training_plots(monkeypatch)


def config(layout, run, **changes):
    settings = {"model": str(TINY_MODEL), "recipe": "sample", "min_tokens": 36, "max_tokens": 36, "max_epochs": 1}
    return finetune.Config(root=layout.root, run=run, **{**settings, **changes})


def history(layout, run):
    """The history of a run, without times."""
    return [dataclasses.replace(row, seconds=0.0) for row in HISTORY.read(layout.finetune_log(run) / "history.csv")]


def steps(layout, monkeypatch, run, **changes):
    """Train; return the inputs of its steps."""
    found = Steps([], [], [])
    clip = torch.nn.utils.clip_grad_norm_

    def watch(parameters, *args, **kwargs):
        parameters = list(parameters)
        found.gradients.append([one.grad.double().cpu() for one in parameters])
        norm = clip(parameters, *args, **kwargs)
        found.norms.append(float(norm))
        return norm

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", watch)
    finetune.run(config(layout, run, **changes), layout)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    found.losses = [row.train_loss for row in history(layout, run)[1:]]
    return found


def assert_same_steps(found, expected):
    assert len(found.norms) == len(expected.norms) == len(found.losses) > 0
    assert found.losses == pytest.approx(expected.losses, rel=1e-4)
    assert found.norms == pytest.approx(expected.norms, rel=1e-3)
    for i, norm in enumerate(expected.norms):
        for one, other in zip(found.gradients[i], expected.gradients[i], strict=True):
            assert (one - other).norm() <= 1e-3 * other.norm() + 1e-6 * norm


def outcome(layout, run):
    """The results of a finished run that must not depend on interruptions."""
    states = [checkpoints.latest_state(layout.training_state(run), kind) for kind in ("last", "best")]
    files = [path for state in states for path in sorted(state.glob("*.safetensors"))]
    files.append(layout.finetuned_model(run) / "model.safetensors")
    return history(layout, run), [path.read_bytes() for path in files]


def test_micro_batches_of_1_2_and_8_give_the_same_losses_and_gradients(layout, monkeypatch):
    found = [steps(layout, monkeypatch, f"by{size}", micro_batch_size=size) for size in (1, 2, BATCH_SIZE)]
    for other in found[:-1]:
        assert_same_steps(other, found[-1])


def test_frozen_tensors_are_unchanged_and_the_export_equals_the_checkpoint(layout, device):
    original = load_model(TINY_MODEL, torch.device("cpu")).to(torch.bfloat16)
    original.config.dtype = torch.bfloat16
    source = layout.root / "bf16"
    original.save_pretrained(source)
    load_processor(TINY_MODEL).save_pretrained(source)
    finetune.run(config(layout, "r", model=str(source), micro_batch_size=4), layout)

    exported = load_model(layout.finetuned_model("r"), torch.device("cpu")).state_dict()
    trained = load_file(checkpoints.latest_state(layout.training_state("r"), "best") / "trained.safetensors")
    before = original.state_dict()
    promised = tuple(f"{name}." for name in trainable_modules(original, Trainable()))
    assert trained and all(name.startswith(promised) for name in trained)
    assert any(not torch.equal(trained[name].bfloat16(), before[name]) for name in trained)
    assert exported.keys() == before.keys()
    for name, tensor in exported.items():
        # Exported as trained, in float32; the loaded model holds the frozen ones in that dtype too.
        expected = trained[name] if name in trained else before[name].float()
        assert torch.equal(tensor, expected), name


def test_running_out_of_memory_halves_the_micro_batch_and_keeps_losses_and_gradients(layout, cuda, monkeypatch, caplog):
    """a CPU has no memory limit that raises OutOfMemoryError."""
    peaks, limits, train = [], [], Trainer.run

    def measured(self, on_epoch):
        total = torch.cuda.get_device_properties(cuda).total_memory
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(cuda)
        torch.cuda.set_per_process_memory_fraction(limits[-1] / total if limits else 1.0)
        try:
            return train(self, on_epoch)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
            peaks.append(torch.cuda.max_memory_allocated(cuda))

    monkeypatch.setattr(Trainer, "run", measured)
    # Images of 900 tokens, so that what is kept of them outweighs everything else.
    large = {"min_tokens": 900, "max_tokens": 900}
    steps(layout, monkeypatch, "eight", micro_batch_size=8, **large)
    four = steps(layout, monkeypatch, "four", micro_batch_size=4, **large)
    assert peaks[0] > 1.5 * peaks[1], "a limit between the two would prove nothing"
    limits.append((peaks[0] + peaks[1]) / 2)
    with caplog.at_level("WARNING"):
        halved = steps(layout, monkeypatch, "halved", micro_batch_size=8, **large)
    assert "memory" in caplog.text
    assert peaks[2] < limits[0]
    assert_same_steps(halved, four)


def test_two_uninterrupted_runs_give_equal_weights(layout, device):
    for run in ("a", "b"):
        finetune.run(config(layout, run, max_epochs=2, micro_batch_size=4), layout)
    assert outcome(layout, "a") == outcome(layout, "b")


def test_a_killed_and_resumed_run_gives_the_weights_of_an_uninterrupted_one(layout, device):
    settings = {"max_epochs": 3, "micro_batch_size": 4}
    finetune.run(config(layout, "whole", **settings), layout)
    command = [
        sys.executable, str(REPOSITORY / "src" / "finetune.py"), "--root", str(layout.root), "--model", str(TINY_MODEL),
        "--recipe", "sample", "--run", "torn", "--min-tokens", "36", "--max-tokens", "36", "--max-epochs", "3",
        "--micro-batch-size", "4",
    ]  # fmt: skip
    rows = layout.finetune_log("torn") / "history.csv"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "WANDB_MODE": "disabled"}) as process:
        # The row of epoch 0 is there before the first step; with the next there is something to go on from.
        while process.poll() is None and not (rows.is_file() and len(HISTORY.read(rows)) > 1):
            time.sleep(0.002)
        process.kill()
    assert layout.is_interrupted("torn"), "the run was over before it was killed"
    finetune.run(config(layout, "torn", resume=True, **settings), layout)
    assert outcome(layout, "torn") == outcome(layout, "whole")


@pytest.mark.parametrize("variation", ["qlora8", "qlora4", "adamw8bit"])
def test_8_bit_and_4_bit_recipes_take_a_step(layout, cuda, variation):
    """tests/test_recipes.py covers the CPU kernels."""
    pytest.importorskip("bitsandbytes")
    finetune.run(config(layout, "r", recipe=f"sample-{variation}", micro_batch_size=8), layout)
    before, after = history(layout, "r")
    assert all(math.isfinite(value) for value in (after.train_loss, after.grad_norm, after.val_loss))
    assert after.grad_norm > 0
    assert after.val_loss != before.val_loss

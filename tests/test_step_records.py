"""Losses and norms of steps are read together; one that is not finite stops the run and names its images."""

import json
import math

import pytest
import torch

import finetune
from skincare import stage
from skincare.paths import TINY_MODEL, Layout
from skincare.training import checkpoints
from skincare.training.distributed import World
from skincare.training.step_records import NonFiniteError, StepRecord, StepRecords
from skincare.training.training_loss import TrainingLoss
from tests.dataset_helpers import write_dataset_files
from tests.plots import replace_training_plots


@pytest.fixture
def layout(tmp_path, monkeypatch):
    replace_training_plots(monkeypatch, lambda *_: None)
    found = Layout(tmp_path / "root")
    write_dataset_files(found, {"train": 10, "val": 3, "test": 3})
    return found


def execute(layout, **changes):
    config = finetune.Config(root=layout.root, run="r", model=str(TINY_MODEL), recipe="sample", min_tokens=36,
                             max_tokens=36, max_epochs=2, micro_batch_size=4, **changes)  # fmt: skip
    return stage.execute("finetune", config, layout, finetune.run)


def record(step, losses, norm=1.0):
    found = StepRecord(step, 0, 0.1, loss_parts=torch.tensor(losses), grad_norm=torch.tensor(norm))
    found.add_losses([], torch.tensor(losses))
    return found


def test_losses_and_norms_are_those_of_reading_after_every_step(tmp_path):
    device = torch.device("cpu")
    one_by_one, together = (StepRecords(World(), device, tmp_path / "report.json") for _ in range(2))
    together.steps_per_read = 3
    steps = [record(i, [0.1 * i, 0.3], norm=0.7 + i) for i in range(3)]
    expected = []
    for one in steps:
        one_by_one.add(one)
        assert one_by_one.is_due
        expected += one_by_one.read()
        together.add(one)
    assert together.is_due
    assert together.read() == expected
    assert together.is_read
    assert together.read() == []


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_the_first_step_that_is_not_finite_is_reported(tmp_path, norm):
    records = StepRecords(World(), torch.device("cpu"), tmp_path / "report.json")
    for one in (record(4, [1.0]), record(5, [1.0], norm), record(6, [math.nan])):
        records.add(one)
    with pytest.raises(NonFiniteError, match="Step 5: the gradient is not finite"):
        records.read()
    found = json.loads((tmp_path / "report.json").read_text())
    assert (found["step"], found["loss"], found["gradient_norm"]) == (5, 1.0, None)


def test_a_loss_that_is_not_finite_ends_the_run_with_the_images_and_the_last_good_state(layout, monkeypatch, caplog):
    original, calls = TrainingLoss.__call__, []

    def broken(self, examples, *given, **named):
        calls.append(examples)
        losses = original(self, examples, *given, **named)
        return losses * torch.tensor([math.nan if i == 1 and len(calls) == 6 else 1.0 for i in range(len(examples))])

    monkeypatch.setattr(TrainingLoss, "__call__", broken)
    monkeypatch.setattr("skincare.runlog.setup", lambda *_, **__: None)
    # Two steps an epoch of 8 and 2 images: passes of 4, 4 and 2, so the sixth is the last step of the second epoch.
    assert execute(layout) == 1
    state = checkpoints.latest_state(layout.training_state("r"), "last")
    assert state.name == "last-0001-0000000"
    report = json.loads((layout.finetune_log("r") / "non_finite.json").read_text())
    assert (report["step"], report["epoch"], report["loss"]) == (3, 1, None)
    assert [one["image"] for one in report["images"]] == [one.image for one in calls[5]]
    assert [one["loss"] is None for one in report["images"]] == [False, True]
    assert calls[5][1].image in caplog.text


def test_a_val_loss_that_is_not_finite_names_the_image(layout, monkeypatch):
    from skincare.inference.classifier import Classifier

    original = Classifier.total_loss

    def broken(self, head_use, examples):
        total = original(self, head_use, examples)
        return math.nan if any(one.image_id == bad for one in examples) else total

    bad = sorted(one.image_id for one in layout_examples(layout, "val"))[1]
    monkeypatch.setattr(Classifier, "total_loss", broken)
    assert execute(layout) == 1
    report = json.loads((layout.finetune_log("r") / "non_finite.json").read_text())
    assert [one["image_id"] for one in report["images"] if one["loss"] is None] == [bad]


def layout_examples(layout, split):
    from skincare.dataset.dataset_source import read_parts

    return read_parts("", layout)[split]

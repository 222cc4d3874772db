"""Single rules of the training loop: clipping, learning rates, modes, selection of the best epoch, checkpoints."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from skincare.errors import StageError
from skincare.evaluation import metrics
from skincare.paths import Layout
from skincare.tables import ProductHistoryRow
from skincare.training import epoch_results, loop, run_outputs
from skincare.training.loop import Trainer
from skincare.training.step_records import StepRecord
from skincare.training.training_loss import TrainingLoss
from tests.dataset_helpers import write_dataset_files
from tests.test_accumulation import make_training


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    found = Layout(tmp_path_factory.mktemp("loop"))
    write_dataset_files(found, {"train": 10, "val": 2, "test": 2})
    return found


@pytest.fixture(scope="module")
def prepared(layout):
    """A trainer of the recipe with several parts; tests share the model and must not change its weights."""
    return make_training(layout, 4, "sample-parts")


@pytest.fixture
def trainer(prepared, monkeypatch):
    """The prepared trainer at its start, without optimizer steps and checkpoints."""
    monkeypatch.setattr(prepared, "progress", loop.Progress(micro_batch_size=4))
    monkeypatch.setattr(prepared.stepper, "step", lambda _: None)
    monkeypatch.setattr(Trainer, "_save", lambda self, kind: None)
    return prepared


def total_norm(trainer):
    return torch.stack([parameter.grad.norm() for parameter in trainer.parameters.values()]).norm().item()


def test_gradients_are_clipped_and_the_norm_is_that_before(trainer, monkeypatch):
    trainer._compute_gradients(trainer.train[:4])
    unclipped = total_norm(trainer)
    monkeypatch.setattr(trainer, "recipe", dataclasses.replace(trainer.recipe, max_grad_norm=unclipped / 8))
    trainer._step(trainer.train[:4])
    assert trainer.progress.grad_norm_sum == pytest.approx(unclipped, rel=1e-4)
    assert total_norm(trainer) == pytest.approx(unclipped / 8, rel=1e-3)


@pytest.mark.parametrize("step", [0, 3])
def test_a_step_has_its_learning_rate_scaled_by_part(trainer, step):
    trainer.progress.step = step
    trainer._step(trainer.train[:4])
    rate = trainer.recipe.rate(step, trainer.n_steps_per_epoch)
    assert {group["lr"] for group in trainer.optimizer.param_groups} == {rate, 0.1 * rate}
    assert rate != trainer.recipe.rate(step + 1, trainer.n_steps_per_epoch)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_gradient_that_is_not_finite_stops_the_run_before_the_step(trainer, monkeypatch, value):
    monkeypatch.setattr(trainer.stepper, "step", lambda _: pytest.fail("stepped"))

    def gradients(_):
        for parameter in trainer.parameters.values():
            parameter.grad = torch.full_like(parameter, value)
        return StepRecord(0, 0, 0.1)

    monkeypatch.setattr(trainer, "_compute_gradients", gradients)
    with pytest.raises(StageError, match="Step 0: the gradient is not finite"):
        trainer._step(trainer.train[:4])


def test_gradients_of_an_earlier_step_do_not_add_up(trainer):
    trainer._compute_gradients(trainer.train[:4])
    first = total_norm(trainer)
    trainer._compute_gradients(trainer.train[:4])
    assert total_norm(trainer) == pytest.approx(first, rel=1e-5)


def test_loading_ahead_changes_no_bit_of_a_gradient(trainer, monkeypatch):
    """Neither the next passes of a step, nor the first one of the next step."""
    found = []
    for upcoming in ([], trainer.train[4:10]):
        monkeypatch.setattr(trainer, "upcoming", upcoming)
        monkeypatch.setattr(trainer.progress, "micro_batch_size", 2)
        parts = [trainer._compute_gradients(trainer.train[start : start + 4]).loss_parts for start in (0, 4)]
        found.append((parts, {name: one.grad.clone() for name, one in trainer.parameters.items()}))
    assert all(map(torch.equal, found[0][0], found[1][0]))
    assert all(torch.equal(gradient, found[1][1][name]) for name, gradient in found[0][1].items())


def test_steps_run_in_training_mode_and_evaluation_in_evaluation_mode(trainer, monkeypatch):
    modes = []
    network, original_loss = trainer.classifier.network, TrainingLoss.__call__
    monkeypatch.setattr(
        TrainingLoss, "__call__", lambda *given: modes.append(network.training) or original_loss(*given)
    )
    network.eval()
    trainer._compute_gradients(trainer.train[:4])
    original = trainer.classifier.predict
    monkeypatch.setattr(
        trainer.classifier, "predict", lambda *a, **k: modes.append(network.training) or original(*a, **k)
    )
    trainer._finish_epoch()
    assert modes == [True, False]


def finish_epochs(trainer, monkeypatch, results):
    """Finish an epoch per (accuracy, loss[, document ANLS*]); return which were best, and the checkpoints' kinds."""
    real_scores, saved, are_best = metrics.score, [], []
    monkeypatch.setattr(Trainer, "_save", lambda self, kind: saved.append(kind))
    for accuracy, loss, *anls in results:
        monkeypatch.setattr(epoch_results, "document_anls", lambda *_, anls=anls: anls[0] if anls else None)
        monkeypatch.setattr(trainer.classifier, "total_loss", lambda *_, loss=loss: loss * len(trainer.val))
        monkeypatch.setattr(
            metrics, "score", lambda *given, a=accuracy: dataclasses.replace(real_scores(*given), accuracy=a)
        )
        are_best.append(trainer._finish_epoch().is_best)
        trainer.progress.epoch += 1
    return are_best, saved


def test_the_best_epoch_has_the_highest_accuracy_then_the_lowest_loss(trainer, monkeypatch):
    results = [(0.5, 1.0), (0.5, 1.0), (0.5, 0.9), (0.4, 0.1), (0.5, 0.95), (0.6, 2.0)]
    are_best, saved = finish_epochs(trainer, monkeypatch, results)
    assert are_best == [True, False, True, False, False, True]
    assert (trainer.progress.best_epoch, trainer.progress.best_accuracy, trainer.progress.best_loss) == (5, 0.6, 2.0)
    # The best one first: a run that is interrupted in between must not lack the best epoch of its last state.
    assert saved[:3] == ["best", "last", "last"]


def test_the_best_epoch_of_structured_answers_has_the_highest_document_anls(trainer, monkeypatch):
    results = [(0.9, 1.0, 0.3), (0.5, 1.0, 0.4), (0.95, 0.1, 0.35), (0.5, 0.9, 0.4)]
    assert finish_epochs(trainer, monkeypatch, results)[0] == [True, True, False, True]
    progress = trainer.progress
    assert (progress.best_epoch, progress.best_accuracy, progress.best_document_anls) == (3, 0.5, 0.4)
    assert [row["val_document_anls"] for row in progress.history] == [0.3, 0.4, 0.35, 0.4]
    text = run_outputs.describe_epoch(ProductHistoryRow(**progress.history[-1]))
    assert text == "val document ANLS* 0.400, loss 0.900, category accuracy 50.0 %"


def test_early_stopping_counts_the_epochs_since_the_best(trainer):
    patience = trainer.recipe.patience_epochs
    trainer.progress.best_epoch, trainer.progress.epoch = 2, 2 + patience - 1
    assert not trainer._is_patience_exhausted()
    trainer.progress.epoch += 1
    assert trainer._is_patience_exhausted()


def test_the_history_has_the_means_and_the_learning_rate_of_the_epochs_steps(trainer):
    progress = trainer.progress
    progress.epoch, progress.step, progress.step_in_epoch = 1, 2, 2
    progress.loss_sum, progress.grad_norm_sum, progress.epoch_seconds = 3.0, 5.0, 7.0
    row = trainer._finish_epoch().row
    assert (row.train_loss, row.grad_norm, row.seconds) == (1.5, 2.5, 7.0)
    assert row.learning_rate == trainer.recipe.rate(1, trainer.n_steps_per_epoch)
    assert (progress.step_in_epoch, progress.loss_sum, progress.grad_norm_sum, progress.epoch_seconds) == (0, 0, 0, 0)


def test_an_epoch_takes_every_image_once_and_knows_those_of_the_next_step(trainer, monkeypatch):
    taken = []

    def step(examples):
        taken.append((examples, trainer.upcoming))
        trainer.progress.step_in_epoch += 1

    monkeypatch.setattr(trainer, "_step", step)
    trainer._train_epoch(SimpleNamespace(update=lambda: None, set_postfix=lambda **_: None))
    (first, after_first), (second, after_second) = taken
    assert (len(first), len(second)) == (8, 2)
    assert sorted(one.image_id for one in (*first, *second)) == [one.image_id for one in trainer.train]
    assert (after_first, after_second) == (second, [])


def test_a_checkpoint_is_written_every_so_many_steps(trainer, monkeypatch):
    steps = []
    monkeypatch.setattr(trainer, "execution", loop.ExecutionSettings(save_every_steps=2))
    monkeypatch.setattr(trainer, "n_steps_per_epoch", 5)

    def step(_):
        trainer.progress.step += 1
        trainer.progress.step_in_epoch += 1

    monkeypatch.setattr(trainer, "_step", step)
    monkeypatch.setattr(Trainer, "_save", lambda self, kind: steps.append((kind, self.progress.step)))
    trainer._train_epoch(SimpleNamespace(update=lambda: None, set_postfix=lambda **_: None))
    assert steps == [("last", 2), ("last", 4)]

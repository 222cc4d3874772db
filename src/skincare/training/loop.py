"""The training loop: optimizer steps, evaluation on val, selection of the best epoch, early stopping.

The order of an epoch's images and the learning rate of a step are functions of seed, epoch and step, so that a run
resumed from a checkpoint repeats the remaining steps exactly.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from tqdm import tqdm

from skincare.dataset.chat import Example
from skincare.errors import StageError
from skincare.inference.classifier import Classifier
from skincare.modeling.out_of_memory import explained, halving
from skincare.modeling.settings import DecoderName
from skincare.training import checkpoints, optimizers, preflight, sampling, weight_average
from skincare.training.accumulation import accumulate_gradients, micro_batches
from skincare.training.checkpoints import Progress
from skincare.training.distributed import World, full_tensor
from skincare.training.epoch_results import EpochResult, Evaluation, evaluate, history_row
from skincare.training.execution import ExecutionSettings, TrainerFolders
from skincare.training.optimizer_step import TRAIN_LESS, OptimizerStepper
from skincare.training.run_spec import RunSpec
from skincare.training.step_records import StepRecord, StepRecords
from skincare.training.stopping import StopRequest, TimeLimitError
from skincare.training.training_loss import TrainingLoss

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_FEWER_ACTIVATIONS: Final = f"use --gradient-checkpointing True, fewer --max-tokens or {TRAIN_LESS}"


class Trainer:
    """Trains `parameters` of a classifier on the training examples and selects the best epoch on val."""

    def __init__(
        self, classifier: Classifier, parameters: Mapping[str, torch.nn.Parameter], spec: RunSpec,
        execution: ExecutionSettings, folders: TrainerFolders, identity: Mapping[str, Any], world: World,
        stop: StopRequest | None = None,
    ) -> None:  # fmt: skip
        recipe = spec.recipe
        self.world = world
        self.classifier = classifier
        self.parameters = parameters
        self.spec = spec
        self.recipe = recipe
        self.train = sorted(spec.data.train, key=lambda example: example.image_id)
        self.val = spec.data.val
        self.execution = execution
        self.state_folder = folders.state
        self.stop = stop or StopRequest()
        self.identity = identity
        # A trained head makes the predictions.
        self.decoder_name: DecoderName = "generate" if recipe.head == "none" else "head"
        self.decoder = classifier.decoder(self.decoder_name)
        self.progress = Progress(micro_batch_size=execution.micro_batch_size)
        self.optimizer = optimizers.make(recipe, parameters)
        self.loss = TrainingLoss(classifier, recipe, spec.seed, self.train)
        self.stepper = OptimizerStepper(self.optimizer, parameters, folders.state, identity)
        self.non_finite_report = folders.log / "non_finite.json"
        self.records = StepRecords(world, classifier.network.device, self.non_finite_report)
        # The images of the next optimizer step of the epoch, which are loaded ahead.
        self.upcoming: Sequence[Example] = ()
        self.categories = [one.category for one in self.train]
        self.n_steps_per_epoch = -(-len(self.train) // recipe.effective_batch_size)

    @property
    def seconds(self) -> float:
        """Return the time of all optimizer steps, without evaluation."""
        return round(sum(row["seconds"] for row in self.progress.history), 1)

    def resume(self, micro_batch_size: int | None = None) -> bool:
        """Load the newest checkpoint; return False if there is none.

        `micro_batch_size` overrides the saved value; the steps stay the same up to the order of additions.
        """
        state = checkpoints.latest_state(self.state_folder, "last")
        if state is None:
            return False
        self.progress = checkpoints.load_state(state, self.parameters, self.optimizer, self.identity)
        if micro_batch_size and micro_batch_size != self.progress.micro_batch_size:
            logger.info(
                "%d image(s) per pass instead of the saved %d", micro_batch_size, self.progress.micro_batch_size
            )
            self.progress.micro_batch_size = micro_batch_size
        logger.info("resuming after epoch %d, step %d", self.progress.epoch, self.progress.step)
        return True

    def run(self, on_epoch: Callable[[EpochResult], None]) -> str:
        """Train until `max_epochs` or early stopping; return the stop reason. `on_epoch` is called after each epoch.

        Raises KeyboardInterrupt after a signal, TimeLimitError at the time limit; the state is saved first.
        """
        with self.stop.handling_signals():
            try:
                # Several processes stop together, between two steps.
                with self.stop.deferred() if self.world.size > 1 else nullcontext():
                    return self._run(on_epoch)
            except KeyboardInterrupt:
                if self.world.size == 1:
                    with self.stop.deferred():
                        self._save_for_resume()
                raise

    def _run(self, on_epoch: Callable[[EpochResult], None]) -> str:
        progress = self.progress
        if not progress.history:
            on_epoch(self._finish_epoch())
        total = self.recipe.max_epochs * self.n_steps_per_epoch
        with tqdm(total=total, initial=progress.step, unit="step", desc="training", disable=None) as bar:
            while progress.epoch < self.recipe.max_epochs and not self._is_patience_exhausted():
                self._train_epoch(bar)
                on_epoch(self._finish_epoch(n_completed=1))
        return "patience" if self._is_patience_exhausted() else "max_epochs"

    def _stop_if_requested(self) -> None:
        """End the run if any process has received a signal or reached the time limit."""
        reasons = self.world.gather([self.stop.reason])
        if not any(reasons):
            return
        self._save_for_resume()
        if "signal" in reasons:
            raise KeyboardInterrupt
        progress = self.progress
        raise TimeLimitError(
            f"stopped by --max-minutes in epoch {progress.epoch + 1}, after step {progress.step} of at most "
            f"{self.recipe.max_epochs * self.n_steps_per_epoch}; the state is saved"
        )

    def _save_for_resume(self) -> None:
        """Save the state after the last completed step, unless it was saved there."""
        newest = checkpoints.latest_state(self.state_folder, "last")
        if self.progress.history and (newest is None or newest.name != checkpoints.state_name("last", self.progress)):
            self._save("last")

    def best_state(self) -> Path:
        """Return the folder of the best epoch's checkpoint."""
        state = checkpoints.latest_state(self.state_folder, "best")
        if state is None:
            raise StageError(
                f"{self.state_folder}: no checkpoint of the best epoch; start the run again with --restart"
            )
        return state

    def release(self) -> None:
        """Free the memory that only training needs."""
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.state.clear()
        network = self.classifier.network
        # The exported model needs the memory, in fp32. A quantised model is small and cannot be moved.
        if (
            network.device.type == "cuda"
            and not self.world.is_sharded
            and not getattr(network.model, "is_quantized", False)
        ):
            network.to("cpu")
            torch.cuda.empty_cache()

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of an optimizer step, counted from 0."""
        return self.recipe.rate(step, self.n_steps_per_epoch)

    def total_learning_rate(self) -> float:
        """Return the sum of the learning rates over all steps of a run."""
        return sum(self.learning_rate(step) for step in range(self.recipe.max_epochs * self.n_steps_per_epoch))

    def _train_epoch(self, bar: tqdm) -> None:
        progress, size = self.progress, self.recipe.effective_batch_size
        order = sampling.epoch_order(self.categories, self.recipe.imbalance, self.spec.seed, progress.epoch)
        while progress.step_in_epoch < self.n_steps_per_epoch:
            first = progress.step_in_epoch * size
            examples, self.upcoming = (
                [self.train[i] for i in order[start : start + size]] for start in (first, first + size)
            )
            self._step(examples)
            bar.update()
            if progress.step % self.execution.save_every_steps == 0:
                self._save("last")
            if self.records.is_read:
                bar.set_postfix(loss=f"{self.records.last_loss:.3f}", refresh=False)
                self._stop_if_requested()

    def _step(self, examples: Sequence[Example]) -> None:
        """Take an optimizer step on the mean loss of `examples`; an interrupted step leaves nothing changed."""
        started, progress = time.perf_counter(), self.progress
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(progress.step) * group["scale"]
        record = self._compute_gradients(examples)
        self.world.sum_gradients(self.parameters.values())
        record.grad_norm = full_tensor(
            torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.recipe.max_grad_norm)
        )
        with self.stop.deferred():
            self.records.add(record)
            if self.records.is_due:
                self._read_records()
            self.stepper.step(progress.step)
            progress.step += 1
            progress.step_in_epoch += 1
            progress.epoch_seconds += time.perf_counter() - started

    def _read_records(self) -> None:
        """Add the losses and gradient norms that were not read yet to the sums of the epoch."""
        for loss, grad_norm in self.records.read():
            self.progress.loss_sum += loss
            self.progress.grad_norm_sum += grad_norm

    def check(self, examples: Sequence[Example]) -> None:
        """Run the pre-flight checks on the first examples; on running out of memory with fewer per pass."""
        first = examples[: self.progress.micro_batch_size]

        def check(n_images: int) -> None:
            preflight.check(
                self.classifier, self.parameters, first[:n_images], self.recipe.learning_rate,
                self.total_learning_rate(), self.recipe.head,
            )  # fmt: skip

        _, fitted = self._halving(check, len(first), "the pre-flight")
        if fitted < len(first):
            self.progress.micro_batch_size = fitted

    def _compute_gradients(self, examples: Sequence[Example]) -> StepRecord:
        """Compute this process's part of the gradients of the mean loss; halve the micro-batch if memory runs out."""
        size = self.progress.micro_batch_size
        record, fitted = self._halving(partial(self._accumulate_gradients, examples), size, "training")
        if fitted < size:
            self.progress.micro_batch_size = fitted
            logger.warning("the batch of an optimizer step remains %d image(s)", self.recipe.effective_batch_size)
        return record

    def _halving(self, work: Callable[[int], Result], size: int, where: str) -> tuple[Result, int]:
        if not self.world.is_sharded:
            return halving(work, size, where, _FEWER_ACTIVATIONS)
        # Retrying is not possible: the other processes wait for this one inside the failed pass.
        advice = f"use a smaller --micro-batch-size, or {TRAIN_LESS}"
        with self.world.sharing_failure(), explained(f"{where} with {size} image(s) per pass", advice):
            return work(size), size

    def _accumulate_gradients(self, examples: Sequence[Example], micro_batch_size: int) -> StepRecord:
        self.classifier.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        progress = self.progress
        record = StepRecord(progress.step, progress.epoch, self.learning_rate(progress.step))
        passes, following = (
            micro_batches(self.loss, one, progress.epoch, micro_batch_size, self.world)
            for one in (examples, self.upcoming)
        )
        upcoming = following[0].examples if following else ()
        accumulate_gradients(self.loss, passes, len(examples), record, upcoming)
        return record

    def _finish_epoch(self, n_completed: int = 0) -> EpochResult:
        """Evaluate on val, count `n_completed` epochs, append to the history and write the checkpoints."""
        self.classifier.network.eval()
        self.optimizer.zero_grad(set_to_none=True)
        with weight_average.applied(self.optimizer, self.parameters, self.stop):
            evaluation = evaluate(
                self.classifier, self.recipe.head, self.val, self.decoder, self.world, self.non_finite_report
            )  # fmt: skip
        with self.stop.deferred():
            return self._record_epoch(evaluation, n_completed)

    def _record_epoch(self, evaluation: Evaluation, n_completed: int) -> EpochResult:
        self._read_records()
        progress, loss, scores = self.progress, evaluation.loss, evaluation.scores
        progress.epoch += n_completed
        row = history_row(progress, evaluation, self.learning_rate(max(progress.step - 1, 0)))
        is_best = (evaluation.criterion, -loss) > (progress.best_criterion, -progress.best_loss)
        if is_best:
            progress.best_epoch, progress.best_accuracy, progress.best_loss = progress.epoch, scores.accuracy, loss
            progress.best_document_anls = evaluation.document_anls
        progress.history.append(asdict(row))
        progress.step_in_epoch, progress.loss_sum, progress.grad_norm_sum, progress.epoch_seconds = 0, 0.0, 0.0, 0.0
        if is_best:
            with weight_average.applied(self.optimizer, self.parameters, self.stop):
                self._save("best")
        self._save("last")
        return EpochResult(row, scores, evaluation.predictions, is_best)

    def _is_patience_exhausted(self) -> bool:
        return self.progress.epoch - self.progress.best_epoch >= self.recipe.patience_epochs

    def _save(self, kind: str) -> None:
        self._read_records()  # a state after a step that was not finite is not saved
        if self.world.is_writer or self.world.is_sharded:
            checkpoints.save_state(
                self.state_folder, kind, self.parameters, self.optimizer, self.progress, self.identity,
                is_writer=self.world.is_writer,
            )  # fmt: skip

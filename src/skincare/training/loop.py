"""The training loop: optimizer steps, evaluation on val, selection of the best epoch, early stopping.

The order of an epoch's images and the learning rate of a step are functions of seed, epoch and step, so that a run
resumed from a checkpoint repeats the remaining steps exactly.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from tqdm import tqdm

from skincare.dataset.chat import Example
from skincare.errors import StageError
from skincare.evaluation import metrics
from skincare.evaluation.metrics import Scores
from skincare.inference.classifier import Classifier
from skincare.inference.predictions import Prediction
from skincare.modeling.out_of_memory import explained, halving
from skincare.modeling.settings import DecoderName
from skincare.tables import HistoryRow
from skincare.training import checkpoints, optimizers, preflight, sampling
from skincare.training.checkpoints import Progress
from skincare.training.distributed import World, full_tensor
from skincare.training.optimizer_step import TRAIN_LESS, OptimizerStepper
from skincare.training.run_spec import RunSpec
from skincare.training.training_loss import TrainingLoss

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_FEWER_ACTIVATIONS: Final = f"use --gradient-checkpointing True, fewer --max-tokens or {TRAIN_LESS}"


@dataclass(frozen=True)
class ExecutionSettings:
    """Settings that affect speed and memory of a run, but not what it learns."""

    micro_batch_size: int = 4
    eval_batch_size: int = 16
    save_every_steps: int = 200


@dataclass(frozen=True)
class EpochResult:
    """The results of an epoch on val."""

    row: HistoryRow
    scores: Scores
    predictions: list[Prediction]
    is_best: bool


class Trainer:
    """Trains `parameters` of a classifier on the training examples and selects the best epoch on val."""

    def __init__(
        self, classifier: Classifier, parameters: Mapping[str, torch.nn.Parameter], spec: RunSpec,
        execution: ExecutionSettings, state_folder: Path, identity: Mapping[str, Any], world: World,
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
        self.state_folder = state_folder
        self.identity = identity
        # A trained head makes the predictions.
        self.decoder_name: DecoderName = "generate" if recipe.head == "none" else "head"
        self.decoder = classifier.decoder(self.decoder_name)
        self.progress = Progress(micro_batch_size=execution.micro_batch_size)
        self.optimizer = optimizers.make(
            recipe.optimizer, parameters, recipe.learning_rate, recipe.rate_by_part, recipe.weight_decay,
            decays_everything=recipe.decays_everything,
        )  # fmt: skip
        self.loss = TrainingLoss(classifier, recipe, spec.seed, self.train)
        self.stepper = OptimizerStepper(self.optimizer, parameters, state_folder, identity)
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
        """Train until `max_epochs` or early stopping; return the stop reason. `on_epoch` is called after each epoch."""
        progress = self.progress
        if not progress.history:
            on_epoch(self._finish_epoch())
        total = self.recipe.max_epochs * self.n_steps_per_epoch
        with tqdm(total=total, initial=progress.step, unit="step", desc="training", disable=None) as bar:
            while progress.epoch < self.recipe.max_epochs and not self._is_patience_exhausted():
                self._train_epoch(bar)
                progress.epoch += 1
                on_epoch(self._finish_epoch())
        return "patience" if self._is_patience_exhausted() else "max_epochs"

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
            started = time.perf_counter()
            first = progress.step_in_epoch * size
            loss, grad_norm = self._step([self.train[i] for i in order[first : first + size]])
            progress.step += 1
            progress.step_in_epoch += 1
            progress.loss_sum += loss
            progress.grad_norm_sum += grad_norm
            progress.epoch_seconds += time.perf_counter() - started
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            if progress.step % self.execution.save_every_steps == 0:
                self._save("last")

    def _step(self, examples: Sequence[Example]) -> tuple[float, float]:
        """Take an optimizer step on the mean loss of `examples`; return loss and gradient norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.progress.step) * group["scale"]
        loss = self.world.sum_scalar(self._compute_gradients(examples))
        self.world.sum_gradients(self.parameters.values())
        grad_norm = full_tensor(torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.recipe.max_grad_norm))
        if not torch.isfinite(grad_norm):
            raise StageError(f"Step {self.progress.step}: the gradient is not finite; use a lower learning rate")
        self.stepper.step(self.progress.step)
        return loss, grad_norm.item()

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

    def _compute_gradients(self, examples: Sequence[Example]) -> float:
        """Compute this process's part of the gradients of the mean loss; halve the micro-batch if memory runs out."""
        size = self.progress.micro_batch_size
        loss, fitted = self._halving(partial(self._accumulate_gradients, examples), size, "training")
        if fitted < size:
            self.progress.micro_batch_size = fitted
            logger.warning("the batch of an optimizer step remains %d image(s)", self.recipe.effective_batch_size)
        return loss

    def _halving(self, work: Callable[[int], Result], size: int, where: str) -> tuple[Result, int]:
        if not self.world.is_sharded:
            return halving(work, size, where, _FEWER_ACTIVATIONS)
        # Retrying is not possible: the other processes wait for this one inside the failed pass.
        with explained(f"{where} with {size} image(s) per pass", f"use a smaller --micro-batch-size, or {TRAIN_LESS}"):
            return work(size), size

    def _accumulate_gradients(self, examples: Sequence[Example], micro_batch_size: int) -> float:
        self.classifier.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        parts: list[torch.Tensor] = []
        local = self.world.local_items(examples)
        for start in range(0, self.world.largest_local_count(examples), micro_batch_size):
            # With sharded weights all processes take part in every pass: one without images left adds a loss of zero.
            has_images = start < len(local)
            batch = local[start : start + micro_batch_size] if has_images else examples[:1]
            # Divided by the images of the whole step, over all passes and processes.
            loss = self.loss(batch, self.progress.epoch).sum() * has_images / len(examples)
            loss.backward()
            parts.append(loss.detach())
        # Read once per step: reading a value waits for the device.
        return sum(torch.stack(parts).tolist())

    def _finish_epoch(self) -> EpochResult:
        """Evaluate on val, append the epoch to the history and write the checkpoints."""
        progress = self.progress
        self.classifier.network.eval()
        self.optimizer.zero_grad(set_to_none=True)
        local = self.world.local_items(self.val)
        with self.world.gathered(self.classifier.network):
            total = self.classifier.total_loss(self.recipe.head, local)
            predicted = self.classifier.predict(local, "val", self.decoder, show_progress=False)
        loss, predictions = self.world.sum_scalar(total) / len(self.val), self.world.gather(predicted)
        scores = metrics.score(predictions, self.spec.data.labels)
        row = self._history_row(loss, scores)
        is_best = (scores.accuracy, -loss) > (progress.best_accuracy, -progress.best_loss)
        if is_best:
            progress.best_epoch, progress.best_accuracy, progress.best_loss = progress.epoch, scores.accuracy, loss
        progress.history.append(asdict(row))
        progress.step_in_epoch, progress.loss_sum, progress.grad_norm_sum, progress.epoch_seconds = 0, 0.0, 0.0, 0.0
        if is_best:
            self._save("best")
        self._save("last")
        return EpochResult(row, scores, predictions, is_best)

    def _history_row(self, loss: float, scores: Scores) -> HistoryRow:
        progress, n_steps = self.progress, self.progress.step_in_epoch
        return HistoryRow(
            epoch=progress.epoch,
            step=progress.step,
            learning_rate=self.learning_rate(max(progress.step - 1, 0)),
            train_loss=progress.loss_sum / n_steps if n_steps else None,
            grad_norm=progress.grad_norm_sum / n_steps if n_steps else None,
            val_loss=loss,
            val_accuracy=scores.accuracy,
            val_precision=scores.precision_weighted,
            val_recall=scores.recall_weighted,
            val_f1=scores.f1_weighted,
            val_macro_f1=scores.f1_macro,
            val_coverage=scores.coverage,
            seconds=round(progress.epoch_seconds, 2),
        )

    def _is_patience_exhausted(self) -> bool:
        return self.progress.epoch - self.progress.best_epoch >= self.recipe.patience_epochs

    def _save(self, kind: str) -> None:
        if self.world.is_writer or self.world.is_sharded:
            checkpoints.save_state(
                self.state_folder, kind, self.parameters, self.optimizer, self.progress, self.identity,
                is_writer=self.world.is_writer,
            )  # fmt: skip

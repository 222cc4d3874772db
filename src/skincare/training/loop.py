"""The training loop: which images make a step, what a step does, when an epoch was the best, when to stop.

The order of an epoch's images is a function of seed and epoch, and so is the learning rate of a step; a run that
goes on from a saved state therefore does what it would have done.
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
from skincare.inference import asking as evaluation
from skincare.inference.decoders import DecoderName, make_decoder
from skincare.inference.predictions import Prediction
from skincare.modeling.batches import Grid
from skincare.modeling.out_of_memory import explained, halving
from skincare.modeling.vision_features import VisionFeatures
from skincare.tables import HistoryRow
from skincare.training import checkpoints, objectives, optimizers, preflight, sampling
from skincare.training.augmentation import augment
from skincare.training.checkpoints import Progress
from skincare.training.distributed import World, full_tensor
from skincare.training.optimizer_step import TRAIN_LESS, OptimizerStepper
from skincare.training.recipes import Recipe

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_FEWER_ACTIVATIONS: Final = f"take --gradient-checkpointing True, fewer --max-tokens or {TRAIN_LESS}"


@dataclass(frozen=True)
class ExecutionSettings:
    """What decides how fast a run is and how much memory it takes, not what it learns."""

    micro_batch_size: int = 4
    eval_batch_size: int = 16
    save_every_steps: int = 200


@dataclass(frozen=True)
class EpochResult:
    """What is known after an epoch."""

    row: HistoryRow
    scores: Scores
    predictions: list[Prediction]
    is_best: bool


class Trainer:
    """One run: `parameters` of the images' recogniser learn from `train`, choices are made on `val`."""

    def __init__(
        self, images: VisionFeatures, parameters: Mapping[str, torch.nn.Parameter], recipe: Recipe,
        train: Sequence[Example], val: Sequence[Example], seed: int, speed: ExecutionSettings, state_folder: Path,
        identity: Mapping[str, Any], world: World = World(),  # noqa: B008  frozen
    ) -> None:  # fmt: skip
        self.world = world
        self.images = images
        self.parameters = parameters
        self.recipe = recipe
        self.train = sorted(train, key=lambda example: example.image_id)
        self.val = val
        self.seed = seed
        self.execution = speed
        self.state_folder = state_folder
        self.identity = identity
        # A head that is learnt is what answers.
        self.decoder_name: DecoderName = "generate" if recipe.head == "none" else "head"
        self.decoder = make_decoder(self.decoder_name, images.recogniser, images.encoder)
        self.progress = Progress(micro_batch_size=speed.micro_batch_size)
        self.inference_passes = evaluation.inference_passes(speed.eval_batch_size)
        self.optimizer = optimizers.make(
            recipe.optimizer, parameters, recipe.learning_rate, recipe.rate_by_part, recipe.weight_decay,
            decays_everything=recipe.decays_everything,
        )  # fmt: skip
        self.stepper = OptimizerStepper(self.optimizer, parameters, state_folder, identity)
        self.categories = [one.category for one in self.train]
        weights = sampling.category_weights(self.categories) if recipe.imbalance == "class_balanced" else {}
        self.weight_of = {one.image_id: weights.get(one.category, 1.0) for one in self.train}
        self.n_steps_per_epoch = -(-len(train) // recipe.effective_batch_size)

    def resume(self, micro_batch_size: int | None = None) -> bool:
        """Go on from the newest saved state; False when there is none.

        A given `micro_batch_size` counts before the saved one: the steps are the same up to the order of additions.
        """
        state = checkpoints.latest_state(self.state_folder, "last")
        if state is None:
            return False
        self.progress = checkpoints.load_state(state, self.parameters, self.optimizer, self.identity)
        if micro_batch_size and micro_batch_size != self.progress.micro_batch_size:
            logger.info("%d image(s) a pass instead of the saved %d", micro_batch_size, self.progress.micro_batch_size)
            self.progress.micro_batch_size = micro_batch_size
        logger.info("going on after epoch %d, step %d", self.progress.epoch, self.progress.step)
        return True

    def run(self, on_epoch: Callable[[EpochResult], None]) -> str:
        """Train until the epochs or the patience are used up; return which. `on_epoch` is called after each."""
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
        """Return the folder of the best epoch's state."""
        state = checkpoints.latest_state(self.state_folder, "best")
        if state is None:
            raise StageError(f"{self.state_folder}: no best state; start the run anew without --resume")
        return state

    def release(self) -> None:
        """Give back the memory that only training needs."""
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.state.clear()
        recogniser = self.images.recogniser
        # The exported model wants the room, in fp32. A quantised model is smaller and cannot be moved.
        if (
            recogniser.device.type == "cuda"
            and not self.world.is_sharded
            and not getattr(recogniser.model, "is_quantized", False)
        ):
            recogniser.to("cpu")
            torch.cuda.empty_cache()

    def learning_rate(self, step: int) -> float:
        """Return the rate of an optimizer step, 0 being the first."""
        return self.recipe.rate(step, self.n_steps_per_epoch)

    def total_learning_rate(self) -> float:
        """Return the sum of the learning rates of all steps that a whole run takes."""
        return sum(self.learning_rate(step) for step in range(self.recipe.max_epochs * self.n_steps_per_epoch))

    def _train_epoch(self, bar: tqdm) -> None:
        progress, size = self.progress, self.recipe.effective_batch_size
        order = sampling.epoch_order(self.categories, self.recipe.imbalance, self.seed, progress.epoch)
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
        """Take one optimizer step on the mean loss of `examples`; return loss and gradient norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.progress.step) * group["scale"]
        loss = self.world.sum_scalar(self._compute_gradients(examples))
        self.world.sum_gradients(self.parameters.values())
        grad_norm = full_tensor(torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.recipe.max_grad_norm))
        if not torch.isfinite(grad_norm):
            raise StageError(f"Step {self.progress.step}: the gradient is not finite; try a smaller learning rate")
        self.stepper.step(self.progress.step)
        return loss, grad_norm.item()

    def check(self, examples: Sequence[Example]) -> None:
        """Prove on the first images that they would teach what they should; fewer a pass where memory runs out."""
        first = examples[: self.progress.micro_batch_size]

        def check(n_images: int) -> None:
            preflight.check(
                self.images, self.parameters, first[:n_images], self.recipe.learning_rate, self.total_learning_rate(),
                self.recipe.head,
            )  # fmt: skip

        _, fitted = self._halving(check, len(first), "the pre-flight")
        if fitted < len(first):
            self.progress.micro_batch_size = fitted

    def _compute_gradients(self, examples: Sequence[Example]) -> float:
        """Leave this process's part of the mean loss's gradients; halve the micro-batch if it must be."""
        size = self.progress.micro_batch_size
        loss, fitted = self._halving(partial(self._accumulate_gradients, examples), size, "training")
        if fitted < size:
            self.progress.micro_batch_size = fitted
            logger.warning("the batch of a step stays %d image(s)", self.recipe.effective_batch_size)
        return loss

    def _halving(self, work: Callable[[int], Result], size: int, where: str) -> tuple[Result, int]:
        if not self.world.is_sharded:
            return halving(work, size, where, _FEWER_ACTIVATIONS)
        # The other processes would wait for this one inside the pass that it has left.
        with explained(f"{where} with {size} image(s) a pass", f"take a smaller --micro-batch-size, or {TRAIN_LESS}"):
            return work(size), size

    def _accumulate_gradients(self, examples: Sequence[Example], micro_batch_size: int) -> float:
        recogniser, encoder = self.images.recogniser, self.images.encoder
        recogniser.train()
        self.optimizer.zero_grad(set_to_none=True)
        parts: list[torch.Tensor] = []
        mine = self.world.local_items(examples)
        for start in range(0, self.world.largest_local_count(examples), micro_batch_size):
            # Sharded weights need all processes in every pass: one whose share is used up passes what counts nothing.
            some, counts = mine[start : start + micro_batch_size], start < len(mine)
            some = some if counts else examples[:1]
            grids, states = self._look(some)
            categories, hints = [example.category for example in some], [self._hint(example) for example in some]
            losses = objectives.losses(recogniser, encoder, self.recipe.head, grids, states, categories, hints)
            if self.recipe.imbalance == "focal":
                losses = sampling.focal_losses(losses)
            weights = torch.tensor([self.weight_of[example.image_id] for example in some], device=losses.device)
            loss = (losses * weights).sum() * counts / len(examples)
            loss.backward()
            parts.append(loss.detach())
        # Read once per step: every reading waits for the device.
        return sum(torch.stack(parts).tolist())

    def _look(self, examples: Sequence[Example]) -> tuple[list[Grid], list[torch.Tensor]]:
        """Return grids and states of training images, as this epoch shows them."""
        kind, epoch = self.recipe.augmentation, self.progress.epoch
        if kind == "none":
            return self.images.get([example.image for example in examples])
        shown = partial(augment, kind=kind, seed=self.seed, epoch=epoch, enough_size=self.images.encoder.enough_size)
        changes = [partial(shown, image_id=one.image_id) for one in examples]
        return self.images.views([example.image for example in examples], changes)

    def _hint(self, example: Example) -> str:
        """Return a training image's hint, as this epoch shows it."""
        is_kept = sampling.keeps_hint(self.recipe.hint_dropout, self.seed, self.progress.epoch, example.image_id)
        return example.hint if is_kept else ""

    def _finish_epoch(self) -> EpochResult:
        """Evaluate on val, write the epoch into the history and save what must be kept."""
        progress = self.progress
        self.images.recogniser.eval()
        self.optimizer.zero_grad(set_to_none=True)
        passes, mine = self.inference_passes, self.world.local_items(self.val)
        with self.world.gathered(self.images.recogniser):
            total = evaluation.total_loss(self.images, self.recipe.head, mine, passes)
            answered = evaluation.predict(self.images, self.decoder, mine, "val", passes, show_progress=False)
        loss, predictions = self.world.sum_scalar(total) / len(self.val), self.world.gather(answered)
        scores = metrics.score(predictions)
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

"""The gradient of an optimizer step, accumulated over micro-batches of images with prompts of similar length.

Which images a step has is decided before; here they are only sorted by the length of their prompts and cut, so that few
rows are padded. The gradient is that of the mean over all images of the step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from skincare.dataset.chat import Example
from skincare.training.distributed import World
from skincare.training.step_records import StepRecord
from skincare.training.training_loss import TrainingLoss


@dataclass(frozen=True)
class MicroBatch:
    """The images of a pass; one without images of its own repeats another's, whose losses do not count."""

    examples: Sequence[Example]
    has_images: bool = True


def micro_batches(
    loss: TrainingLoss, examples: Sequence[Example], epoch: int, size: int, world: World
) -> list[MicroBatch]:  # fmt: skip
    """Return this process's passes over the images of a step, the longest prompts first.

    With sharded weights all processes take part in every pass, so each has as many as the one with the most images.
    """
    local = sorted(world.local_items(examples), key=lambda one: -loss.prompt_length(one, epoch))
    starts = range(0, world.largest_local_count(examples), size)
    return [
        MicroBatch(local[start : start + size]) if start < len(local) else MicroBatch(examples[:1], has_images=False)
        for start in starts
    ]


def accumulate_gradients(
    loss: TrainingLoss, passes: Sequence[MicroBatch], n_images: int, record: StepRecord,
    upcoming: Sequence[Example] = (),
) -> None:  # fmt: skip
    """Add the gradients of a step's passes, and their losses to the record.

    `n_images` counts the images of the whole step, over all passes and processes. While a pass is computed, the images
    of the next one are loaded; `upcoming` are those of the pass after the last.
    """
    parts = []
    following = [*(one.examples for one in passes[1:]), upcoming]
    for one, next_examples in zip(passes, following, strict=True):
        losses = loss(one.examples, record.epoch, next_examples)
        part = losses.sum() * one.has_images / n_images
        part.backward()
        parts.append(part.detach())
        record.add_losses(one.examples if one.has_images else (), losses)
    record.loss_parts = torch.stack(parts)

"""The loss of training examples: their augmented images and hints of an epoch, and the weights of their categories."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from skincare.dataset.chat import Example
from skincare.inference.classifier import Classifier
from skincare.modeling.label_smoothing import LabelSmoothing
from skincare.modeling.losses import LossInputs
from skincare.modeling.staging import on_device
from skincare.modeling.vision_features import LoadedImages
from skincare.training import sampling
from skincare.training.augmentation import augment
from skincare.training.prefetch import Prefetcher
from skincare.training.recipes import Recipe


@dataclass(frozen=True)
class LoadedExamples:
    """What a pass over examples needs, in the memory of the host."""

    images: LoadedImages
    inputs: LossInputs


class TrainingLoss:
    """The weighted losses that a recipe minimises on the examples of `train`."""

    def __init__(self, classifier: Classifier, recipe: Recipe, seed: int, train: Sequence[Example]) -> None:
        self.classifier = classifier
        self.recipe = recipe
        self.seed = seed
        amount = recipe.label_smoothing
        self.smoothing = LabelSmoothing(amount, classifier.encoder) if amount else None
        is_weighted = recipe.imbalance == "class_balanced"
        self.weights = sampling.category_weights([one.category for one in train]) if is_weighted else {}
        self._loader: Prefetcher[tuple[tuple[Example, ...], int], LoadedExamples] = Prefetcher(self._load)

    def __call__(self, examples: Sequence[Example], epoch: int, upcoming: Sequence[Example] = ()) -> torch.Tensor:
        """Return the (B,) weighted losses of examples in an epoch; load the examples of the next call meanwhile."""
        loaded = self._loader.take((tuple(examples), epoch))
        features = self.classifier.features.compute(loaded.images)
        # Not earlier: both use the cache of vision features, and what is cached must not depend on their timing.
        if upcoming:
            self._loader.start((tuple(upcoming), epoch))
        losses = self.classifier.input_losses(self.recipe.head, loaded.inputs, features)
        if self.recipe.imbalance == "focal":
            losses = sampling.focal_losses(losses)
        if not self.weights:
            return losses
        return losses * on_device(torch.tensor([self.weights[one.category] for one in examples]), losses.device)

    def prompt_length(self, example: Example, epoch: int) -> int:
        """Return the number of tokens of an example in an epoch, from its image on, answer included.

        Those of an augmented image are counted as without augmentation, which may change its shape.
        """
        n_visual_tokens = self.classifier.features.n_visual_tokens(example.image)
        return self.classifier.encoder.row_length(n_visual_tokens, self._hint(example, epoch), example.answer)

    def _load(self, key: tuple[tuple[Example, ...], int]) -> LoadedExamples:
        """Read the images of examples, augmented for an epoch, and encode the prompts; runs in a background thread."""
        examples, epoch = key
        kind, names = self.recipe.augmentation, [one.image for one in examples]
        transforms = []
        if kind != "none":
            enough_size = self.classifier.encoder.enough_size
            transform = partial(augment, kind=kind, seed=self.seed, epoch=epoch, enough_size=enough_size)
            transforms = [partial(transform, image_id=one.image_id) for one in examples]
        images = self.classifier.features.load(names, transforms)
        categories, hints = [one.category for one in examples], [self._hint(one, epoch) for one in examples]
        answers = [one.answer for one in examples]
        inputs = self.classifier.loss_inputs(
            self.recipe.head, images.grids, categories, hints, answers, self.smoothing
        )  # fmt: skip
        return LoadedExamples(images, inputs)

    def _hint(self, example: Example, epoch: int) -> str:
        """Return the hint of an example; empty where this epoch drops it."""
        is_kept = sampling.keeps_hint(self.recipe.hint_dropout, self.seed, epoch, example.image_id)
        return example.hint if is_kept else ""

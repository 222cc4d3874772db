"""The loss of training examples: their augmented images and hints of an epoch, and the weights of their categories."""

from collections.abc import Sequence
from functools import partial

import torch

from skincare.dataset.chat import Example
from skincare.inference.classifier import Classifier
from skincare.modeling.label_smoothing import LabelSmoothing
from skincare.modeling.prompt_encoder import Grid
from skincare.modeling.staging import on_device
from skincare.training import sampling
from skincare.training.augmentation import augment
from skincare.training.recipes import Recipe


class TrainingLoss:
    """The weighted losses that a recipe minimises on the examples of `train`."""

    def __init__(self, classifier: Classifier, recipe: Recipe, seed: int, train: Sequence[Example]) -> None:
        self.classifier = classifier
        self.recipe = recipe
        self.seed = seed
        amount = recipe.label_smoothing
        self.smoothing = LabelSmoothing(amount, classifier.encoder) if amount else None
        is_weighted = recipe.imbalance == "class_balanced"
        weights = sampling.category_weights([one.category for one in train]) if is_weighted else {}
        self.weight_of = {one.image_id: weights.get(one.category, 1.0) for one in train}

    def __call__(self, examples: Sequence[Example], epoch: int) -> torch.Tensor:
        """Return the (B,) weighted losses of examples in an epoch."""
        grids, features = self._features(examples, epoch)
        categories, hints = [one.category for one in examples], [self._hint(one, epoch) for one in examples]
        answers = [one.answer for one in examples]
        losses = self.classifier.losses(
            self.recipe.head, grids, features, categories, hints, answers, self.smoothing
        )  # fmt: skip
        if self.recipe.imbalance == "focal":
            losses = sampling.focal_losses(losses)
        return losses * on_device(torch.tensor([self.weight_of[one.image_id] for one in examples]), losses.device)

    def _features(self, examples: Sequence[Example], epoch: int) -> tuple[list[Grid], list[torch.Tensor]]:
        """Return grids and vision features of the images, augmented for this epoch."""
        kind, names = self.recipe.augmentation, [one.image for one in examples]
        if kind == "none":
            return self.classifier.features.get(names)
        enough_size = self.classifier.encoder.enough_size
        transform = partial(augment, kind=kind, seed=self.seed, epoch=epoch, enough_size=enough_size)
        return self.classifier.features.transformed(
            names, [partial(transform, image_id=one.image_id) for one in examples]
        )

    def _hint(self, example: Example, epoch: int) -> str:
        """Return the hint of an example; empty where this epoch drops it."""
        is_kept = sampling.keeps_hint(self.recipe.hint_dropout, self.seed, epoch, example.image_id)
        return example.hint if is_kept else ""

"""The loss of training examples: augmentation and hint dropout of the epoch, focal loss and category weights."""

import dataclasses
import threading
from types import SimpleNamespace

import pytest
import torch

from skincare.dataset import chat
from skincare.errors import StageError
from skincare.labels import skincare_labels
from skincare.training import sampling
from skincare.training.recipes import RECIPES
from skincare.training.training_loss import TrainingLoss
from tests.device_syncs import DeviceTensor, counting

HINT = "Reference OCR token: oil"
TRAIN = [
    chat.example(f"clean_dataset/images/a_{i}_1.jpg", category, skincare_labels(), HINT)
    for i, category in enumerate(["Oil", "Oil", "Oil", "Peel"])
]


class FakeFeatures:
    """Records the names and transforms of loaded images, and what is loaded and computed in which thread."""

    def __init__(self):
        self.transforms, self.calls = [], []

    def load(self, names, transforms):
        self.transforms = [one.keywords for one in transforms]
        self.calls.append(("load", names, threading.current_thread().name.startswith("prefetch")))
        if "broken.jpg" in names:
            raise StageError("broken.jpg: corrupt")
        return SimpleNamespace(grids=[(1, 2, 2)] * len(names), names=names)

    def compute(self, loaded):
        self.calls.append(("compute", loaded.names, threading.current_thread().name.startswith("prefetch")))
        return [torch.zeros(4, 3)] * len(loaded.names)


class FakeClassifier:
    """Records the arguments of the last call of `loss_inputs`; the losses are 0.1, 0.2, ..."""

    def __init__(self):
        self.encoder, self.features = SimpleNamespace(enough_size=lambda size: size), FakeFeatures()
        self.passed = {}

    def loss_inputs(self, *given):
        self.passed.update(zip(("head", "grids", "categories", "hints"), given, strict=False))
        return len(given[1])

    def input_losses(self, head, inputs, features):
        return torch.arange(1, 1 + inputs) / 10


@pytest.fixture
def classifier():
    return FakeClassifier()


def loss_of(recipe, classifier):
    return TrainingLoss(classifier, RECIPES[f"sample{recipe}"], 3, TRAIN)


def test_losses_are_plain_without_weights_and_focal_loss(classifier):
    assert loss_of("", classifier)(TRAIN, 0).tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_the_focal_recipe_applies_the_focal_loss(classifier):
    expected = sampling.focal_losses(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    torch.testing.assert_close(loss_of("-focal", classifier)(TRAIN, 0), expected)


def test_the_weighted_recipe_weights_each_example_by_its_category(classifier):
    weights = sampling.category_weights([one.category for one in TRAIN])
    expected = [0.1 * weights["Oil"], 0.2 * weights["Oil"], 0.3 * weights["Oil"], 0.4 * weights["Peel"]]
    assert loss_of("-weighted", classifier)(TRAIN, 0).tolist() == pytest.approx(expected)


def test_category_weights_are_copied_to_the_device_without_waiting(classifier):
    classifier.input_losses = lambda head, inputs, features: DeviceTensor(torch.ones(inputs))
    loss, weights = loss_of("-weighted", classifier), sampling.category_weights([one.category for one in TRAIN])
    with counting() as counts:
        found = loss(TRAIN, 0)
    assert counts == {}
    assert found.value.tolist() == pytest.approx([weights[one.category] for one in TRAIN])


def test_the_length_of_a_prompt_counts_image_answer_and_the_hint_that_the_epoch_shows(classifier, tiny_encoder):
    classifier.encoder, classifier.features.n_visual_tokens = tiny_encoder, lambda image: 4
    loss = loss_of("", classifier)
    lengths = set()
    for epoch in range(8):
        for one in TRAIN:
            is_kept = sampling.keeps_hint(RECIPES["sample"].hint_dropout, 3, epoch, one.image_id)
            batch = tiny_encoder.batch(
                [(1, 4, 4)], [one.answer], hints=[HINT if is_kept else ""], without_prefix=True
            )  # fmt: skip
            assert loss.prompt_length(one, epoch) == batch.input_ids.shape[1]
            lengths.add((one.answer, batch.input_ids.shape[1]))
    assert len(lengths) == 4


@pytest.mark.parametrize("epoch", [0, 5])
def test_images_are_augmented_by_kind_seed_epoch_and_image(classifier, epoch):
    loss_of("-colour", classifier)(TRAIN[:2], epoch)
    found = [(one["kind"], one["seed"], one["epoch"], one["image_id"]) for one in classifier.features.transforms]
    assert found == [("colour", 3, epoch, one.image_id) for one in TRAIN[:2]]


def test_hints_are_dropped_as_drawn_for_the_epoch(classifier):
    loss, recipe = loss_of("", classifier), RECIPES["sample"]
    shown = set()
    for epoch in range(8):
        loss(TRAIN, epoch)
        kept = [sampling.keeps_hint(recipe.hint_dropout, 3, epoch, one.image_id) for one in TRAIN]
        assert classifier.passed["hints"] == [HINT if is_kept else "" for is_kept in kept]
        shown.add(tuple(classifier.passed["hints"]))
    assert len(shown) > 1


def test_the_next_images_are_loaded_in_the_background_after_the_features_of_these(classifier):
    loss, names = loss_of("", classifier), [one.image for one in TRAIN]
    loss(TRAIN[:2], 0, TRAIN[2:])
    found = loss(TRAIN[2:], 0)
    assert classifier.features.calls == [
        ("load", names[:2], False), ("compute", names[:2], False),
        ("load", names[2:], True), ("compute", names[2:], False),
    ]  # fmt: skip
    assert found.tolist() == pytest.approx([0.1, 0.2])


def test_images_that_were_loaded_ahead_for_nothing_are_dropped(classifier):
    """As after running out of memory, when the passes become smaller."""
    loss = loss_of("", classifier)
    loss(TRAIN[:1], 0, TRAIN[1:])
    loss(TRAIN[1:2], 0)
    loss(TRAIN[1:2], 1)
    loaded = [(names, ahead) for what, names, ahead in classifier.features.calls if what == "load"]
    assert loaded == [
        ([TRAIN[0].image], False), ([one.image for one in TRAIN[1:]], True), ([TRAIN[1].image], False),
        ([TRAIN[1].image], False),
    ]  # fmt: skip


def test_an_image_that_cannot_be_loaded_ahead_is_named_when_it_is_needed(classifier):
    loss, broken = loss_of("", classifier), dataclasses.replace(TRAIN[1], image="broken.jpg")
    assert len(loss(TRAIN[:1], 0, [broken])) == 1
    with pytest.raises(StageError, match=r"broken\.jpg: corrupt"):
        loss([broken], 0)
    assert len(loss(TRAIN[:1], 0)) == 1

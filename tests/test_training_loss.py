"""The loss of training examples: augmentation and hint dropout of the epoch, focal loss and category weights."""

from types import SimpleNamespace

import pytest
import torch

from skincare.dataset import chat
from skincare.labels import skincare_labels
from skincare.training import objectives, sampling
from skincare.training.recipes import RECIPES
from skincare.training.training_loss import TrainingLoss

HINT = "Reference OCR token: oil"
TRAIN = [
    chat.example(f"clean_dataset/images/a_{i}_1.jpg", category, skincare_labels(), HINT)
    for i, category in enumerate(["Oil", "Oil", "Oil", "Peel"])
]


class FakeImages:
    """Records the transforms of augmented images."""

    def __init__(self):
        self.encoder, self.recogniser = SimpleNamespace(enough_size=lambda size: size), None
        self.transforms = []

    def get(self, names):
        return [(1, 2, 2)] * len(names), [torch.zeros(4, 3)] * len(names)

    def views(self, names, transforms):
        self.transforms = [one.keywords for one in transforms]
        return self.get(names)


@pytest.fixture
def passed(monkeypatch):
    """The arguments of the last call of the objective, whose losses are 0.1, 0.2, ..."""
    found = {}

    def losses(*given):
        found.update(
            zip(("recogniser", "encoder", "head", "grids", "features", "categories", "hints"), given, strict=False)
        )
        return torch.arange(1, 1 + len(found["categories"])) / 10

    monkeypatch.setattr(objectives, "losses", losses)
    return found


def loss_of(recipe, images=None):
    return TrainingLoss(images or FakeImages(), RECIPES[f"sample{recipe}"], 3, TRAIN)


def test_losses_are_plain_without_weights_and_focal_loss(passed):
    assert loss_of("")(TRAIN, 0).tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_the_focal_recipe_applies_the_focal_loss(passed):
    expected = sampling.focal_losses(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    torch.testing.assert_close(loss_of("-focal")(TRAIN, 0), expected)


def test_the_weighted_recipe_weights_each_example_by_its_category(passed):
    weights = sampling.category_weights([one.category for one in TRAIN])
    expected = [0.1 * weights["Oil"], 0.2 * weights["Oil"], 0.3 * weights["Oil"], 0.4 * weights["Peel"]]
    assert loss_of("-weighted")(TRAIN, 0).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("epoch", [0, 5])
def test_images_are_augmented_by_kind_seed_epoch_and_image(passed, epoch):
    images = FakeImages()
    loss_of("-colour", images)(TRAIN[:2], epoch)
    found = [(one["kind"], one["seed"], one["epoch"], one["image_id"]) for one in images.transforms]
    assert found == [("colour", 3, epoch, one.image_id) for one in TRAIN[:2]]


def test_hints_are_dropped_as_drawn_for_the_epoch(passed):
    loss, recipe = loss_of(""), RECIPES["sample"]
    shown = set()
    for epoch in range(8):
        loss(TRAIN, epoch)
        kept = [sampling.keeps_hint(recipe.hint_dropout, 3, epoch, one.image_id) for one in TRAIN]
        assert passed["hints"] == [HINT if is_kept else "" for is_kept in kept]
        shown.add(tuple(passed["hints"]))
    assert len(shown) > 1

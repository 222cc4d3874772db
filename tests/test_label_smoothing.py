"""Label smoothing has the losses and gradients of torch's own, over the vocabulary or over the labels' trie."""

import pytest
import torch
from torch.nn import functional

from skincare.labels import skincare_labels
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.freezing import freeze
from skincare.modeling.label_smoothing import LabelSmoothing
from skincare.modeling.losses import example_losses
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.modeling.settings import Trainable
from skincare.training.recipes import RECIPES
from skincare.training.training_loss import TrainingLoss
from tests.helpers import mixed_pixels
from tests.structured_examples import ANSWERS, LABELS, PRODUCTS
from tests.test_cached_vlm import gradients, plain_losses
from tests.test_training_loss import TRAIN, FakeClassifier

CPU = torch.device("cpu")
NAMES = ["Bath Oil", "Balm", "Peel", "Eye Care"]


def test_smoothing_over_the_trie_equals_that_of_torch_among_the_possible_tokens(tiny_encoder):
    """The loss is torch's among the continuations, plus -log of the probability that they have together."""
    targets = LabelSmoothing(0.2, tiny_encoder).targets(NAMES, CPU)
    tokens = [token for name in NAMES for token in tiny_encoder.answer_tokens(name)]
    logits = torch.randn(len(tokens), len(tiny_encoder.tokenizer), dtype=torch.float64, requires_grad=True)
    found = targets.token_losses(logits, torch.tensor(tokens))
    names, expected, n_possible = skincare_labels().names, [], []
    answers = [tiny_encoder.answer_tokens(name) for name in names]
    position = 0
    for name in NAMES:
        answer = tiny_encoder.answer_tokens(name)
        for i, token in enumerate(answer):
            possible = sorted({other[i] for other in answers if other[:i] == answer[:i] and len(other) > i})
            row = logits[position]
            among = functional.cross_entropy(row[possible], torch.tensor(possible.index(token)), label_smoothing=0.2)
            expected.append(among + row.logsumexp(0) - row[possible].logsumexp(0))
            n_possible.append(len(possible))
            position += 1
    assert max(n_possible) == len({answer[0] for answer in answers}) > 2
    assert min(n_possible) == 1, "what is certain is not smoothed"
    torch.testing.assert_close(found, torch.stack(expected).to(found))
    gradients = [torch.autograd.grad(one.sum(), logits, retain_graph=True)[0] for one in (found, torch.stack(expected))]
    torch.testing.assert_close(*gradients)


def test_no_smoothing_is_the_plain_loss(tiny_encoder):
    tokens = torch.tensor(tiny_encoder.answer_tokens("Bath Oil"))
    logits = torch.randn(len(tokens), len(tiny_encoder.tokenizer))
    found = LabelSmoothing(0.0, tiny_encoder).targets(["Bath Oil"], CPU).token_losses(logits, tokens)
    torch.testing.assert_close(found, functional.cross_entropy(logits, tokens, reduction="none"))


def test_product_answers_have_losses_and_gradients_of_torchs_label_smoothing(tiny_model, tiny_encoder):
    freeze(tiny_model, Trainable())
    network, encoder = CachedVLM(tiny_model), PromptEncoder(tiny_encoder.processor, LABELS)
    pixels = mixed_pixels(encoder)
    grids, features = [one.grid for one in pixels], network.vision_features(pixels)
    found = example_losses(
        network, encoder, "none", grids, features, [one.category for one in PRODUCTS], answers=ANSWERS,
        smoothing=LabelSmoothing(0.1, encoder),
    )  # fmt: skip
    found.sum().backward()
    found_gradients = gradients(tiny_model)
    tiny_model.zero_grad()
    expected = plain_losses(tiny_model, encoder.batch(grids, ANSWERS), pixels, label_smoothing=0.1)
    expected.sum().backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for name, gradient in gradients(tiny_model).items():
        assert (gradient - found_gradients[name]).abs().max() <= 1e-4 * gradient.abs().max() + 1e-9, name


def test_the_head_is_smoothed_over_the_labels(tiny_model, tiny_encoder):
    freeze(tiny_model, Trainable(0, False, 0))
    network = CachedVLM(tiny_model)
    network.add_head(14)
    network.head.linear.bias.data.normal_()
    pixels = mixed_pixels(tiny_encoder)
    grids, features = [one.grid for one in pixels], network.vision_features(pixels)
    smoothing = LabelSmoothing(0.1, tiny_encoder)
    alone, joint, answer = (
        example_losses(network, tiny_encoder, use, grids, features, NAMES, smoothing=smoothing)
        for use in ("alone", "joint", "none")
    )
    scores = network.head_scores(tiny_encoder.batch(grids, padding_side="left"), features)
    indices = torch.tensor([skincare_labels().names.index(name) for name in NAMES])
    expected = functional.cross_entropy(scores, indices, reduction="none", label_smoothing=0.1)
    torch.testing.assert_close(alone, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(joint, answer + expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("recipe", "amount"), [("sample", None), ("sample-smooth", 0.1)])
def test_training_smooths_by_the_amount_of_the_recipe(tiny_encoder, recipe, amount):
    classifier = FakeClassifier()
    classifier.encoder = tiny_encoder
    given = []
    classifier.loss_inputs = lambda *all_given: given.append(all_given[-1]) or len(TRAIN)
    TrainingLoss(classifier, RECIPES[recipe], 0, TRAIN)(TRAIN, 0)
    assert (given[0].amount if given[0] else None) == amount

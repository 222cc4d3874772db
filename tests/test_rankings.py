"""Every variant of label ranking equals its definition over plain full-sequence scores."""

import dataclasses

import pytest
import torch
from PIL import Image

from skincare.inference import rankings
from skincare.labels import skincare_labels
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.modeling.token_trie import build_trie
from tests.helpers import mixed_pixels
from tests.test_decoders import plain_scores

CATEGORIES = skincare_labels().names
ALIASES = {one.phrase: one.label for one in skincare_labels().aliases}


@pytest.fixture
def inputs(tiny_model, tiny_encoder):
    network = CachedVLM(tiny_model.requires_grad_(False))
    pixels = mixed_pixels(tiny_encoder)
    return network, tiny_encoder, [one.grid for one in pixels], network.vision_features(pixels)


def raw(inputs, names=CATEGORIES):
    network, encoder, grids, features = inputs
    return network.score_labels(encoder.inference_batch(grids), features, build_trie(encoder, names))


def found(decoder, inputs):
    return torch.tensor([one.log_probabilities for one in decoder(*inputs[2:])])


def assert_same(one, other):
    torch.testing.assert_close(one, torch.log_softmax(other, dim=1), rtol=0, atol=2e-3)


def test_synonyms_are_scored_as_in_a_plain_pass_and_pooled_by_category(inputs):
    network, encoder, grids, features = inputs
    decoder = rankings.synonyms(network, encoder)
    names = decoder.trie.names
    scores = raw(inputs, names)
    checked = range(0, len(names), 9)
    for i, (grid, image) in enumerate(zip(grids, features, strict=True)):
        expected = plain_scores(network, encoder, grid, image, [names[n] for n in checked])
        torch.testing.assert_close(scores[i, list(checked)], expected, rtol=0, atol=1e-3)
    categories = [ALIASES.get(name.lower(), name) for name in names]
    pooled = [scores[:, [c == category for c in categories]].exp().sum(dim=1).log() for category in CATEGORIES]
    assert len(names) == len(CATEGORIES) + sum(category is not None for category in ALIASES.values())
    assert_same(found(decoder, inputs), torch.stack(pooled, dim=1))


def test_synonyms_of_other_languages_are_no_answers_of_an_english_prompt(inputs):
    labels = skincare_labels()
    foreign = labels.aliases[0]._replace(phrase="duschgel", language="de")
    encoder = PromptEncoder(inputs[1].processor, dataclasses.replace(labels, aliases=(*labels.aliases, foreign)))
    names = rankings.synonyms(inputs[0], encoder).trie.names
    assert names == rankings.synonyms(*inputs[:2]).trie.names


def test_per_token_divides_by_the_tokens_of_each_name(inputs):
    network, encoder, _, _ = inputs
    lengths = torch.tensor([len(encoder.answer_tokens(name)) for name in CATEGORIES])
    assert len(set(lengths.tolist())) > 1
    assert_same(found(rankings.per_token(network, encoder), inputs), raw(inputs) / lengths)


def test_pmi_subtracts_the_scores_of_a_white_image(inputs):
    network, encoder, _, _ = inputs
    decoder = rankings.pmi(network, encoder)
    white = encoder.patches(Image.new("RGB", (448, 448), "white"))
    prior = raw((network, encoder, [white.grid], network.vision_features([white])))
    assert_same(found(decoder, inputs), raw(inputs) - prior)
    assert prior.std() > 0.1

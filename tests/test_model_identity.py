"""Every field of the prediction cache's key: whatever changes an output changes the identity."""

import copy
import dataclasses
from types import SimpleNamespace

import pytest
import torch

from skincare.inference.model_identity import model_identity
from skincare.labels import skincare_labels
from skincare.modeling.loading import load_processor
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.paths import TINY_MODEL


def changed_mean(network, encoder):
    encoder.processor.image_processor.image_mean = [0.1, 0.2, 0.3]


def changed_limits(network, encoder):
    encoder.processor.image_processor.size = {"shortest_edge": 784, "longest_edge": 7840}


def changed_weights(network, encoder):
    network.model.bias.data += 1


def added_head(network, encoder):
    network.head = torch.nn.Linear(2, 2)


def changed_precision(network, encoder):
    network.dtype = torch.bfloat16


def changed_device(network, encoder):
    network.device = torch.device("cuda")


def changed_prompt(network, encoder):
    encoder.prompt_text += " "


def changed_labels(network, encoder):
    encoder.labels = dataclasses.replace(encoder.labels, aliases=encoder.labels.aliases[1:])


@pytest.fixture(scope="module")
def processor():
    return load_processor(TINY_MODEL)


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        (changed_mean, {"processor_hash"}),
        (changed_limits, {"processor_hash", "min_pixels", "max_pixels"}),
        (changed_weights, {"weight_hash"}),
        (added_head, {"head_hash"}),
        (changed_precision, {"dtype"}),
        (changed_device, {"device"}),
        (changed_prompt, {"prompt_hash"}),
        (changed_labels, {"labels"}),
    ],
)
def test_the_identity_changes_with(processor, change, fields):
    network = SimpleNamespace(model=torch.nn.Linear(2, 2), head=None, dtype=torch.float32, device=torch.device("cpu"))
    encoder = PromptEncoder(copy.deepcopy(processor), skincare_labels())
    before = model_identity(network, encoder)
    assert before == model_identity(network, encoder)
    change(network, encoder)
    after = model_identity(network, encoder)
    assert {name for name in before if before[name] != after[name]} == fields

"""How the images of a step are cut into passes: sorted by length, none lost, as many passes in every process."""

from types import SimpleNamespace

import pytest
import torch

from skincare.training.accumulation import accumulate_gradients, micro_batches
from skincare.training.distributed import World
from skincare.training.step_records import StepRecord

LENGTHS = [5, 9, 5, 7, 9, 5, 7]
EXAMPLES = [SimpleNamespace(name=i, length=length) for i, length in enumerate(LENGTHS)]


class FakeLoss:
    """The loss of an example is its name times a weight; records what is loaded ahead."""

    def __init__(self):
        self.weight, self.calls = torch.tensor(2.0, requires_grad=True), []

    def prompt_length(self, example, epoch):
        return example.length

    def __call__(self, examples, epoch, upcoming):
        self.calls.append(([one.name for one in examples], [one.name for one in upcoming]))
        return self.weight * torch.tensor([float(one.name) for one in examples])


def names(passes):
    return [[one.name for one in part.examples] if part.has_images else [] for part in passes]


def test_prompts_of_equal_length_are_passed_together():
    found = micro_batches(FakeLoss(), EXAMPLES, 0, 2, World())
    assert names(found) == [[1, 4], [3, 6], [0, 2], [5]]


@pytest.mark.parametrize("size", [1, 3, 10])
def test_every_image_of_the_step_is_in_one_pass(size):
    found = names(micro_batches(FakeLoss(), EXAMPLES, 0, size, World()))
    assert sorted(name for part in found for name in part) == list(range(7))
    assert all(len(part) <= size for part in found)


def test_images_of_equal_length_keep_their_order():
    same = [SimpleNamespace(name=i, length=4) for i in range(5)]
    assert names(micro_batches(FakeLoss(), same, 0, 2, World())) == [[0, 1], [2, 3], [4]]


def test_processes_make_equally_many_passes_over_their_own_images():
    parts = [names(micro_batches(FakeLoss(), EXAMPLES[:5], 0, 1, World(rank, 4))) for rank in range(4)]
    assert parts == [[[4], [0]], [[1], []], [[2], []], [[3], []]]


def test_the_gradient_is_that_of_the_mean_and_the_next_pass_is_loaded_ahead():
    loss, record = FakeLoss(), StepRecord(0, 0, 0.1)
    passes = micro_batches(loss, EXAMPLES, 0, 3, World())
    accumulate_gradients(loss, passes, len(EXAMPLES), record, EXAMPLES[:1])
    assert loss.weight.grad == pytest.approx(sum(range(7)) / 7)
    assert record.loss_parts.sum() == pytest.approx(2 * sum(range(7)) / 7)
    assert loss.calls == [([1, 4, 3], [6, 0, 2]), ([6, 0, 2], [5]), ([5], [0])]


def test_a_pass_without_images_adds_nothing():
    loss, record = FakeLoss(), StepRecord(0, 0, 0.1)
    passes = micro_batches(loss, EXAMPLES[1:6], 0, 1, World(3, 4))
    accumulate_gradients(loss, passes, 5, record)
    assert loss.weight.grad == pytest.approx(4 / 5)
    assert [len(one) for one in record.example_losses] == [1, 0]

"""The plan counts what a step really keeps, and chooses the largest batch that fits."""

import dataclasses

import pytest
import torch

from skincare.modelling.freezing import Trainable, freeze
from skincare.modelling.model import load_config, load_model
from skincare.modelling.recogniser import Recogniser
from skincare.paths import TINY_MODEL
from skincare.training import adapters, memory_plan
from skincare.training.adapters import Adapter
from skincare.training.memory_plan import GIB
from tests.helpers import noise_picture

GRID = (1, 12, 12)


def planned(capacity=16 * GIB, batch_size=8, trainable=Trainable(), n_tokens=150, adapter=None, n_opening=0):  # noqa: B008
    return memory_plan.plan(
        load_config(TINY_MODEL), trainable, n_tokens, GRID, batch_size, capacity, adapter=adapter, n_opening=n_opening
    )


def test_counts_are_those_of_the_loaded_model(tiny_model):
    found = planned()
    parameters = freeze(tiny_model, Trainable())
    assert found.n_parameters == sum(p.numel() for p in tiny_model.parameters())
    assert found.n_trainable == sum(p.numel() for p in parameters.values())
    assert sum(found.parameters_by_module.values()) == found.n_trainable
    assert found.gradient_bytes == 4 * found.n_trainable
    assert found.optimizer_bytes == 8 * found.n_trainable


@pytest.mark.parametrize("opening_apart", [False, True], ids=["whole", "opening_apart"])
def test_activations_are_what_autograd_keeps_of_a_real_pass(tiny_model, tiny_encoder, opening_apart):
    """Measured on the same model in bf16 autocast; the head's and the loss's share is not in the plan."""
    freeze(tiny_model.to(torch.bfloat16), Trainable())
    tiny_model.config.dtype = torch.bfloat16
    recogniser = Recogniser(tiny_model)
    pixels = [tiny_encoder.pixels(noise_picture(168, 168, seed)) for seed in range(4)]
    states = recogniser.picture_states(pixels)
    batch = tiny_encoder.batch([one.grid for one in pixels], ["Moisturiser"] * 4, opening_apart=opening_apart)
    weights = {parameter.untyped_storage().data_ptr() for parameter in tiny_model.parameters()}
    kept = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        recogniser(batch, states).mean()
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    n_opening = len(batch.opening)
    found = planned(n_tokens=n_opening + batch.input_ids.shape[1], n_opening=n_opening)
    assert measured == pytest.approx(found.activation_bytes_per_step + 4 * found.activation_bytes_per_picture, rel=0.15)


def test_an_opening_that_is_read_once_takes_less_and_only_where_it_is():
    whole, apart = planned(), planned(n_opening=60)
    assert apart.activation_bytes_per_picture < 0.8 * whole.activation_bytes_per_picture
    everything = [planned(trainable=Trainable(everything=True), n_opening=n) for n in (0, 60)]
    assert everything[0] == everything[1]


def test_more_trained_layers_keep_more():
    one, two = (planned(trainable=Trainable(n_language_layers=n)) for n in (1, 3))
    assert two.n_trainable > one.n_trainable
    assert two.activation_bytes_per_picture >= one.activation_bytes_per_picture


def test_the_choice_is_the_largest_that_fits():
    plenty = planned()
    assert (plenty.micro_batch_size, plenty.gradient_checkpointing) == (8, False)
    assert plenty.total_bytes <= plenty.capacity_bytes
    room_for_four = planned(capacity=memory_plan._total(plenty.fixed_bytes, plenty.activation_bytes_per_picture, 4))
    assert (room_for_four.micro_batch_size, room_for_four.gradient_checkpointing) == (4, False)


def test_checkpointing_is_chosen_only_where_one_picture_does_not_fit():
    plenty = planned()
    fixed, per_picture = plenty.fixed_bytes, plenty.activation_bytes_per_picture
    tight = planned(capacity=memory_plan._total(fixed, per_picture, 1) - 1)
    assert tight.gradient_checkpointing
    assert tight.total_bytes <= tight.capacity_bytes


def test_what_cannot_fit_says_so():
    lines = list(memory_plan.describe(planned(capacity=GIB // 2)))
    assert any("DOES NOT FIT" in line for line in lines)
    assert not any("DOES NOT FIT" in line for line in memory_plan.describe(planned()))


def test_a_plan_is_plain_json():
    assert all(isinstance(value, int | bool | dict) for value in dataclasses.asdict(planned()).values())


def test_lora_is_counted_beside_the_modules_that_learn(tiny_model):
    found = planned(trainable=Trainable(0, False, 0), adapter=Adapter())
    adapters.add_lora(tiny_model, Adapter(), seed=0)
    assert found.parameters_by_module == {"LoRA": sum(p.numel() for p in adapters.learn_lora(tiny_model).values())}
    assert found.activation_bytes_per_picture > 0
    both = planned(adapter=Adapter())
    assert sum(both.parameters_by_module.values()) == both.n_trainable > planned().n_trainable


@pytest.mark.parametrize("n_bits", [8, 4])
def test_quantised_weights_count_as_what_they_take(n_bits):
    pytest.importorskip("bitsandbytes")
    few = Adapter(n_bits=n_bits)
    state = load_model(TINY_MODEL, torch.device("cpu"), quantisation=adapters.quantisation(few)).state_dict()
    kinds = ("_proj.weight", "absmax", "SCB")  # the weights and the factors of their blocks or rows
    measured = sum(one.nbytes for name, one in state.items() if ".language_model." in name and name.endswith(kinds))
    plain = memory_plan.meta_model(load_config(TINY_MODEL)).model.language_model.state_dict()
    before = sum(one.nbytes for name, one in plain.items() if name.endswith(kinds))
    of_adapter = [planned(trainable=Trainable(0, False, 0), adapter=one).weight_bytes for one in (Adapter(), few)]
    spared = of_adapter[0] - of_adapter[1]
    assert spared == pytest.approx(before - measured, rel=0.05)

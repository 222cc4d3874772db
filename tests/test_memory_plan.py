"""The plan matches the memory of real steps and chooses the largest micro-batch that fits."""

import dataclasses

import pytest
import torch
from benchmarks.live_bytes import LiveBytes
from transformers import AutoConfig, AutoModelForImageTextToText

from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.freezing import freeze
from skincare.modeling.loading import load_config, load_model
from skincare.modeling.settings import Trainable
from skincare.paths import TINY_MODEL
from skincare.training import activation_memory, adapters, memory_plan
from skincare.training.gradient_checkpointing import enable_checkpointing
from skincare.training.memory_plan import GIB
from skincare.training.recipes import Adapter
from tests.helpers import noise_image

GRID = (1, 12, 12)


def planned(capacity=16 * GIB, batch_size=8, trainable=Trainable(), n_tokens=150, **options):  # noqa: B008
    return memory_plan.plan(load_config(TINY_MODEL), trainable, n_tokens, GRID, batch_size, capacity, **options)


def test_parameter_counts_match_the_loaded_model(tiny_model):
    found = planned()
    parameters = freeze(tiny_model, Trainable())
    assert found.n_parameters == sum(p.numel() for p in tiny_model.parameters())
    assert found.n_trainable == sum(p.numel() for p in parameters.values())
    assert sum(found.parameters_by_module.values()) == found.n_trainable
    assert found.gradient_bytes == 4 * found.n_trainable
    assert found.optimizer_bytes == 8 * found.n_trainable


def stored_bytes(network, encoder, n_images, *, without_prefix=False):
    """The bytes that autograd stores in a real pass in bf16 autocast, without weights, and the batch."""
    pixels = [encoder.patches(noise_image(168, 168, seed)) for seed in range(n_images)]
    features = network.vision_features(pixels)
    batch = encoder.batch([one.grid for one in pixels], ["Moisturiser"] * n_images, without_prefix=without_prefix)
    # As many outputs as a batch can need whose rows are padded: the plan counts all.
    batch = dataclasses.replace(batch, n_outputs=batch.input_ids.shape[1])
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.model.parameters()}
    stored = {}

    def store(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            stored[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(store, lambda tensor: tensor):
        network(batch, features).mean()
    return sum(tensor.untyped_storage().nbytes() for tensor in stored.values()), batch


def in_bf16(model, trainable):
    freeze(model.to(torch.bfloat16), trainable)
    model.config.dtype = torch.bfloat16
    return CachedVLM(model)


@pytest.mark.parametrize("without_prefix", [False, True], ids=["whole", "cached_prefix"])
def test_activations_match_those_that_autograd_stores_in_a_real_pass(tiny_model, tiny_encoder, without_prefix):
    """The plan is never below the measured size, and above it only by the effect of autocast on trained parts."""
    measured, batch = stored_bytes(in_bf16(tiny_model, Trainable()), tiny_encoder, 4, without_prefix=without_prefix)
    n_prefix = len(batch.prompt_prefix)
    found = planned(n_tokens=n_prefix + batch.input_ids.shape[1], n_prefix=n_prefix)
    assert found.cast_bytes == 2 * found.n_trainable
    per_step = found.activation_bytes_per_step + found.cast_bytes
    assert measured < per_step + 4 * found.activation_bytes_per_image < 1.35 * measured


@pytest.mark.parametrize(
    "trainable", [Trainable(), Trainable(4, True, 4), Trainable(everything=True)], ids=["parts", "k4", "all"]
)
def test_checkpointed_activations_match_a_real_pass(tiny_model, tiny_encoder, trainable):
    """Per additional image: the constant part of a pass is excluded."""
    network = in_bf16(tiny_model, trainable)
    enable_checkpointing(tiny_model)
    network.train()
    (four, batch), (eight, _) = (stored_bytes(network, tiny_encoder, n) for n in (4, 8))
    found = planned(n_tokens=batch.input_ids.shape[1], trainable=trainable)
    assert 1 < found.checkpointed_bytes_per_image / ((eight - four) / 4) < 1.7
    assert found.checkpointed_bytes_per_image < 0.9 * found.activation_bytes_per_image


def test_the_plan_of_long_answers_holds_all_live_tensors_of_a_pass(tiny_encoder):
    """With many logits, forward and backward pass of the loss included."""
    config = load_config(TINY_MODEL)
    config.text_config.vocab_size = 20_000
    network = in_bf16(AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16), Trainable())
    pixels = [tiny_encoder.patches(noise_image(168, 168))] * 2
    features = network.vision_features(pixels)
    answer = "Peel, Serum and Toner. " * 12
    batch = tiny_encoder.batch([one.grid for one in pixels], [answer] * 2, without_prefix=True)
    network(batch, features)  # computes the prompt prefix
    with LiveBytes() as live:
        network(batch, features).mean().backward()
    n_prefix, n_answer = len(batch.prompt_prefix), len(tiny_encoder.answer_tokens(answer))
    found = memory_plan.plan(
        config, Trainable(), n_prefix + batch.input_ids.shape[1], GRID, 2, 16 * GIB, n_prefix=n_prefix,
        n_answer=n_answer,
    )  # fmt: skip
    per_step = found.activation_bytes_per_step + found.cast_bytes
    assert 1 < (per_step + 2 * found.activation_bytes_per_image) / live.peak < 1.1


@pytest.mark.slow
def test_checkpointed_activations_at_full_size_match_the_measured_ones():
    """In MiB per image; trained vision blocks are not checkpointed, which a count of layer inputs would miss."""
    config = AutoConfig.for_model(
        "qwen2_vl", tie_word_embeddings=True,
        text_config={"vocab_size": 151_936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
                     "num_attention_heads": 12, "num_key_value_heads": 2,
                     "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}},
        vision_config={"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16, "mlp_ratio": 4},
    )  # fmt: skip
    for trainable, expected in ((Trainable(), 73), (Trainable(4, True, 4), 210), (Trainable(everything=True), 1494)):
        found = memory_plan.plan(config, trainable, 231, (1, 2, 256), 4, 24 * GIB, with_alternatives=False)
        assert found.checkpointed_bytes_per_image / 2**20 == pytest.approx(expected, rel=0.15)
    assert not found.fits, "training the whole model in 24 GiB"


def test_a_cached_prompt_prefix_saves_memory_only_where_it_is_used():
    whole, cached = planned(), planned(n_prefix=60)
    assert cached.activation_bytes_per_image < 0.8 * whole.activation_bytes_per_image
    everything = [planned(trainable=Trainable(everything=True), n_prefix=n) for n in (0, 60)]
    assert everything[0] == everything[1]


def test_each_process_stores_its_shard_and_gathers_the_model():
    whole, shard = planned(), planned(n_shards=2, n_prefix=60, has_average=True)
    halves = ("weight_bytes", "gradient_bytes", "optimizer_bytes")
    assert [getattr(shard, name) for name in halves] == [getattr(whole, name) // 2 for name in halves]
    assert (whole.average_bytes, shard.average_bytes) == (0, 4 * whole.n_trainable // 2)
    assert (whole.gathered_bytes, shard.gathered_bytes) == (0, 2 * whole.n_parameters)
    assert (whole.cast_bytes, shard.cast_bytes) == (2 * whole.n_trainable, 0)
    assert shard.activation_bytes_per_image == whole.activation_bytes_per_image, "no process caches the prefix"


def test_more_trained_layers_store_more_activations():
    one, two = (planned(trainable=Trainable(n_language_layers=n)) for n in (1, 3))
    assert two.n_trainable > one.n_trainable
    assert two.activation_bytes_per_image >= one.activation_bytes_per_image


def test_the_largest_micro_batch_that_fits_is_chosen():
    plenty = planned()
    assert (plenty.micro_batch_size, plenty.gradient_checkpointing) == (8, False)
    assert plenty.total_bytes <= plenty.capacity_bytes
    room_for_four = planned(capacity=memory_plan._total(plenty.fixed_bytes, plenty.activation_bytes_per_image, 4))
    assert (room_for_four.micro_batch_size, room_for_four.gradient_checkpointing) == (4, False)


def test_checkpointing_is_chosen_only_if_one_image_does_not_fit():
    plenty = planned()
    fixed, per_image = plenty.fixed_bytes, plenty.activation_bytes_per_image
    tight = planned(capacity=memory_plan._total(fixed, per_image, 1) - 1)
    assert tight.gradient_checkpointing
    assert tight.total_bytes <= tight.capacity_bytes


def test_a_plan_that_cannot_fit_is_reported():
    lines = list(memory_plan.describe(planned(capacity=GIB // 2)))
    assert any("DOES NOT FIT" in line for line in lines)
    assert any("none of these fits" in line for line in lines), "half of it is CUDA's own share"
    assert not any("DOES NOT FIT" in line for line in memory_plan.describe(planned()))


def test_a_misfit_lists_alternatives_that_fit():
    everything = Trainable(everything=True)
    roomy = planned(trainable=everything)
    capacity = memory_plan._total(roomy.fixed_bytes, 0, 1) - 1
    found = planned(trainable=everything, capacity=capacity)
    assert not found.fits
    assert found.alternatives["LoRA (-lora)"] < found.alternatives["AdamW with 8-bit states (-adamw8bit)"]
    assert max(found.alternatives.values()) < found.total_bytes
    text = "\n".join(memory_plan.describe(found))
    assert "fits" in text.partition("LoRA (-lora)")[0].splitlines()[-1]
    assert "-k4" in text
    assert "choice for" not in text


def test_a_plan_is_plain_json():
    assert all(isinstance(value, int | bool | dict) for value in dataclasses.asdict(planned()).values())


def test_lora_is_counted_in_addition_to_trained_modules(tiny_model):
    found = planned(trainable=Trainable(0, False, 0), adapter=Adapter())
    adapters.add_lora(tiny_model, Adapter(), seed=0)
    assert found.parameters_by_module == {
        "LoRA": sum(p.numel() for p in adapters.enable_lora_training(tiny_model).values())
    }
    assert found.activation_bytes_per_image > 0
    both = planned(adapter=Adapter())
    assert sum(both.parameters_by_module.values()) == both.n_trainable > planned().n_trainable


@pytest.mark.parametrize("n_bits", [8, 4])
def test_quantised_weights_are_counted_with_their_size(n_bits):
    pytest.importorskip("bitsandbytes")
    few = Adapter(n_bits=n_bits)
    state = load_model(TINY_MODEL, torch.device("cpu"), quantisation=adapters.quantisation_config(few)).state_dict()
    kinds = ("_proj.weight", "absmax", "SCB")  # the weights and the factors of their blocks or rows
    measured = sum(one.nbytes for name, one in state.items() if ".language_model." in name and name.endswith(kinds))
    plain = activation_memory.meta_model(load_config(TINY_MODEL)).model.language_model.state_dict()
    before = sum(one.nbytes for name, one in plain.items() if name.endswith(kinds))
    of_adapter = [planned(trainable=Trainable(0, False, 0), adapter=one).weight_bytes for one in (Adapter(), few)]
    spared = of_adapter[0] - of_adapter[1]
    assert spared == pytest.approx(before - measured, rel=0.05)

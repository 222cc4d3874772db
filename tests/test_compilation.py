"""Compiled layers give the step of plain ones, for few shapes; without a compiler the run stays plain."""

import dataclasses
import os

import pytest
import torch
from torch._dynamo.utils import counters

from skincare.errors import StageError
from skincare.labels import skincare_labels
from skincare.modeling import language_layers
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.freezing import freeze
from skincare.modeling.loading import load_config, load_processor
from skincare.modeling.losses import example_losses, loss_inputs
from skincare.modeling.pass_functions import PassFunctions
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.modeling.settings import PixelLimits, Trainable
from skincare.paths import TINY_MODEL
from skincare.product.schema import Product
from skincare.prompts import labels_for
from skincare.training import answer_lengths, compilation, gradient_checkpointing, memory_plan, planning
from skincare.training.recipes import RECIPES
from skincare.training.run_settings import RunSettings
from tests.helpers import noise_image

ANSWERS = ["Peel", "Bath Salts"]
SHAPES = ((140, 168), (168, 168))
COMPILER = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("TEST_COMPILERS"), reason="takes a minute: TEST_COMPILERS=1 runs it"),
]


@pytest.fixture(scope="module")
def encoder():
    return PromptEncoder(load_processor(TINY_MODEL, PixelLimits(20, 60)), skincare_labels())


@pytest.fixture
def network(tiny_model):
    language_model = tiny_model.model.language_model
    language_model.layers = language_model.layers[-3:]  # two are frozen: one graph serves both
    for i, layer in enumerate(language_model.layers):
        layer.self_attn.layer_idx = i
    tiny_model.model.visual.blocks = tiny_model.model.visual.blocks[-2:]
    freeze(tiny_model, Trainable())
    yield CachedVLM(tiny_model).train()
    torch._dynamo.reset()


def step(network, encoder, grids, features):
    """The losses and gradients of a pass over two images."""
    network.zero_grad()
    losses = example_losses(network, encoder, "none", grids, features, ANSWERS)
    losses.mean().backward()
    return losses.detach(), {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("has_lower_right_kernel", [False, True], ids=["cpu_mask", "cuda_mask"])
@pytest.mark.parametrize(
    "backend", ["eager", *(pytest.param(one, marks=COMPILER) for one in ("aot_eager", "inductor"))]
)
def test_compiled_layers_give_the_plain_step_with_a_graph_per_length_and_kind(
    network, encoder, monkeypatch, backend, has_lower_right_kernel
):
    monkeypatch.setattr(language_layers, "has_lower_right_kernel", lambda device: has_lower_right_kernel)
    pixels = [[encoder.patches(noise_image(*shape, seed=i)) for i in range(2)] for shape in SHAPES]
    inputs = [([one.grid for one in pair], network.vision_features(pair)) for pair in pixels]
    steps = [step(network, encoder, *one) for one in inputs]
    counters.clear()
    assert compilation.compile_layers(network, 60, backend=backend)
    lengths, padded_lengths = set(), set()
    for one, (losses, gradients) in zip(inputs, steps, strict=True):
        found_losses, found_gradients = step(network, encoder, *one)
        torch.testing.assert_close(found_losses, losses, rtol=1e-5, atol=1e-6)
        assert found_gradients.keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(found_gradients[name], gradient, rtol=1e-3, atol=1e-6)
        for found, multiple in ((lengths, 1), (padded_lengths, 16)):
            batch = encoder.batch(one[0], ANSWERS, without_prefix=True, length_multiple=multiple)
            found.add(batch.input_ids.shape[1])
    assert (len(lengths), len(padded_lengths)) == (2, 1)
    # The probe, the vision blocks' MLPs, and language layers but the last for each length.
    assert counters["stats"]["unique_graphs"] == 2 + len(padded_lengths)
    assert not counters["graph_break"]


@pytest.mark.parametrize(("shortest", "longest"), [(36, 36), (64, 128), (64, 256), (256, 512), (256, 1280), (4, 1280)])
def test_prompts_of_a_run_have_few_lengths(shortest, longest):
    """With 25 tokens of text and up to 12 of the answer."""
    multiple = compilation.length_multiple(longest)
    lengths = {-(-n // multiple) for n in range(shortest + 26, longest + 38)}
    assert len(lengths) <= compilation.MOST_LENGTHS
    assert multiple <= max(16, longest / 8)


def test_hints_and_structured_answers_count_as_varying_tokens(encoder):
    labels = labels_for("product", skincare_labels())
    hint, answer = "Text on the pack: " + 60 * "noor ", Product(category="Peel", details=40 * "mild ").to_json()
    for of_product, hints, answers in ((False, (), ()), (False, (hint,), ()), (True, (hint,), (answer,))):
        one = PromptEncoder(encoder.processor, labels) if of_product else encoder
        lengths = planning.prompt_lengths(one, hints, answers)
        label = answer_lengths.longest(one, one.labels.names)
        more = sum(len(one.question_tokens(text)) - len(one.question_tokens("")) for text in hints)
        more += sum(len(one.answer_tokens(text)) - len(one.answer_tokens(label)) for text in answers)
        assert lengths.n_varying == pytest.approx(more, abs=2), "the tokens at both ends of a hint may merge"
        assert (lengths.n_varying == 0) == (not hints)


@pytest.mark.parametrize("trainable", [Trainable(), Trainable(everything=True)], ids=["cached_prefix", "whole"])
def test_the_memory_plan_counts_the_padded_length(tiny_model, encoder, monkeypatch, trainable):
    """The longest prompt, with the padding of the run and behind the cached prefix where there is one."""
    measured = []
    monkeypatch.setattr(memory_plan, "_measure", lambda *sizes: measured.append(sizes[3:5]) or (1, 2, 1, 1))
    hint, recipe = "Text on the pack: mild", dataclasses.replace(RECIPES["sample"], trainable=trainable)
    lengths = planning.prompt_lengths(encoder, [hint])
    for is_compiled in (False, True):
        settings = RunSettings(model=str(TINY_MODEL), min_tokens=20, max_tokens=60, compile=is_compiled)
        planning.plan_memory(settings, recipe, load_config(TINY_MODEL), lengths)
    freeze(tiny_model, trainable)
    network = CachedVLM(tiny_model).train()
    grid = (1, encoder.merge_size, 60 * encoder.merge_size)
    for multiple, found in zip((1, compilation.length_multiple(60 + lengths.n_varying)), measured, strict=True):
        network.functions = PassFunctions(length_multiple=multiple)
        batch = loss_inputs(network, encoder, "none", [grid], ["Moisturiser"], [hint]).batch
        assert found == (len(batch.prompt_prefix) + batch.input_ids.shape[1], len(batch.prompt_prefix))
    assert measured[0] != measured[1]


def test_the_graphs_of_all_lengths_are_below_the_recompile_limit(network):
    with torch._dynamo.config.patch(recompile_limit=8):
        assert compilation.compile_layers(network, 60, backend="eager")
        # Frozen and trained layers, and up to three numbers of images in a pass.
        assert torch._dynamo.config.recompile_limit >= 2 * 3 * compilation.MOST_LENGTHS


def test_without_a_compiler_the_run_stays_plain_with_one_warning(network, caplog):
    def backend(graph, inputs):
        raise RuntimeError("\nno C++ compiler\nand more")

    assert not compilation.compile_layers(network, 60, backend=backend)
    assert network.functions == PassFunctions()
    own = [record for record in caplog.records if record.name.startswith("skincare")]
    assert [record.levelname for record in own] == ["WARNING"]
    assert "no C++ compiler" in own[0].getMessage()


def test_checkpointed_layers_are_refused(network):
    gradient_checkpointing.enable_checkpointing(network.model)
    with pytest.raises(StageError, match="add --gradient-checkpointing False"):
        compilation.compile_layers(network, 60)


def test_evaluation_uses_the_plain_layers(network, encoder):
    def fails(*_):
        raise AssertionError("compiled")

    network.functions = PassFunctions(fails, fails)
    pixels = [encoder.patches(noise_image(168, 168))]
    grids, features = [one.grid for one in pixels], network.vision_features(pixels)
    with pytest.raises(AssertionError, match="compiled"):
        example_losses(network, encoder, "none", grids, features, ["Peel"])
    network.eval()
    example_losses(network, encoder, "none", grids, features, ["Peel"])
    network.generate(encoder, encoder.inference_batch(grids), features, 2)

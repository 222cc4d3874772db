"""Plans need no weights; that of the default model also needs no tokenizer, configuration or hub access."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig

import finetune
from skincare import stage
from skincare.errors import MissingInputError, StageError
from skincare.inference.structured_decoder import MAX_ANSWER_TOKENS
from skincare.labels import skincare_labels
from skincare.modeling import freezing, loading, qwen_tokens
from skincare.modeling.families.registry import FAMILIES, published_model
from skincare.modeling.freezing import freeze
from skincare.modeling.loading import load_processor
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.modeling.settings import DEFAULT_MODEL, Trainable
from skincare.paths import TINY_MODEL, Layout
from skincare.product.schema import Product
from skincare.prompts import labels_for
from skincare.training import activation_memory, planning
from skincare.training.recipes import RECIPES
from tests.dataset_helpers import write_dataset_files

GIB = 2**30


@pytest.fixture
def no_hub(monkeypatch):
    """Fail on every access to the hub or its cache."""

    def unreachable(*_, **__):
        raise AssertionError("the hub was accessed")

    for name in ("snapshot_download", "http_head"):
        monkeypatch.setattr(loading, name, unreachable)


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path)


def planned(layout, **changes):
    config = finetune.Config(root=layout.root, plan=True, **changes)
    assert stage.execute("finetune", config, layout, finetune.run) == 0
    return json.loads(layout.finetune_plan.read_text())


# Parameters, those of last vision block, merger and last language layer, and the number of their tensors.
SHAPES = {
    "Qwen/Qwen2-VL-2B": (2_208_985_600, 19_677_440 + 34_087_936 + 46_797_824, 30),
    "Qwen/Qwen2.5-VL-3B-Instruct": (3_754_622_976, 19_702_200 + 36_708_608 + 77_076_992, 29),
    "Qwen/Qwen3-VL-2B-Instruct": (2_127_532_032, 12_596_224 + 25_174_016 + 50_336_000, 29),
}
LARGER_SHAPES = {
    "Qwen/Qwen2-VL-7B-Instruct": (8_291_375_616, 19_677_440 + 44_575_744 + 233_057_792, 30),
    "Qwen/Qwen2.5-VL-7B-Instruct": (8_292_166_656, 19_702_200 + 44_574_464 + 233_057_792, 29),
    "Qwen/Qwen3-VL-4B-Instruct": (4_437_815_808, 12_596_224 + 27_271_680 + 100_930_816, 29),
    "Qwen/Qwen3-VL-8B-Instruct": (8_767_123_696, 15_239_504 + 40_119_040 + 192_946_432, 29),
}


def built_from(name):
    """Build a published model on the meta device."""
    family, published = published_model(name)
    config = AutoConfig.for_model(family.model_type, **published.config)
    assert config.dtype == torch.bfloat16
    return activation_memory.meta_model(config), published


@pytest.mark.parametrize("name", SHAPES | LARGER_SHAPES)
def test_the_shipped_shape_is_that_of_the_published_model(name):
    """Compare the numbers of parameters, in total and trained by the reference recipe."""
    built, published = built_from(name)
    trained = freeze(built, Trainable())
    found = sum(p.numel() for p in built.parameters()), sum(p.numel() for p in trained.values()), len(trained)
    assert found == (SHAPES | LARGER_SHAPES)[name]
    assert (published.n_parameters, published.n_reference_trainable) == found[:2]
    is_tied = built.lm_head.weight is built.get_input_embeddings().weight
    assert is_tied == (found[0] < 5e9), "models of 7B and more have an output layer of their own"
    everything = freeze(built, Trainable(everything=True))
    assert ("lm_head.weight" in everything) != is_tied


def test_every_published_model_has_a_tested_shape():
    names = [model.names for family in FAMILIES.values() for model in family.models]
    assert len(names) == len(SHAPES | LARGER_SHAPES)
    assert all(sum(name in one for one in names) == 1 for name in SHAPES | LARGER_SHAPES)


@pytest.mark.parametrize("name", SHAPES | LARGER_SHAPES)
def test_a_wrong_selection_for_a_published_shape_is_refused(name, monkeypatch):
    built, published = built_from(name)
    monkeypatch.setattr(freezing, "trainable_modules", lambda model, _: {"one": model.model.visual.blocks[0]})
    with pytest.raises(StageError, match=f"parameters would be trained, not {published.n_reference_trainable:,}"):
        freeze(built, Trainable())


@pytest.mark.parametrize("name", SHAPES)
def test_a_published_model_is_planned_without_a_hub(layout, no_hub, name):
    plan = planned(layout, model=name, vram_gb=16)
    n_parameters, n_trainable, _ = SHAPES[name]
    assert (plan["n_parameters"], plan["n_trainable"]) == (n_parameters, n_trainable)
    assert plan["gradient_bytes"] == 4 * n_trainable
    # More than bf16 weights, gradients and AdamW states, and within 16 GB, on which the model is known to train.
    assert 2 * n_parameters + 12 * n_trainable < plan["total_bytes"] < 16 * GIB
    assert (plan["micro_batch_size"], plan["gradient_checkpointing"]) == (4, False)


def test_a_larger_published_model_is_planned_without_a_hub(layout, no_hub):
    name = "Qwen/Qwen2.5-VL-7B-Instruct"
    plan = planned(layout, model=name, vram_gb=24)
    n_parameters, n_trainable, _ = LARGER_SHAPES[name]
    assert (plan["n_parameters"], plan["n_trainable"]) == (n_parameters, n_trainable)
    assert 2 * n_parameters + 12 * n_trainable < plan["total_bytes"] < 24 * GIB


def test_another_model_needs_its_checkpoint(layout, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = finetune.Config(root=layout.root, plan=True, model="no-such/model")
    with pytest.raises(MissingInputError):
        finetune.run(config, layout)


def test_a_folder_of_the_default_models_name_is_planned_from_its_files(layout, no_hub, monkeypatch):
    folder = layout.root / DEFAULT_MODEL
    folder.parent.mkdir(parents=True)
    folder.symlink_to(TINY_MODEL)
    monkeypatch.chdir(layout.root)
    assert planned(layout)["n_parameters"] < 10_000_000


def test_the_offline_plan_counts_the_dataset_and_its_longest_hint(layout, no_hub):
    plain = planned(layout)
    assert "n_cached_images" not in plain
    write_dataset_files(layout, {"train": 4, "val": 2, "test": 2})
    counted = planned(layout)
    # Test and val are evaluated again in fp32, with the exported model.
    assert counted["n_cached_images"] == 4 + 2 + 2 + 2
    assert counted["activation_bytes_per_image"] == plain["activation_bytes_per_image"]


def test_token_counts_apply_only_to_an_unchanged_prompt():
    """For a changed prompt or label the plan uses the upper bound instead of the stored counts."""
    encoder = PromptEncoder(load_processor(TINY_MODEL), skincare_labels())
    before, _, after = encoder.prompt_text.partition(encoder.processor.image_token)
    assert [qwen_tokens.count_tokens(text) for text in (before, after)] == [72, 17]
    assert qwen_tokens.count_tokens("Crème") == 6
    lengths = planning._known_prompt_lengths(["a", "hint"], skincare_labels())
    # Five bytes of line end and hint, four tokens of Moisturiser, the end token.
    assert (lengths.n_prefix, lengths.n_suffix, lengths.n_varying) == (72, 17 + 5 + 4 + 1, 5)


def test_the_longest_label_is_that_of_the_most_tokens(tiny_encoder):
    names = ("Moisturiser", "Масло", "Oil")
    encoder = PromptEncoder(tiny_encoder.processor, dataclasses.replace(skincare_labels(), names=names))
    n_tokens = [len(encoder.answer_tokens(name)) for name in names]
    assert n_tokens[1] > n_tokens[0]
    assert planning.prompt_lengths(encoder, []).n_answer == max(n_tokens)


def test_the_bound_of_a_structured_answer_is_at_most_what_is_allowed():
    """A text of more bytes than tokens are allowed may still have fewer tokens; with more, training is refused."""
    labels = labels_for("product", skincare_labels())
    answers = [Product(category="Peel", details="ж" * n).to_json() for n in (40, 600)]
    found = [planning._known_prompt_lengths([], labels, answers[:n]) for n in (1, 2)]
    assert [one.n_answer for one in found] == [len(answers[0].encode()) + 1, MAX_ANSWER_TOKENS]
    assert [one.n_varying for one in found] == [one.n_answer - (4 + 1) for one in found], "more than Moisturiser"


def test_known_lengths_agree_with_an_encoder_of_the_same_counts(tiny_encoder, monkeypatch):
    """Lengths from counts equal those of an encoder; here with the counts of the embedded model."""
    count = lambda text: len(tiny_encoder.tokenizer.encode(text, add_special_tokens=False))  # noqa: E731
    monkeypatch.setattr(qwen_tokens, "count_tokens", count)
    assert planning._known_prompt_lengths([], skincare_labels()) == planning.prompt_lengths(tiny_encoder, [])


@pytest.mark.parametrize(
    ("recipe", "is_fp32", "n_images", "n_in_bf16"),
    [
        ("reference", False, 13, 18), ("reference", True, 10, 10), ("reference-k2", True, 13, 13),
        ("reference-light", False, 8, 13), ("reference-all", False, 5, 10),
    ],
)  # fmt: skip
def test_the_image_cache_holds_what_training_and_the_exported_model_compute(recipe, is_fp32, n_images, n_in_bf16):
    """With 5 training, 3 validation and 2 test images; a model that is exported in fp32 has features of its own."""
    data = SimpleNamespace(train=range(5), val=range(3), test=range(2))
    spec = SimpleNamespace(data=data, recipe=RECIPES[recipe], settings=SimpleNamespace(cache_images=True))
    found = planning._plan_cache(spec, 100, is_fp32=is_fp32)
    assert found == {"n_cached_images": n_images, "cache_bytes": 100 * n_in_bf16}
    spec.settings.cache_images = False
    assert planning._plan_cache(spec, 100, is_fp32=is_fp32) == {"n_cached_images": 0, "cache_bytes": 0}


@pytest.mark.parametrize(
    ("recipe", "is_fp32", "model_bytes"),
    [("reference", False, 2020), ("reference", True, 4000), ("reference-lora", False, 4000)],
)
def test_disk_space_is_that_of_three_checkpoints_and_the_trained_model(recipe, is_fp32, model_bytes):
    plan = SimpleNamespace(n_parameters=1000, n_trainable=10, optimizer_bytes=80)
    found = planning._plan_checkpoints(RECIPES[recipe], plan, is_fp32=is_fp32)
    assert found == {"checkpoint_bytes": 3 * (40 + 80), "model_bytes": model_bytes}

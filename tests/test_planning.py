"""A run is planned without weights; the default model also without its tokenizer, its configuration and a hub."""

import json

import pytest
import torch
from transformers import Qwen2VLConfig

import finetune
from skincare import stage
from skincare.errors import MissingInputError
from skincare.labels import skincare_labels
from skincare.modeling import loading, qwen2_vl_2b
from skincare.modeling.freezing import freeze
from skincare.modeling.loading import load_processor
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.modeling.settings import DEFAULT_MODEL, Trainable
from skincare.paths import TINY_MODEL, Layout
from skincare.training import activation_memory, planning
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


def test_the_shipped_shape_is_that_of_qwen2_vl_2b():
    """2,208,985,600 parameters, of which the reference recipe trains 100,563,200 in 30 tensors."""
    built = activation_memory.meta_model(Qwen2VLConfig(**qwen2_vl_2b.CONFIG))
    assert sum(p.numel() for p in built.parameters()) == 2_208_985_600
    trained = freeze(built, Trainable())
    assert (len(trained), sum(p.numel() for p in trained.values())) == (30, 100_563_200)
    assert Qwen2VLConfig(**qwen2_vl_2b.CONFIG).dtype == torch.bfloat16


@pytest.mark.parametrize("name", [DEFAULT_MODEL, "Qwen/Qwen2-VL-2B-Instruct"])
def test_the_default_model_is_planned_without_a_hub(layout, no_hub, name):
    plan = planned(layout, model=name, vram_gb=16)
    assert (plan["n_parameters"], plan["n_trainable"]) == (2_208_985_600, 100_563_200)
    assert plan["gradient_bytes"] == 4 * 100_563_200
    # 4.4 GB of bf16 weights and 1.2 GB of gradients and AdamW states: what 16 GB cards are known to train.
    assert 5.5 * GIB < plan["total_bytes"] < 16 * GIB
    assert (plan["micro_batch_size"], plan["gradient_checkpointing"]) == (4, False)


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
    # Test and val once more in fp32, by the exported model.
    assert counted["n_cached_images"] == 4 + 2 + 2 + 2
    assert counted["activation_bytes_per_image"] == plain["activation_bytes_per_image"]


def test_token_counts_hold_for_the_prompt_that_is_used():
    """A changed prompt or label must not keep the old counts: it falls back to the upper bound."""
    encoder = PromptEncoder(load_processor(TINY_MODEL), skincare_labels())
    before, _, after = encoder.prompt_text.partition(encoder.processor.image_token)
    assert [qwen2_vl_2b.count_tokens(text) for text in (before, after)] == [72, 17]
    assert qwen2_vl_2b.count_tokens("Crème") == 6
    lengths = planning._known_prompt_lengths(["a", "hint"], skincare_labels())
    # Five bytes of line end and hint, four tokens of Moisturiser, the end token.
    assert (lengths.n_prefix, lengths.n_suffix) == (72, 17 + 5 + 4 + 1)


def test_known_lengths_agree_with_an_encoder_of_the_same_counts(tiny_encoder, monkeypatch):
    """The same sum as with a tokenizer: here the embedded model's own counts in place of the shipped ones."""
    count = lambda text: len(tiny_encoder.tokenizer.encode(text, add_special_tokens=False))  # noqa: E731
    monkeypatch.setattr(qwen2_vl_2b, "count_tokens", count)
    assert planning._known_prompt_lengths([], skincare_labels()) == planning.prompt_lengths(tiny_encoder, [])

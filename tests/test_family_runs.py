"""Fine-tuning runs of the other families: resumed, exported, with LoRA and over quantised weights; and their plan."""

import json

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

import finetune
from skincare.errors import StageError
from skincare.labels import skincare_labels
from skincare.modeling import cached_vlm, loading
from skincare.modeling.freezing import freeze
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.modeling.settings import PixelLimits, Trainable
from skincare.paths import Layout
from skincare.training import adapters, memory_plan
from skincare.training.loop import Trainer
from skincare.training.recipes import Adapter
from tests.dataset_helpers import write_dataset_files
from tests.plots import replace_training_plots
from tests.test_memory_plan import in_bf16, stored_bytes

OTHERS = ("qwen2_5_vl", "qwen3_vl")
CPU = torch.device("cpu")


@pytest.fixture
def layout(tmp_path, monkeypatch):
    replace_training_plots(monkeypatch)
    found = Layout(tmp_path / "root")
    write_dataset_files(found, {"train": 6, "val": 2, "test": 2})
    return found


def config(layout, folder, **changes):
    settings = {"model": str(folder), "recipe": "sample", "run": "r", "min_tokens": 20, "max_tokens": 30,
                "max_epochs": 2, "micro_batch_size": 4}  # fmt: skip
    return finetune.Config(root=layout.root, **{**settings, **changes})


@pytest.mark.parametrize("model_type", OTHERS)
def test_a_resumed_run_exports_the_weights_of_an_uninterrupted_one(layout, folders, model_type, monkeypatch):
    finetune.run(config(layout, folders[model_type], run="whole"), layout)
    original, steps = Trainer._step, []

    def step(self, examples):
        if len(steps) == 1:
            raise KeyboardInterrupt
        steps.append(1)
        return original(self, examples)

    monkeypatch.setattr(Trainer, "_step", step)
    with pytest.raises(KeyboardInterrupt):
        finetune.run(config(layout, folders[model_type]), layout)
    monkeypatch.setattr(Trainer, "_step", original)
    finetune.run(config(layout, folders[model_type], resume=True), layout)
    exported = layout.finetuned_model("r")
    before, after, whole = (
        loading.load_model(folder, CPU).state_dict()
        for folder in (folders[model_type], exported, layout.finetuned_model("whole"))
    )
    assert before.keys() == after.keys() == whole.keys()
    assert all(torch.equal(after[name], whole[name]) for name in after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    parts = ("model.visual.blocks.3.", "model.visual.merger.", "model.language_model.layers.3.")
    assert {part for part in parts if any(name.startswith(part) for name in changed)} == set(parts)
    assert all(name.startswith(parts) for name in changed)
    assert AutoModelForImageTextToText.from_pretrained(exported).config.model_type == model_type
    assert type(AutoProcessor.from_pretrained(exported)).__name__ == type(
        AutoProcessor.from_pretrained(folders[model_type])
    ).__name__  # fmt: skip


@pytest.mark.parametrize("model_type", OTHERS)
def test_lora_is_merged_into_the_language_layers(folders, model_type):
    model = loading.load_model(folders[model_type], CPU)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapters.add_lora(model, Adapter(rank=2), seed=0)
    for name, parameter in adapters.enable_lora_training(model).items():
        if ".lora_B" in name:
            torch.nn.init.normal_(parameter)
    adapters.merge_lora(model, lambda *_: None)
    after = model.state_dict()
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(changed) == 7 * 4, "seven projections of four layers"
    assert all(".language_model.layers." in name and name.endswith("_proj.weight") for name in changed)


@pytest.mark.parametrize("model_type", OTHERS)
def test_4_bit_language_layers_leave_the_vision_tower_as_it_is(folders, model_type):
    pytest.importorskip("bitsandbytes")
    model = loading.load_model(
        folders[model_type], CPU, quantisation=adapters.quantisation_config(Adapter(n_bits=4))
    )  # fmt: skip
    assert {one.mlp.up_proj.weight.dtype for one in model.model.language_model.layers} == {torch.uint8}
    assert {one.dtype for one in model.model.visual.parameters()} == {torch.float32}


@pytest.mark.parametrize("model_type", OTHERS)
@pytest.mark.parametrize("trainable", [Trainable(), Trainable(4, True, 2)], ids=["reference", "deepstack"])
def test_planned_activations_match_those_of_a_real_pass(folders, model_type, trainable):
    """The plan is never below the measured size, and above it only by the effect of autocast on trained parts."""
    encoder = PromptEncoder(loading.load_processor(folders[model_type], PixelLimits(36, 36)), skincare_labels())
    network = in_bf16(loading.load_model(folders[model_type], CPU), trainable)
    measured, batch = stored_bytes(network, encoder, 4, without_prefix=True)
    n_prefix = len(batch.prompt_prefix)
    found = memory_plan.plan(
        loading.load_config(folders[model_type]), trainable, n_prefix + batch.input_ids.shape[1], (1, 12, 12), 8,
        16 * memory_plan.GIB, n_prefix=n_prefix,
    )  # fmt: skip
    planned = found.activation_bytes_per_step + found.cast_bytes + 4 * found.activation_bytes_per_image
    assert measured < planned < 1.6 * measured
    assert found.n_trainable == sum(p.numel() for p in freeze(network.model, trainable).values())


def test_another_family_is_refused_with_the_list_of_supported_ones(folders, tmp_path):
    settings = json.loads((folders["qwen3_vl"] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "model_type": "llava"}))
    with pytest.raises(StageError, match=r"type llava; supported are .*qwen2_vl.*qwen2_5_vl.*qwen3_vl"):
        loading.load_config(tmp_path)


@pytest.mark.parametrize("model_type", OTHERS)
def test_a_trained_deepstack_merger_ends_the_cached_part_before_its_block(folders, model_type):
    model = loading.load_model(folders[model_type], CPU)
    freeze(model, Trainable())
    assert cached_vlm.CachedVLM(model).n_cached_blocks == 3
    if model_type == "qwen3_vl":
        model.model.visual.deepstack_merger_list[1].requires_grad_(True)
        assert cached_vlm.CachedVLM(model).n_cached_blocks == 2

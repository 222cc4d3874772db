"""An export folder is a model only when it is complete."""

import json
from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig

from skincare.labels import skincare_labels
from skincare.modeling.loading import load_config, load_model, load_processor
from skincare.paths import TINY_MODEL
from skincare.training import model_export


def test_config_json_is_moved_last(tmp_path, tiny_model, monkeypatch):
    moved, replace = [], Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: (moved.append(Path(target)), replace(self, target))[1])
    assert model_export.write_model(tmp_path, tiny_model, None, load_processor(TINY_MODEL), skincare_labels())
    final = [path.name for path in moved if path.parent == tmp_path]
    assert final[-1] == "config.json"
    assert {"model.safetensors", "tokenizer.json", "generation_config.json"} <= set(final[:-1])


def test_generation_stops_at_the_trained_end_without_sampling(tmp_path, tiny_model):
    processor = load_processor(TINY_MODEL)
    ends = processor.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    model_export.write_model(tmp_path, tiny_model, None, processor, skincare_labels())
    found = GenerationConfig.from_pretrained(tmp_path)
    assert (found.eos_token_id, found.pad_token_id, found.do_sample, found.max_new_tokens) == (ends, ends[1], False, 30)
    assert load_config(tmp_path).text_config.eos_token_id == ends
    tokenizer = load_processor(tmp_path).tokenizer
    assert (tokenizer.padding_side, tokenizer.eos_token) == ("left", "<|im_end|>")


@pytest.mark.parametrize("is_exact", [True, False])
def test_weights_are_written_in_fp32_only_where_rounding_would_change_one(tmp_path, tiny_model, is_exact):
    tiny_model.to(torch.bfloat16).config.dtype = torch.bfloat16
    weight = tiny_model.model.visual.merger.mlp[0].weight
    weight.data = weight.data.float() if is_exact else torch.full(weight.shape, 1 + 2**-20)
    expected = weight.detach().clone()
    is_fp32 = model_export.write_model(tmp_path, tiny_model, None, load_processor(TINY_MODEL), skincare_labels())
    assert is_fp32 != is_exact
    config = json.loads((tmp_path / "config.json").read_text())
    dtypes = {part["dtype"] for part in (config, config["text_config"], config["vision_config"])}
    assert dtypes == {"bfloat16" if is_exact else "float32"}
    loaded = load_model(tmp_path, torch.device("cpu")).model.visual.merger.mlp[0].weight
    assert torch.equal(loaded.float(), expected)


def test_changed_weights_are_counted_before_and_after_rounding():
    statistics = model_export.ExportStatistics(torch.bfloat16)
    statistics.count(torch.ones(3), torch.tensor([1.0, 1 + 2**-20, 2.0]))
    assert (statistics.n_weights, statistics.n_changed, statistics.n_changed_rounded) == (3, 2, 1)


def test_an_interrupted_export_is_no_model(tmp_path, tiny_model, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    processor = load_processor(TINY_MODEL)
    monkeypatch.setattr(processor, "save_pretrained", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model_export.write_model(tmp_path, tiny_model, None, processor, skincare_labels())
    assert not (tmp_path / "config.json").exists()

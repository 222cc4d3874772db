"""An error of loading names what is missing and its remedy; nothing unsafe or incomplete is loaded."""

import contextlib
import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor, Qwen2VLForConditionalGeneration

from skincare.errors import MissingInputError, StageError
from skincare.labels import skincare_labels
from skincare.modeling import loading
from skincare.paths import TINY_MODEL
from skincare.prompts import CHAT_TEMPLATE_FILE

CPU = torch.device("cpu")


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(TINY_MODEL, tmp_path / "model")


def test_the_embedded_model_is_a_real_and_small_qwen2_vl():
    loaded = AutoModelForImageTextToText.from_pretrained(TINY_MODEL)
    assert isinstance(loaded, Qwen2VLForConditionalGeneration)
    assert 1_000_000 <= sum(parameter.numel() for parameter in loaded.parameters()) <= 3_000_000
    assert AutoProcessor.from_pretrained(TINY_MODEL).chat_template == CHAT_TEMPLATE_FILE.read_text(encoding="utf-8")
    assert sum(file.stat().st_size for file in TINY_MODEL.iterdir()) < 8_000_000


def test_the_pixel_limits_decide_the_number_of_visual_tokens(tiny_encoder):
    from skincare.modeling.prompt_encoder import PromptEncoder
    from tests.helpers import noise_image

    for tokens in (36, 64, 100):
        encoder = PromptEncoder(
            loading.load_processor(TINY_MODEL, loading.PixelLimits(tokens, tokens)), skincare_labels()
        )
        assert encoder.n_visual_tokens(encoder.patches(noise_image(500, 500)).grid) == tokens
    encoder = PromptEncoder(loading.load_processor(TINY_MODEL, loading.PixelLimits(64, 128)), skincare_labels())
    assert encoder.patches(noise_image(1000, 1000)).grid == (1, 22, 22)


def test_a_model_of_an_unreachable_hub_is_an_error_with_remedies(monkeypatch):
    def unreachable(*_, **__):
        raise loading.RequestException

    monkeypatch.setattr(loading, "http_head", unreachable)
    with pytest.raises(MissingInputError) as error:
        loading.load_model("Qwen/Qwen2-VL-2B-of-nobody", CPU)
    for hint in ("cannot be reached", "HF_TOKEN", "make sample", "--model"):
        assert hint in str(error.value)


@pytest.mark.parametrize("name", ["no/such/folder/here", "models/", ""])
def test_a_folder_that_does_not_exist_is_an_error(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingInputError):
        loading.load_model(name, CPU)


def test_a_folder_without_a_model_is_an_error(tmp_path):
    with pytest.raises(MissingInputError, match=r"config\.json"):
        loading.load_processor(tmp_path)


def test_a_model_of_another_kind_is_refused(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    with pytest.raises(StageError, match="llama"):
        loading.load_model(copy, CPU)


@pytest.mark.parametrize("model_type", ["qwen3_vl_moe", "llava", "unknown_to_transformers", ["qwen2_vl"], None])
@pytest.mark.parametrize("load", [loading.load_processor, loading.load_config])
def test_an_unsupported_architecture_is_refused_with_the_supported_ones(copy, model_type, load):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_type": model_type}))
    supported = r"supported are Qwen2-VL \(qwen2_vl\), Qwen2\.5-VL \(qwen2_5_vl\), Qwen3-VL \(qwen3_vl\)"
    with pytest.raises(StageError, match=supported):
        load(copy)


@pytest.mark.parametrize("content", ["{", "[]", "{}", "", pytest.param("[" * 100_000, id="nested")])
def test_a_configuration_without_a_model_type_is_an_error(copy, content):
    (copy / "config.json").write_text(content)
    with pytest.raises(StageError, match="its configuration cannot be loaded"):
        loading.load_config(copy)


@pytest.mark.parametrize("content", ["{", "[]", "3", "[" * 100_000, '{"a": ' * 900 + "1" + "}" * 900], ids=len)
def test_hashes_of_a_damaged_configuration_are_an_error_or_a_hash(copy, content):
    (copy / "config.json").write_text(content)
    # Both are right: the depth that json takes depends on the version of Python.
    with contextlib.suppress(StageError):
        assert len(loading.checkpoint_hashes(copy)["configuration"]) == 16


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("text_config", "hidden_size", "wide"), ("text_config", "num_hidden_layers", -1),
        ("text_config", "num_attention_heads", None), ("vision_config", "depth", 1.5),
        ("vision_config", "patch_size", {}), ("text_config", "rope_parameters", 0), ("", "dtype", "float17"),
        ("", "text_config", []), ("", "auto_map", 3), ("text_config", "num_hidden_layers", 10**10),
        ("vision_config", "depth", 10**10), ("vision_config", "depth", float("inf")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("load", [loading.load_processor, loading.load_config])
def test_a_value_that_no_configuration_has_is_an_error_with_the_source(copy, part, name, value, load):
    config = json.loads((copy / "config.json").read_text())
    (config[part] if part else config)[name] = value
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(StageError, match=re.escape(str(copy))):
        load(copy)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [("text_config", "num_key_value_heads", 0), ("vision_config", "spatial_merge_size", 0),
     ("text_config", "hidden_act", "no_such"), ("text_config", "vocab_size", 0),
     ("text_config", "hidden_size", 10**12)],
)  # fmt: skip
def test_sizes_that_no_model_has_are_an_error(copy, part, name, value):
    config = json.loads((copy / "config.json").read_text())
    config[part][name] = value
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(StageError, match="its model cannot be loaded"):
        loading.load_model(copy, CPU)


def test_an_unsupported_model_of_the_hub_is_refused_before_its_weights_are_downloaded(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_vl_moe"}))
    downloads = []

    def snapshot(*_, **settings):
        downloads.append(settings)
        raise loading.LocalEntryNotFoundError("not in the cache")

    monkeypatch.setattr(loading, "http_head", lambda *_, **__: None)
    monkeypatch.setattr(loading, "hf_hub_download", lambda *_: str(tmp_path / "config.json"))
    monkeypatch.setattr(loading, "snapshot_download", snapshot)
    with pytest.raises(StageError, match="a model of type qwen3_vl_moe"):
        loading.load_config("Qwen/Qwen3-VL-30B-A3B-Instruct")
    assert [one["local_files_only"] for one in downloads] == [True], "only the cache was read"


def test_weights_that_are_incomplete_are_refused(copy):
    tensors = load_file(copy / "model.safetensors")
    tensors.pop(next(name for name in tensors if "merger" in name))
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StageError, match="lacks 1"):
        loading.load_model(copy, CPU)


@pytest.mark.parametrize("damage", ["truncated", "empty", "absent"])
def test_damaged_weights_are_an_error_not_a_crash(copy, damage):
    path = copy / "model.safetensors"
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 100_000 if damage == "truncated" else 0])
    with pytest.raises(StageError, match="cannot be loaded"):
        loading.load_model(copy, CPU)


def test_pickled_weights_are_never_unpickled(copy):
    """A .bin file can run code when it is loaded."""
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(tensors, copy / "pytorch_model.bin")
    with pytest.raises(StageError):
        loading.load_model(copy, CPU)


@pytest.mark.parametrize("is_in_config", [True, False])
def test_a_float16_checkpoint_is_converted_with_a_warning(copy, caplog, is_in_config):
    tensors = {name: tensor.half() for name, tensor in load_file(copy / "model.safetensors").items()}
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((copy / "config.json").read_text())
    for part in (config, config["text_config"], config["vision_config"]):
        part["dtype"] = "float16"
        if not is_in_config:
            del part["dtype"]
    (copy / "config.json").write_text(json.dumps(config))
    loaded = loading.load_model(copy, CPU)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    assert loaded.config.dtype == torch.bfloat16
    assert "saved in float16; loaded as bfloat16" in caplog.text


@pytest.mark.parametrize("quantised", [{"quant_method": "awq", "bits": 4}, "awq", ["bitsandbytes"]], ids=str)
def test_a_checkpoint_that_is_quantised_already_is_refused(copy, quantised):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "quantization_config": quantised}))
    with pytest.raises(StageError, match=r"quantised already|cannot be loaded"):
        loading.load_config(copy)


def test_flash_attention_that_is_not_available_is_an_error_with_a_remedy(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StageError, match="pip install flash-attn --no-build-isolation"):
        loading.load_model(TINY_MODEL, CPU, "flash_attention_2")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: "there")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(StageError, match="needs an NVIDIA GPU"):
        loading.load_config(TINY_MODEL, "flash_attention_2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(StageError, match="float32"):
        loading.load_config(TINY_MODEL, "flash_attention_2")


def test_a_broken_processor_is_an_error(copy):
    (copy / "tokenizer.json").write_text("{")
    with pytest.raises(StageError, match="processor"):
        loading.load_processor(copy)


def test_one_changed_weight_changes_the_weight_hash(tiny_model):
    before = loading.weight_hash(tiny_model)
    assert loading.weight_hash(tiny_model) == before
    with torch.no_grad():
        tiny_model.model.visual.merger.mlp[0].weight[0, 0] += 1e-6
    assert loading.weight_hash(tiny_model) != before

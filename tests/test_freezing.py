import pytest
import torch
from transformers import AutoConfig, Qwen2VLForConditionalGeneration

from skincare.errors import StageError
from skincare.modeling import freezing
from skincare.modeling.freezing import count, freeze, trainable_modules
from skincare.modeling.settings import Trainable


@pytest.fixture(scope="module")
def full_size_model():
    """Qwen2-VL-2B's shape on the meta device: all names and sizes, no memory."""
    config = AutoConfig.for_model(
        "qwen2_vl",
        text_config={
            "vocab_size": 151_936,
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        vision_config={"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16, "mlp_ratio": 4},
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = Qwen2VLForConditionalGeneration._from_config(config, dtype=torch.bfloat16)
    model.tie_weights()
    return model


def test_the_default_trains_exactly_100_563_200_parameters_of_the_2b(full_size_model):
    parameters = freeze(full_size_model, Trainable())
    assert count(full_size_model.parameters()) == 2_208_985_600
    assert count(parameters.values()) == 100_563_200
    assert len(parameters) == 30


def test_trainable_parameters_are_fp32_and_frozen_ones_keep_their_dtype(full_size_model):
    parameters = freeze(full_size_model, Trainable())
    for name, parameter in full_size_model.named_parameters():
        assert parameter.requires_grad == (name in parameters)
        if name in parameters:
            assert parameter.dtype == torch.float32, name
    assert full_size_model.lm_head.weight.dtype == torch.bfloat16


def test_the_tied_embedding_is_not_trained_by_accident(tiny_model):
    freeze(tiny_model, Trainable(n_vision_blocks=4, n_language_layers=4))
    assert not tiny_model.lm_head.weight.requires_grad
    assert not tiny_model.get_input_embeddings().weight.requires_grad


def test_everything_includes_the_embedding(tiny_model):
    assert count(freeze(tiny_model, Trainable(everything=True)).values()) == count(tiny_model.parameters())


@pytest.fixture
def untied_model(tiny_model):
    """A model whose output layer is not its embedding, as those above 2B are."""
    tiny_model.config.tie_word_embeddings = tiny_model.config.text_config.tie_word_embeddings = False
    tiny_model.lm_head.weight = torch.nn.Parameter(tiny_model.lm_head.weight.detach().clone())
    return tiny_model


def test_everything_includes_an_output_layer_of_its_own(untied_model):
    parameters = freeze(untied_model, Trainable(everything=True))
    assert parameters.keys() == dict(untied_model.named_parameters()).keys()
    assert "lm_head.weight" in parameters
    assert count(parameters.values()) == count(untied_model.parameters())
    assert list(trainable_modules(untied_model, Trainable(everything=True))) == ["model", "lm_head"]
    assert freeze(untied_model, Trainable()).keys().isdisjoint({"lm_head.weight"})


def test_parameters_that_everything_leaves_out_are_an_error(untied_model, monkeypatch):
    monkeypatch.setattr(freezing, "trainable_modules", lambda model, _: {"model": model.model})
    with pytest.raises(StageError, match="not everything"):
        freeze(untied_model, Trainable(everything=True))


@pytest.mark.parametrize("trainable", [Trainable(n_vision_blocks=5), Trainable(n_language_layers=-1)])
def test_more_blocks_than_there_are_is_an_error(tiny_model, trainable):
    with pytest.raises(StageError, match="does not fit"):
        trainable_modules(tiny_model, trainable)


def test_a_selection_of_nothing_is_allowed(tiny_model):
    assert freeze(tiny_model, Trainable(0, False, 0)) == {}
    assert not any(parameter.requires_grad for parameter in tiny_model.parameters())


def test_a_shared_tensor_counts_once():
    tensor = torch.zeros(3, 4)
    assert count([tensor, tensor, torch.zeros(5)]) == 17

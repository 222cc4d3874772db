"""Block influence is that of the plain model's hidden states; transformers loads a model with dropped layers."""

import dataclasses

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForImageTextToText

from skincare import images
from skincare.exporting.layer_pruning import block_influences, drop_layers, least_influential, n_fixed_layers
from skincare.inference.classifier import Classifier
from skincare.labels import skincare_labels
from skincare.paths import TINY_MODEL, Layout
from tests.dataset_helpers import write_dataset_files
from tests.family_models import MODEL_TYPES, write_family_model


@torch.no_grad()
def test_block_influence_equals_that_of_the_plain_forward_pass(tmp_path):
    examples = write_dataset_files(Layout(tmp_path), {"val": 3})["val"]
    examples[0] = dataclasses.replace(examples[0], hint="Reference OCR token: oil")  # the other prompt is padded
    classifier = Classifier.load(TINY_MODEL, skincare_labels(), tmp_path)
    found = block_influences(classifier, examples, batch_size=2)
    encoder, model = classifier.encoder, classifier.network.model
    sums, n_tokens = torch.zeros(4, dtype=torch.float64), 0
    for one in examples:
        patches = encoder.patches(images.decode((tmp_path / one.image).read_bytes()))
        ids = encoder.batch([patches.grid], hints=[one.hint]).input_ids
        hidden = model(
            input_ids=ids, pixel_values=patches.patches, image_grid_thw=torch.tensor([patches.grid]),
            mm_token_type_ids=(ids == encoder.image_token_id).int(), output_hidden_states=True,
        ).hidden_states  # fmt: skip
        n_prefix = len(encoder.prompt_prefix)
        states = [state[0, n_prefix:].double() for state in hidden]
        # transformers' last state is after the final norm: the last layer has no plain pair.
        for i in range(3):
            sums[i] += functional.cosine_similarity(states[i], states[i + 1], dim=-1).sum()
        n_tokens += len(states[0])
    torch.testing.assert_close(
        torch.tensor(found[:3]), (1 - sums / n_tokens)[:3], rtol=1e-4, atol=1e-5, check_dtype=False
    )
    assert 0 < found[3] < 2


@torch.no_grad()
@pytest.mark.parametrize("dropped", [(1,), (0, 2), (3,)])
def test_a_pruned_model_equals_the_model_whose_layers_pass_their_input_on(tmp_path, tiny_model, dropped):
    ids = torch.arange(40, 60)[None]
    layers = tiny_model.model.language_model.layers
    hooks = [layers[i].register_forward_hook(lambda _module, inputs, _output: inputs[0]) for i in dropped]
    expected = tiny_model(input_ids=ids, use_cache=False).logits
    for hook in hooks:
        hook.remove()
    drop_layers(tiny_model, dropped)
    torch.testing.assert_close(tiny_model(input_ids=ids).logits, expected)
    tiny_model.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(input_ids=ids).logits, expected)
    generated = loaded.generate(input_ids=ids, max_new_tokens=4, do_sample=False)
    assert generated.equal(tiny_model.generate(input_ids=ids, max_new_tokens=4, do_sample=False))


def test_the_config_follows_the_dropped_layers(tiny_model):
    config = tiny_model.config.text_config
    config.layer_types, config.max_window_layers = ["a", "b", "c", "d"], 2
    drop_layers(tiny_model, [0, 3])
    assert (config.num_hidden_layers, config.layer_types, config.max_window_layers) == (2, ["b", "c"], 1)


@pytest.mark.parametrize("dropped", [(0, 1, 2, 3), (4,), (-1,)])
def test_layers_that_do_not_exist_and_all_layers_cannot_be_dropped(tiny_model, dropped):
    with pytest.raises(ValueError, match="cannot drop"):
        drop_layers(tiny_model, dropped)


def test_the_least_influential_layers_come_first():
    assert least_influential([0.4, 0.1, 0.3, 0.1], 3) == [3, 1, 2]
    assert least_influential([0.4, 0.1, 0.3, 0.1], 3, n_fixed=2) == [3, 2]


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_pruned_model_of_every_family_scores_labels_as_after_loading(tmp_path, model_type):
    examples = write_dataset_files(Layout(tmp_path), {"val": 2})["val"]
    source = write_family_model(model_type, tmp_path / "model")
    classifier = Classifier.load(source, skincare_labels(), tmp_path)
    model = classifier.network.model
    n_fixed = n_fixed_layers(model.config)
    assert n_fixed == (2 if model_type == "qwen3_vl" else 0)
    influences = block_influences(classifier, examples)
    assert all(0 < one < 2 for one in influences)
    drop_layers(model, least_influential(influences, 1, n_fixed))
    current = Classifier(classifier.network, classifier.encoder, tmp_path)
    expected = current.predict(examples, "val", current.decoder("rank"))
    model.save_pretrained(source)
    loaded = Classifier.load(source, skincare_labels(), tmp_path)
    assert len(loaded.network.model.model.language_model.layers) == 3
    found = loaded.predict(examples, "val", loaded.decoder("rank"))
    assert [one.log_probabilities for one in found] == [one.log_probabilities for one in expected]

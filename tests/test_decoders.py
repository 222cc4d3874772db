"""Label scores are exact and independent of the batch; restricted decoders return only label names."""

import pytest
import torch
from torch.nn import functional

from skincare.errors import StageError
from skincare.inference.decoders import NAMES, make_decoder
from skincare.labels import skincare_labels
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.freezing import freeze
from skincare.modeling.heads import ClassificationHead, load_head, save_head
from skincare.modeling.losses import example_losses
from skincare.modeling.prompt_encoder import IGNORED
from skincare.modeling.settings import Trainable
from skincare.modeling.token_trie import build_trie
from tests.helpers import mixed_pixels

CATEGORIES = skincare_labels().names


@pytest.fixture
def model_inputs(tiny_model, tiny_encoder):
    """Return a network with a head, its encoder, and the grids and vision features of four images of three shapes."""
    network = CachedVLM(tiny_model.requires_grad_(False))
    torch.manual_seed(0)
    network.head = ClassificationHead(tiny_model.config.text_config.hidden_size, 14)
    torch.nn.init.normal_(network.head.linear.weight)
    pixels = mixed_pixels(tiny_encoder)
    return network, tiny_encoder, [one.grid for one in pixels], network.vision_features(pixels)


def plain_scores(network, encoder, grid, features, names=CATEGORIES):
    """Return the log-likelihood of each name, from one full forward pass per name without a cache."""
    scores = []
    for name in names:
        batch = encoder.batch([grid], [name])
        with torch.no_grad():
            logits = network.model.lm_head(network.hidden_states(batch, network.visual_tokens([grid], [features])))[0]
        labels = batch.labels[0]
        places = (labels != IGNORED).nonzero()[:, 0]
        log_probabilities = functional.log_softmax(logits.float(), dim=-1)
        scores.append(sum(log_probabilities[i - 1, labels[i]].item() for i in places.tolist()))
    return torch.tensor(scores)


def test_cached_label_scores_equal_full_sequence_scores(model_inputs):
    network, encoder, grids, features = model_inputs
    trie = build_trie(encoder, CATEGORIES)
    batch = encoder.batch(grids, padding_side="left")
    found = network.score_labels(batch, features, trie)
    for row, grid, image in zip(found, grids, features, strict=True):
        torch.testing.assert_close(row, plain_scores(network, encoder, grid, image), rtol=0, atol=1e-3)


def test_a_cached_prompt_prefix_does_not_change_the_outputs(model_inputs):
    network, encoder, grids, features = model_inputs
    whole, apart = encoder.batch(grids, padding_side="left"), encoder.inference_batch(grids)
    assert apart.input_ids.shape[1] + len(apart.prompt_prefix) == whole.input_ids.shape[1]
    assert len(apart.prompt_prefix) > 50
    trie = build_trie(encoder, CATEGORIES)
    for _ in range(2):  # computed, then from the cache
        torch.testing.assert_close(
            network.score_labels(apart, features, trie), network.score_labels(whole, features, trie), rtol=0, atol=1e-3
        )
        torch.testing.assert_close(
            network.head_scores(apart, features), network.head_scores(whole, features), rtol=1e-4, atol=1e-4
        )
        assert network.generate(encoder, apart, features) == network.generate(encoder, whole, features)
    assert list(network._prompt_prefixes.prefixes) == [apart.prompt_prefix]


def test_the_cached_prompt_prefix_is_recomputed_when_weights_change(model_inputs):
    network, encoder, grids, features = model_inputs
    layer = network.model.model.language_model.layers[0].requires_grad_(True)
    apart, whole = encoder.inference_batch(grids), encoder.batch(grids, padding_side="left")
    before = network.head_scores(apart, features)
    with torch.no_grad():
        layer.mlp.up_proj.weight *= 2
    after = network.head_scores(apart, features)
    assert not torch.allclose(before, after, rtol=1e-2)
    torch.testing.assert_close(after, network.head_scores(whole, features), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_answers_do_not_depend_on_batch_size_or_padding(model_inputs, name, size):
    network, encoder, grids, features = model_inputs
    decoder = make_decoder(name, network, encoder)
    together = decoder(grids, features)
    apart = [one for i in range(0, 4, size) for one in decoder(grids[i : i + size], features[i : i + size])]
    assert [one.text for one in apart] == [one.text for one in together]
    for one, other in zip(apart, together, strict=True):
        assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-3)


@pytest.mark.parametrize("name", ["constrained", "rank", "head"])
def test_restricted_decoders_return_only_label_names(model_inputs, name):
    network, encoder, grids, features = model_inputs
    for answer in make_decoder(name, network, encoder)(grids, features):
        assert answer.text in CATEGORIES
        assert answer.is_finished


@pytest.mark.parametrize("name", ["rank", "head"])
def test_log_probabilities_sum_to_one_and_their_maximum_is_the_answer(model_inputs, name):
    network, encoder, grids, features = model_inputs
    for answer in make_decoder(name, network, encoder)(grids, features):
        values = torch.tensor(answer.log_probabilities, dtype=torch.float64)
        assert values.exp().sum().item() == pytest.approx(1, abs=1e-4)
        assert CATEGORIES[int(values.argmax())] == answer.text


def test_the_token_trie_encodes_exactly_the_label_names(tiny_encoder):
    trie = build_trie(tiny_encoder, CATEGORIES)
    decoded, pending = [], [[]]
    while pending:
        prefix = pending.pop()
        for token in trie.next_tokens(prefix):
            if token == trie.end_token_id:
                decoded.append(tiny_encoder.decode(prefix))
            else:
                pending.append([*prefix, token])
    assert sorted(decoded) == sorted(CATEGORIES)
    assert len(trie.tokens) < sum(len(tiny_encoder.answer_tokens(name)) for name in CATEGORIES)


def test_trie_positions_attend_only_to_their_own_prefix(tiny_encoder):
    trie = build_trie(tiny_encoder, CATEGORIES)
    mask = trie.attention_mask()
    for path, leaf in zip(trie.paths, trie.leaves.tolist(), strict=True):
        assert torch.equal(mask[leaf], path)
    assert torch.equal(mask.sum(1), trie.depths + 1)


def test_the_head_decoder_of_a_model_without_a_head_is_an_error(tiny_model, tiny_encoder):
    with pytest.raises(StageError, match="no classification head"):
        make_decoder("head", CachedVLM(tiny_model), tiny_encoder)


def test_a_head_round_trips_and_one_of_another_size_is_refused(tmp_path):
    head = ClassificationHead(8, 14)
    torch.nn.init.normal_(head.linear.weight)
    save_head(tmp_path, head, skincare_labels())
    loaded = load_head(tmp_path, 8, 14)
    assert all(torch.equal(one, other) for one, other in zip(head.parameters(), loaded.parameters(), strict=True))
    with pytest.raises(StageError, match="no head for"):
        load_head(tmp_path, 9, 14)
    assert load_head(tmp_path / "elsewhere", 8, 14) is None


def test_the_joint_loss_is_the_sum_of_answer_and_head_loss(model_inputs):
    network, encoder, grids, features = model_inputs
    categories = ["Oil", "Bath Salts", "Peel", "Eye Care"]
    values = {
        use: example_losses(network, encoder, use, grids, features, categories) for use in ("none", "alone", "joint")
    }
    torch.testing.assert_close(values["joint"], values["none"] + values["alone"], rtol=1e-4, atol=1e-4)
    scores = torch.tensor([one.log_probabilities for one in make_decoder("head", network, encoder)(grids, features)])
    places = [CATEGORIES.index(category) for category in categories]
    torch.testing.assert_close(values["alone"], -scores[range(4), places], rtol=1e-3, atol=1e-3)


def test_head_scores_do_not_depend_on_the_answer(model_inputs):
    """Head scores of a batch with answers equal those of the prompt alone."""
    network, encoder, grids, features = model_inputs
    alone = network.head_scores(encoder.batch(grids, padding_side="left"), features)
    for answer in ("Oil", "Bath Salts"):
        _, scores = network.answer_losses_and_head_scores(encoder.batch(grids, [answer] * 4), features)
        torch.testing.assert_close(scores, alone, rtol=1e-4, atol=1e-4)


def test_the_joint_loss_has_gradients_for_model_and_head(tiny_model, tiny_encoder):
    parameters = freeze(tiny_model, Trainable())
    network = CachedVLM(tiny_model)
    network.head = ClassificationHead(tiny_model.config.text_config.hidden_size, 14)
    torch.nn.init.normal_(network.head.linear.weight)
    pixels = mixed_pixels(tiny_encoder)
    features = network.vision_features(pixels)
    grids = [one.grid for one in pixels]
    example_losses(network, tiny_encoder, "joint", grids, features, ["Oil"] * 4).sum().backward()
    assert all(parameter.grad is not None for parameter in [*parameters.values(), *network.head.parameters()])

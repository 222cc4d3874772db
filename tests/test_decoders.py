"""Names are scored exactly, whatever the batch; only names are said where only names may be."""

import pytest
import torch
from torch.nn import functional

from skincare.errors import StageError
from skincare.inference.decoders import NAMES, make_decoder
from skincare.labels import skincare_labels
from skincare.modeling.freezing import freeze
from skincare.modeling.heads import ClassificationHead, load_head, save_head
from skincare.modeling.losses import example_losses
from skincare.modeling.prompt_encoder import IGNORED
from skincare.modeling.qwen2vl import CachedQwen2VL
from skincare.modeling.settings import Trainable
from skincare.modeling.token_trie import build_trie
from tests.helpers import mixed_pixels

CATEGORIES = skincare_labels().names


@pytest.fixture
def asked(tiny_model, tiny_encoder):
    """A network with a head, and four images of three shapes."""
    network = CachedQwen2VL(tiny_model.requires_grad_(False))
    torch.manual_seed(0)
    network.head = ClassificationHead(tiny_model.config.text_config.hidden_size, 14)
    torch.nn.init.normal_(network.head.linear.weight)
    pixels = mixed_pixels(tiny_encoder)
    return network, tiny_encoder, [one.grid for one in pixels], network.vision_features(pixels)


def plain_scores(network, encoder, grid, states, names=CATEGORIES):
    """Each name's log-likelihood by a forward pass of its own, all logits, no cache."""
    scores = []
    for name in names:
        batch = encoder.batch([grid], [name])
        with torch.no_grad():
            logits = network.model.lm_head(network._hidden_states(batch, [states]))[0]
        labels = batch.labels[0]
        places = (labels != IGNORED).nonzero()[:, 0]
        log_probabilities = functional.log_softmax(logits.float(), dim=-1)
        scores.append(sum(log_probabilities[i - 1, labels[i]].item() for i in places.tolist()))
    return torch.tensor(scores)


def test_cached_ranking_equals_the_plain_full_sequence_score(asked):
    network, encoder, grids, states = asked
    tree = build_trie(encoder, CATEGORIES)
    batch = encoder.batch(grids, padding_side="left")
    found = network.score_labels(batch, states, tree)
    for row, grid, image in zip(found, grids, states, strict=True):
        torch.testing.assert_close(row, plain_scores(network, encoder, grid, image), rtol=0, atol=1e-3)


def test_an_opening_read_once_for_all_changes_nothing(asked):
    network, encoder, grids, states = asked
    whole, apart = encoder.batch(grids, padding_side="left"), encoder.inference_batch(grids)
    assert apart.input_ids.shape[1] + len(apart.prompt_prefix) == whole.input_ids.shape[1]
    assert len(apart.prompt_prefix) > 50
    tree = build_trie(encoder, CATEGORIES)
    for _ in range(2):  # computed, then kept
        torch.testing.assert_close(
            network.score_labels(apart, states, tree), network.score_labels(whole, states, tree), rtol=0, atol=1e-3
        )
        torch.testing.assert_close(
            network.head_scores(apart, states), network.head_scores(whole, states), rtol=1e-4, atol=1e-4
        )
        assert network.generate(encoder, apart, states) == network.generate(encoder, whole, states)
    assert list(network._prompt_prefixes.prefixes) == [apart.prompt_prefix]


def test_an_opening_follows_a_model_that_learns(asked):
    network, encoder, grids, states = asked
    layer = network.model.model.language_model.layers[0].requires_grad_(True)
    apart, whole = encoder.inference_batch(grids), encoder.batch(grids, padding_side="left")
    before = network.head_scores(apart, states)
    with torch.no_grad():
        layer.mlp.up_proj.weight *= 2
    after = network.head_scores(apart, states)
    assert not torch.allclose(before, after, rtol=1e-2)
    torch.testing.assert_close(after, network.head_scores(whole, states), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_batch_size_padding_and_neighbours_change_nothing(asked, name, size):
    network, encoder, grids, states = asked
    decoder = make_decoder(name, network, encoder)
    together = decoder(grids, states)
    apart = [one for i in range(0, 4, size) for one in decoder(grids[i : i + size], states[i : i + size])]
    assert [one.text for one in apart] == [one.text for one in together]
    for one, other in zip(apart, together, strict=True):
        assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-3)


@pytest.mark.parametrize("name", ["constrained", "rank", "head"])
def test_only_names_are_said(asked, name):
    network, encoder, grids, states = asked
    for answer in make_decoder(name, network, encoder)(grids, states):
        assert answer.text in CATEGORIES
        assert answer.is_finished


@pytest.mark.parametrize("name", ["rank", "head"])
def test_log_probabilities_are_of_the_14_and_name_the_answer(asked, name):
    network, encoder, grids, states = asked
    for answer in make_decoder(name, network, encoder)(grids, states):
        values = torch.tensor(answer.log_probabilities, dtype=torch.float64)
        assert values.exp().sum().item() == pytest.approx(1, abs=1e-4)
        assert CATEGORIES[int(values.argmax())] == answer.text


def test_the_tree_says_each_name_and_nothing_else(tiny_encoder):
    tree = build_trie(tiny_encoder, CATEGORIES)
    said, waiting = [], [[]]
    while waiting:
        prefix = waiting.pop()
        for token in tree.next_tokens(prefix):
            if token == tree.end_token_id:
                said.append(tiny_encoder.decode(prefix))
            else:
                waiting.append([*prefix, token])
    assert sorted(said) == sorted(CATEGORIES)
    assert len(tree.tokens) < sum(len(tiny_encoder.answer_tokens(name)) for name in CATEGORIES)


def test_places_see_their_own_beginning_only(tiny_encoder):
    tree = build_trie(tiny_encoder, CATEGORIES)
    sees = tree.attention_mask()
    for path, leaf in zip(tree.paths, tree.leaves.tolist(), strict=True):
        assert torch.equal(sees[leaf], path)
    assert torch.equal(sees.sum(1), tree.depths + 1)


def test_a_model_without_a_head_says_so(tiny_model, tiny_encoder):
    with pytest.raises(StageError, match="no classification head"):
        make_decoder("head", CachedQwen2VL(tiny_model), tiny_encoder)


def test_a_head_survives_its_file_and_a_strange_one_is_refused(tmp_path):
    head = ClassificationHead(8, 14)
    torch.nn.init.normal_(head.linear.weight)
    save_head(tmp_path, head, skincare_labels())
    loaded = load_head(tmp_path, 8, 14)
    assert all(torch.equal(one, other) for one, other in zip(head.parameters(), loaded.parameters(), strict=True))
    with pytest.raises(StageError, match="no head for"):
        load_head(tmp_path, 9, 14)
    assert load_head(tmp_path / "elsewhere", 8, 14) is None


def test_objectives_are_what_their_names_say(asked):
    network, encoder, grids, states = asked
    categories = ["Oil", "Bath Salts", "Peel", "Eye Care"]
    values = {
        use: example_losses(network, encoder, use, grids, states, categories) for use in ("none", "alone", "joint")
    }
    torch.testing.assert_close(values["joint"], values["none"] + values["alone"], rtol=1e-4, atol=1e-4)
    scores = torch.tensor([one.log_probabilities for one in make_decoder("head", network, encoder)(grids, states)])
    places = [CATEGORIES.index(category) for category in categories]
    torch.testing.assert_close(values["alone"], -scores[range(4), places], rtol=1e-3, atol=1e-3)


def test_the_head_has_not_read_the_answer(asked):
    """Its scores from a batch with answers are those of the prompt alone."""
    network, encoder, grids, states = asked
    alone = network.head_scores(encoder.batch(grids, padding_side="left"), states)
    for answer in ("Oil", "Bath Salts"):
        _, scores = network.answer_losses_and_head_scores(encoder.batch(grids, [answer] * 4), states)
        torch.testing.assert_close(scores, alone, rtol=1e-4, atol=1e-4)


def test_gradients_reach_model_and_head_together(tiny_model, tiny_encoder):
    parameters = freeze(tiny_model, Trainable())
    network = CachedQwen2VL(tiny_model)
    network.head = ClassificationHead(tiny_model.config.text_config.hidden_size, 14)
    torch.nn.init.normal_(network.head.linear.weight)
    pixels = mixed_pixels(tiny_encoder)
    states = network.vision_features(pixels)
    grids = [one.grid for one in pixels]
    example_losses(network, tiny_encoder, "joint", grids, states, ["Oil"] * 4).sum().backward()
    assert all(parameter.grad is not None for parameter in [*parameters.values(), *network.head.parameters()])

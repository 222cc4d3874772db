"""The token trie of made-up labels, without a model: positions, paths, ancestors and the tokens that may follow."""

from types import SimpleNamespace

import pytest

from skincare.modeling.token_trie import build_trie

END = 99
# "b" is a label and a prefix of "b c"; "a" shares nothing.
TOKENS = {"b": [1], "b c": [1, 2], "b d e": [1, 3, 4], "a": [5, 2]}


@pytest.fixture(scope="module")
def trie():
    encoder = SimpleNamespace(answer_tokens=lambda name: [*TOKENS[name], END], end_token_id=END)
    return build_trie(encoder, list(TOKENS))


def test_labels_share_their_common_prefix(trie):
    assert trie.names == tuple(TOKENS)
    assert trie.tokens.tolist() == [1, 2, 3, 4, 5, 2]
    assert trie.parents.tolist() == [-1, 0, 0, 2, -1, 4]
    assert trie.depths.tolist() == [0, 1, 1, 2, 0, 1]
    assert trie.leaves.tolist() == [0, 1, 3, 5]
    assert trie.end_token_id == END


def test_the_path_of_a_label_has_its_tokens(trie):
    paths = [[int(trie.tokens[i]) for i in row.nonzero().flatten()] for row in trie.paths]
    assert paths == list(TOKENS.values())


def test_a_position_attends_to_itself_and_its_ancestors(trie):
    ancestors = [set(row.nonzero().flatten().tolist()) for row in trie.attention_mask()]
    assert ancestors == [{0}, {0, 1}, {0, 2}, {0, 2, 3}, {4}, {4, 5}]


@pytest.mark.parametrize(
    ("prefix", "following"),
    [
        ([], [1, 5]),
        ([1], [2, 3, END]),
        ([1, 2], [END]),
        ([1, 3], [4]),
        ([5], [2]),
        ([1, 3, 4], [END]),
        ([2], [END]),
        ([5, 3], [END]),
    ],
)
def test_only_tokens_of_a_label_may_follow(trie, prefix, following):
    assert trie.next_tokens(prefix) == following

"""A trie of the labels' tokens: labels that begin with the same tokens share nodes.

The 14 default labels have 30 nodes with Qwen2-VL's tokenizer. One pass over the trie scores all labels, and it gives
the tokens that are allowed next when generation is limited to the labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from skincare.modeling.prompt_encoder import PromptEncoder


@dataclass(frozen=True)
class TokenTrie:
    """Nodes of the trie, each after its parent; the parent -1 is the root, which is the end of the prompt.

    tokens, parents, depths: (n_nodes,) int64, depths from 0; paths: (n_names, n_nodes) bool, the nodes of a label;
    leaves: (n_names,) int64, the last node of a label; end_token_id follows each leaf.
    """

    names: tuple[str, ...]
    tokens: torch.Tensor
    parents: torch.Tensor
    depths: torch.Tensor
    paths: torch.Tensor
    leaves: torch.Tensor
    end_token_id: int

    def attention_mask(self) -> torch.Tensor:
        """Return the (n_nodes, n_nodes) bool mask in which a node attends to itself and its ancestors."""
        mask = torch.eye(len(self.tokens), dtype=torch.bool)
        for node, parent in enumerate(self.parents.tolist()):
            if parent >= 0:
                mask[node] |= mask[parent]
        return mask

    def next_tokens(self, generated: Sequence[int]) -> list[int]:
        """Return the tokens that may follow the generated ones; only the end token after a whole label."""
        node = -1
        for token in generated:
            children = [i for i, parent in enumerate(self.parents.tolist()) if parent == node]
            found = [i for i in children if int(self.tokens[i]) == token]
            if not found:
                return [self.end_token_id]
            node = found[0]
        following = [int(self.tokens[i]) for i, parent in enumerate(self.parents.tolist()) if parent == node]
        return following + ([self.end_token_id] if node in self.leaves.tolist() else [])


def build_trie(encoder: PromptEncoder, names: Sequence[str]) -> TokenTrie:
    """Return the trie of the labels' answer tokens, which are those that training uses."""
    nodes: dict[tuple[int, ...], int] = {}
    paths, leaves = [], []
    for name in names:
        tokens = tuple(encoder.answer_tokens(name)[:-1])
        path = [nodes.setdefault(tokens[: depth + 1], len(nodes)) for depth in range(len(tokens))]
        paths.append(path)
        leaves.append(path[-1])
    on_path = torch.zeros(len(names), len(nodes), dtype=torch.bool)
    for row, path in zip(on_path, paths, strict=True):
        row[path] = True
    return TokenTrie(
        names=tuple(names),
        tokens=torch.tensor([prefix[-1] for prefix in nodes]),
        parents=torch.tensor([nodes.get(prefix[:-1], -1) for prefix in nodes]),
        depths=torch.tensor([len(prefix) - 1 for prefix in nodes]),
        paths=on_path,
        leaves=torch.tensor(leaves),
        end_token_id=encoder.end_token_id,
    )

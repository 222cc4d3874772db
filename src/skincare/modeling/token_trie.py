"""The category names as a tree of tokens: names that begin alike share their beginning.

The 14 names are 30 places in Qwen2-VL's tokens. One pass over the tree scores all of them, and it says which tokens may
come next when only names may be said.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from skincare.modeling.prompt_encoder import PromptEncoder


@dataclass(frozen=True)
class TokenTrie:
    """Places in the tree, each behind its parent; -1 is the root, the end of the prompt.

    tokens, parents, depths: (n_places,) int64, depths from 0; paths: (n_names, n_places) bool, the places of a name;
    leaves: (n_names,) int64, where a name ends; end_token_id follows each leaf.
    """

    names: tuple[str, ...]
    tokens: torch.Tensor
    parents: torch.Tensor
    depths: torch.Tensor
    paths: torch.Tensor
    leaves: torch.Tensor
    end_token_id: int

    def sees(self) -> torch.Tensor:
        """Return (n_places, n_places) bool: a place sees itself and its ancestors."""
        mask = torch.eye(len(self.tokens), dtype=torch.bool)
        for place, parent in enumerate(self.parents.tolist()):
            if parent >= 0:
                mask[place] |= mask[parent]
        return mask

    def next_tokens(self, said: Sequence[int]) -> list[int]:
        """Return the tokens that may follow what was said; just the end token behind a whole name."""
        place = -1
        for token in said:
            children = [i for i, parent in enumerate(self.parents.tolist()) if parent == place]
            found = [i for i in children if int(self.tokens[i]) == token]
            if not found:
                return [self.end_token_id]
            place = found[0]
        following = [int(self.tokens[i]) for i, parent in enumerate(self.parents.tolist()) if parent == place]
        return following + ([self.end_token_id] if place in self.leaves.tolist() else [])


def build_trie(encoder: PromptEncoder, names: Sequence[str]) -> TokenTrie:
    """Return the tree of the names' answer tokens, as they would be learnt."""
    places: dict[tuple[int, ...], int] = {}
    paths, leaves = [], []
    for name in names:
        tokens = tuple(encoder.answer_tokens(name)[:-1])
        path = [places.setdefault(tokens[: depth + 1], len(places)) for depth in range(len(tokens))]
        paths.append(path)
        leaves.append(path[-1])
    on_path = torch.zeros(len(names), len(places), dtype=torch.bool)
    for row, path in zip(on_path, paths, strict=True):
        row[path] = True
    return TokenTrie(
        names=tuple(names),
        tokens=torch.tensor([prefix[-1] for prefix in places]),
        parents=torch.tensor([places.get(prefix[:-1], -1) for prefix in places]),
        depths=torch.tensor([len(prefix) - 1 for prefix in places]),
        paths=on_path,
        leaves=torch.tensor(leaves),
        end_token_id=encoder.end_token_id,
    )

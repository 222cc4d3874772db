"""Variants of label ranking, for the ablations.

rank            log p(label | image), the likelihood of the whole label: used by evaluation and calibration
rank_per_token  the mean over the label's tokens, end token included, so that long labels have no disadvantage
rank_pmi        log p(label | image) - log p(label | white image), which removes the prior of the label
rank_synonyms   log of the sum over a label and its aliases, such as Face Wash for Cleanser
"""

from collections.abc import Callable, Sequence
from typing import Final

import torch
from PIL import Image

from skincare.inference.decoders import RankingDecoder
from skincare.labels import ENGLISH
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.modeling.token_trie import build_trie

_BLANK_SIDE_PX: Final = 448  # of a square that the processor scales to its limits


def per_token(network: CachedVLM, encoder: PromptEncoder) -> RankingDecoder:
    """Return the ranking by the mean log-likelihood of a label's tokens."""
    n_tokens = torch.tensor([len(encoder.answer_tokens(name)) for name in encoder.labels.names], device=network.device)
    return RankingDecoder(network, encoder, "rank_per_token", combine=lambda scores: scores / n_tokens)


def pmi(network: CachedVLM, encoder: PromptEncoder) -> RankingDecoder:
    """Return the ranking by pointwise mutual information with the image.

    Source: Holtzman et al. 2021, "Surface form competition", with a white image as the domain's premise.
    """
    blank = encoder.patches(Image.new("RGB", (_BLANK_SIDE_PX, _BLANK_SIDE_PX), "white"))
    trie = build_trie(encoder, encoder.labels.names)
    batch = encoder.inference_batch([blank.grid]).to(network.device)
    prior = network.score_labels(batch, network.vision_features([blank]), trie)
    return RankingDecoder(network, encoder, "rank_pmi", trie, lambda scores: scores - prior)


def synonyms(network: CachedVLM, encoder: PromptEncoder) -> RankingDecoder:
    """Return the ranking by the likelihood of a label or any of its aliases, in title case as in the prompt."""
    labels = encoder.labels
    phrases = {name: name for name in labels.names}
    phrases |= {one.phrase.title(): one.label for one in labels.aliases if one.language == ENGLISH}
    groups = [[i for i, one in enumerate(phrases.values()) if one == category] for category in labels.names]

    def pooled(scores: torch.Tensor) -> torch.Tensor:
        return torch.stack([scores[:, group].logsumexp(dim=1) for group in groups], dim=1)

    return RankingDecoder(network, encoder, "rank_synonyms", build_trie(encoder, list(phrases)), pooled)


RANKINGS: Final[Sequence[Callable[[CachedVLM, PromptEncoder], RankingDecoder]]] = (per_token, pmi, synonyms)

"""Other ways to rank the 14 names than by the likelihood of each, to see what the choice is worth.

rank            log p(name | image), the likelihood of the whole name: what evaluation and calibration use
rank_per_token  the mean over the name's tokens, end token included: long names are not punished
rank_pmi        log p(name | image) - log p(name | white image): what the image, not the habit, says for a name
rank_synonyms   log of the sum over a category's name and its aliases: a model may mean Cleanser and say Face Wash
"""

from collections.abc import Callable, Sequence
from typing import Final

import torch
from PIL import Image

from skincare.inference.decoders import RankingDecoder
from skincare.labels import ENGLISH
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.modeling.qwen2vl import CachedQwen2VL
from skincare.modeling.token_trie import build_trie

_BLANK_SIDE_PX: Final = 448  # any square: the processor scales it to its limits


def per_token(network: CachedQwen2VL, encoder: PromptEncoder) -> RankingDecoder:
    """Return the ranking by the mean log-likelihood of a name's tokens."""
    n_tokens = torch.tensor([len(encoder.answer_tokens(name)) for name in encoder.labels.names], device=network.device)
    return RankingDecoder(network, encoder, "rank_per_token", combine=lambda scores: scores / n_tokens)


def pmi(network: CachedQwen2VL, encoder: PromptEncoder) -> RankingDecoder:
    """Return the ranking by pointwise mutual information with the image.

    Source: Holtzman et al. 2021, "Surface form competition", with a white image as the domain's premise.
    """
    blank = encoder.patches(Image.new("RGB", (_BLANK_SIDE_PX, _BLANK_SIDE_PX), "white"))
    tree = build_trie(encoder, encoder.labels.names)
    batch = encoder.inference_batch([blank.grid]).to(network.device)
    prior = network.score_labels(batch, network.vision_features([blank]), tree)
    return RankingDecoder(network, encoder, "rank_pmi", tree, lambda scores: scores - prior)


def synonyms(network: CachedQwen2VL, encoder: PromptEncoder) -> RankingDecoder:
    """Return the ranking by the likelihood of any of a category's names, written as the prompt writes them."""
    labels = encoder.labels
    phrases = {name: name for name in labels.names}
    phrases |= {one.phrase.title(): one.label for one in labels.aliases if one.language == ENGLISH}
    groups = [[i for i, one in enumerate(phrases.values()) if one == category] for category in labels.names]

    def pooled(scores: torch.Tensor) -> torch.Tensor:
        return torch.stack([scores[:, group].logsumexp(dim=1) for group in groups], dim=1)

    return RankingDecoder(network, encoder, "rank_synonyms", build_trie(encoder, list(phrases)), pooled)


RANKINGS: Final[Sequence[Callable[[CachedQwen2VL, PromptEncoder], RankingDecoder]]] = (per_token, pmi, synonyms)

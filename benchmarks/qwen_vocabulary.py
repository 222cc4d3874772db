"""Qwen's tokenizer from its published vocabulary, for benchmarks without a model hub.

The vocabulary is the file `qwen.tiktoken` of the PyPI package `dashscope` (Apache-2.0): the 151,643 byte sequences of
Qwen2, Qwen2-VL and their successors, each with its rank. Only the file is read:

    pip download --no-deps dashscope==2.0.2 && unzip dashscope-*.whl dashscope/resources/qwen.tiktoken
"""

import base64
from functools import cache
from pathlib import Path
from typing import Any, Final

from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from skincare.modeling.settings import PixelLimits
from skincare.prompts import CHAT_TEMPLATE_FILE

N_MERGEABLE: Final = 151_643

# In the order of their ids, from `N_MERGEABLE` on. Source: added_tokens of Qwen/Qwen2-VL-2B's tokenizer.
SPECIAL_TOKENS: Final = tuple(
    f"<|{name}|>"
    for name in (
        "endoftext", "im_start", "im_end", "object_ref_start", "object_ref_end", "box_start", "box_end", "quad_start",
        "quad_end", "vision_start", "vision_end", "vision_pad", "image_pad", "video_pad",
    )
)  # fmt: skip


def read_ranks(file: Path) -> dict[bytes, int]:
    """Return byte sequence -> rank; raises ValueError if these are not the ranks of Qwen's vocabulary."""
    lines = (line.split() for line in file.read_bytes().splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    if sorted(ranks.values()) != list(range(N_MERGEABLE)):
        raise ValueError(f"{file}: {len(ranks)} tokens instead of Qwen's {N_MERGEABLE}")
    return ranks


def tokenizer(file: Path) -> Any:
    """Return a Qwen2Tokenizer of 151,657 entries."""
    ranks = read_ranks(file)
    of_byte = bytes_to_unicode()

    @cache
    def spelled(token: bytes) -> str:
        return "".join(of_byte[one] for one in token)

    merges = [
        (spelled(left), spelled(right))
        for token in sorted(ranks, key=ranks.__getitem__)
        if len(token) > 1
        for left, right in [_parts(token, ranks)]
    ]
    # The special tokens are entries of the vocabulary, too, so that the order of their arguments does not number them.
    vocabulary = {spelled(token): rank for token, rank in ranks.items()}
    vocabulary |= {name: N_MERGEABLE + i for i, name in enumerate(SPECIAL_TOKENS)}
    found = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=merges,
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        eos_token="<|im_end|>",  # noqa: S106
        model_max_length=32_768,
    )
    if len(found) != N_MERGEABLE + len(SPECIAL_TOKENS):
        raise ValueError(f"{file}: the tokenizer has {len(found)} entries")
    return found


def processor(file: Path) -> Any:
    """Return Qwen2-VL's processor with this tokenizer, the stages' limits of image sizes and our chat template."""
    size = PixelLimits().as_size()
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer(file),
        video_processor=Qwen2VLVideoProcessor(size=size),
        chat_template=CHAT_TEMPLATE_FILE.read_text(encoding="utf-8"),
    )


def _parts(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """Return the two tokens whose merge gives a token: what BPE with all lower ranks leaves of its bytes."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = [(ranks.get(parts[i] + parts[i + 1], N_MERGEABLE), i) for i in range(len(parts) - 1)]
        rank, place = min(pairs)
        if rank >= ranks[token]:
            raise ValueError(f"{token!r} is no merge of two tokens")
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts[0], parts[1]

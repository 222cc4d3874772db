"""What an output depends on, as hashes: the key of the prediction cache and a part of every manifest."""

import hashlib
from typing import Any

import torch
import transformers

from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.loading import weight_hash
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.prompts import CHAT_TEMPLATE_FILE


def model_identity(network: CachedVLM, encoder: PromptEncoder) -> dict[str, Any]:
    """Return everything that an output depends on except image, hint and decoder; with what affects rounding."""
    processor, head = encoder.processor.image_processor, network.head
    return {
        "weight_hash": weight_hash(network.model),
        "head_hash": weight_hash(head) if head else "",
        "labels": encoder.labels.digest,
        "dtype": str(network.dtype),
        "device": network.device.type,
        "prompt_hash": text_hash(encoder.prompt_text),
        "template_hash": text_hash(CHAT_TEMPLATE_FILE.read_text(encoding="utf-8")),
        "processor": type(processor).__name__,
        "processor_hash": text_hash(processor.to_json_string()),
        "min_pixels": processor.size["shortest_edge"],
        "max_pixels": processor.size["longest_edge"],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def text_hash(text: str) -> str:
    """Return 16 hex digits of the hash of a text."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]

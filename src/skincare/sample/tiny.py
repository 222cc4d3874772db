"""Configuration and tokenizer of the embedded stand-in model: a Qwen2-VL of about two million parameters.

It is a `Qwen2VLForConditionalGeneration` with its processor, small enough to be trained on a laptop and stored in the
repository. It exercises the pipeline; its results do not apply to Qwen2-VL-2B.
"""

import json
from collections.abc import Iterable
from typing import Any, Final

import torch
from tokenizers import Regex as TokenizerRegex
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLImageProcessor, Qwen2VLProcessor
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX, Qwen2Tokenizer
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from skincare.modeling.settings import PixelLimits
from skincare.product.schema import FIELDS
from skincare.prompts import CHAT_TEMPLATE_FILE

# Square drawings of 168 x 168 pixels: 12 x 12 patches, 6 x 6 visual tokens.
LIMITS: Final = PixelLimits(36, 36)
SIDE_PX: Final = 168

_SPECIAL_TOKENS: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
                          "<|image_pad|>", "<|video_pad|>")  # fmt: skip
_VOCABULARY_SIZE: Final = 512


def build_processor(corpus: Iterable[str]) -> Any:
    """Return a Qwen2VLProcessor with a byte-level BPE trained on `corpus`."""
    tokenizer = _train_tokenizer(corpus)
    size = LIMITS.as_size()
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=size),
        chat_template=CHAT_TEMPLATE_FILE.read_text(encoding="utf-8"),
    )


def build_model(tokenizer: Any, seed: int) -> Any:
    """Return an untrained tiny Qwen2-VL in fp32 with weights initialised from `seed`."""
    torch.manual_seed(seed)
    token_id = tokenizer.convert_tokens_to_ids
    # Larger than the usual 0.02: at width 128 training takes a third of the steps.
    initializer_range = 0.06
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
            "initializer_range": initializer_range,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 6, 6]},
            "bos_token_id": token_id("<|endoftext|>"),
            "eos_token_id": token_id("<|im_end|>"),
            "pad_token_id": token_id("<|endoftext|>"),
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 4,
            "embed_dim": 128,
            "hidden_size": 128,
            "num_heads": 4,
            "mlp_ratio": 4,
            "initializer_range": initializer_range,
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    return Qwen2VLForConditionalGeneration._from_config(config, dtype=torch.float32)


def add_structure_tokens(model: Any, processor: Any, seed: int) -> int:
    """Add a token for each key of structured answers and for null, with random embeddings; return their number.

    An answer with three values then has about 40 tokens instead of 150, most of which are part of the values.
    """
    keys = [f'{"," if i else "{"}"{field}":' for i, field in enumerate(FIELDS)]
    n_added = int(processor.tokenizer.add_tokens([*keys, "null"]))
    n_before, spread = model.get_input_embeddings().num_embeddings, model.get_input_embeddings().weight.std().item()
    model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    added = model.get_input_embeddings().weight.data[n_before:]
    added.copy_(torch.randn(added.shape, generator=torch.Generator().manual_seed(seed)) * spread)
    return n_added


def _train_tokenizer(corpus: Iterable[str]) -> Any:
    """Train a BPE with the normalisation and pre-tokenisation of Qwen2's tokenizer."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.NFC()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(TokenizerRegex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    learner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY_SIZE - len(_SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learner.train_from_iterator(corpus, trainer)
    learnt = json.loads(learner.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=learnt["vocab"],
        merges=[tuple(pair) for pair in learnt["merges"]],  # type: ignore[misc]
        additional_special_tokens=list(_SPECIAL_TOKENS[1:]),
        eos_token="<|im_end|>",  # noqa: S106
        model_max_length=1024,
    )

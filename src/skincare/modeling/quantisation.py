"""Weight quantisation of the language layers with bitsandbytes: a number of bits in, a transformers config out.

bitsandbytes runs on CPU and CUDA, and a quantised model is saved and loaded by transformers bit for bit.
"""

import importlib
from typing import Any, Final

import torch
from transformers import BitsAndBytesConfig

from skincare.errors import StageError

# Name prefixes. The vision tower keeps the checkpoint's weights, so that cached vision features stay valid.
NOT_QUANTISED: Final = ("model.visual", "lm_head")


def bitsandbytes_config(n_bits: int) -> Any:
    """Return the transformers quantisation config for 8-bit (LLM.int8) or 4-bit (NF4) language layers.

    Raises StageError if bitsandbytes is not installed.
    """
    try:
        importlib.import_module("bitsandbytes")  # not available on every platform
    except ImportError as error:
        raise StageError(
            f"{n_bits}-bit weights need bitsandbytes: `pip install bitsandbytes`, or choose another recipe or format."
        ) from error
    if n_bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(NOT_QUANTISED))
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16, llm_int8_skip_modules=list(NOT_QUANTISED),
    )  # fmt: skip

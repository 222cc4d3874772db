"""A trained model as a folder that everybody can load, and that answers elsewhere as it does here.

Its settings say what the training has taught: where an answer ends, that the likeliest token is taken, which
instruction comes first. The checkpoint's own may stop at another token, sample, or drop the image.

What rounding to the checkpoint's dtype would change is kept in fp32: steps of 5e-7 are smaller than half the distance
between two bf16 numbers, so that a bf16 file would hold little of what was learnt. Frozen tensors keep their 16 bits in
the file; `config.json` asks for fp32, so that all who load it get every weight as it is. Computing in bf16 rounds the
weights too, autocast included, which takes from LoRA a part of what it adds.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from skincare.files import write_json
from skincare.inference.decoders import MAX_NEW_TOKENS
from skincare.modeling.heads import ClassificationHead, save_head
from skincare.prompts import chat_template


@dataclass
class ExportStatistics:
    """What became of the trained weights on their way into a folder.

    n_changed: of `n_weights`, how many training has changed; n_changed_rounded: how many would differ from the
    checkpoint's in its own dtype. is_fp32: whether the folder is to be loaded in fp32 for that.
    """

    checkpoint_dtype: torch.dtype
    n_weights: int = 0
    n_changed: int = 0
    n_changed_rounded: int = 0
    is_fp32: bool = False

    def count(self, before: torch.Tensor, after: torch.Tensor) -> None:
        """Add one tensor."""
        self.n_weights += before.numel()
        self.n_changed += int((after != before).sum())
        self.n_changed_rounded += int((after.to(self.checkpoint_dtype) != before.to(self.checkpoint_dtype)).sum())


def write_model(folder: Path, model: Any, head: ClassificationHead | None, processor: Any) -> bool:
    """Write model, processor and head; return whether they are to be loaded in fp32, as rounding would change a weight.

    `from_pretrained(folder)` loads them without a token or a network. Model and processor are changed in place.
    """
    _set_generation_defaults(model, processor)
    dtype = model.config.dtype
    is_exact = all(_holds(dtype, parameter) for parameter in model.parameters())
    building = folder / ".part"
    shutil.rmtree(building, ignore_errors=True)
    (model.to(dtype) if is_exact else model).save_pretrained(building)
    _write_dtype(building / "config.json", dtype if is_exact else torch.float32)
    processor.save_pretrained(building)
    if head is not None:
        save_head(building, head)
    # config.json makes a folder a model, so it comes last.
    for file in sorted(building.iterdir(), key=lambda file: file.name == "config.json"):
        file.replace(folder / file.name)
    building.rmdir()
    return dtype == torch.float32 or not is_exact


def _set_generation_defaults(model: Any, processor: Any) -> None:
    """Let generate(), pipelines and servers do what `skincare.inference.decoders` does."""
    tokenizer = processor.tokenizer
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    # Prompts of a batch must end together; saved is what the tokenizer was made with.
    tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "left"
    processor.chat_template = tokenizer.chat_template = chat_template()
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    # A new one: the checkpoint's may hold temperatures and penalties.
    model.generation_config = GenerationConfig(
        bos_token_id=model.generation_config.bos_token_id,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
        max_new_tokens=MAX_NEW_TOKENS,
    )
    model.config.text_config.eos_token_id, model.config.text_config.pad_token_id = ends, tokenizer.pad_token_id


def _holds(dtype: torch.dtype, tensor: torch.Tensor) -> bool:
    """Tell whether a tensor's values are all numbers of a dtype."""
    return tensor.dtype == dtype or torch.equal(tensor.to(dtype).to(tensor.dtype), tensor)


def _write_dtype(path: Path, dtype: torch.dtype) -> None:
    """Say in config.json what to load the model in; transformers writes the dtype of the first tensor."""
    config = json.loads(path.read_text(encoding="utf-8"))
    for part in (config, config["text_config"], config["vision_config"]):
        part["dtype"] = str(dtype).removeprefix("torch.")
    write_json(path, config)

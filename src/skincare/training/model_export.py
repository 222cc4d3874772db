"""Export of a trained model as a checkpoint folder that transformers, pipelines and servers load directly.

Its generation settings match the training: end token, greedy decoding, system prompt. Those of the base checkpoint may
stop at another token, sample, or drop the image.

Weights that rounding to the checkpoint's dtype would change are written in fp32: updates of 5e-7 are smaller than half
the distance between neighbouring bf16 numbers, so that a bf16 file would lose most of the training. Frozen tensors stay
in 16 bits in the file; `config.json` sets the dtype to fp32, so that every weight is loaded exactly. Computing in bf16,
autocast included, rounds the weights again and loses part of a LoRA update.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from skincare.files import write_json
from skincare.inference.decoders import max_new_tokens
from skincare.labels import Labels
from skincare.modeling.heads import ClassificationHead, save_head
from skincare.prompts import chat_template


@dataclass
class ExportStatistics:
    """Counts of weights that training changed.

    n_changed: of `n_weights`, those that differ from the checkpoint's; n_changed_rounded: those that still differ in
    the checkpoint's dtype; is_fp32: whether the exported folder is loaded in fp32.
    """

    checkpoint_dtype: torch.dtype
    n_weights: int = 0
    n_changed: int = 0
    n_changed_rounded: int = 0
    is_fp32: bool = False

    def count(self, before: torch.Tensor, after: torch.Tensor) -> None:
        """Add the counts of one tensor."""
        self.n_weights += before.numel()
        self.n_changed += int((after != before).sum())
        self.n_changed_rounded += int((after.to(self.checkpoint_dtype) != before.to(self.checkpoint_dtype)).sum())


def write_model(folder: Path, model: Any, head: ClassificationHead | None, processor: Any, labels: Labels) -> bool:
    """Write model, processor, head and labels; return whether the folder is loaded in fp32: rounding changes a weight.

    `from_pretrained(folder)` loads them offline. Model and processor are changed in place.
    """
    _set_generation_defaults(model, processor, labels)
    dtype = model.config.dtype
    is_exact = all(_holds(dtype, parameter) for parameter in model.parameters())
    building = folder / ".part"
    shutil.rmtree(building, ignore_errors=True)
    (model.to(dtype) if is_exact else model).save_pretrained(building)
    _write_dtype(building / "config.json", dtype if is_exact else torch.float32)
    processor.save_pretrained(building)
    if head is not None:
        save_head(building, head, labels)
    labels.write(building)
    # Last: the presence of config.json makes a folder a model.
    for file in sorted(building.iterdir(), key=lambda file: file.name == "config.json"):
        file.replace(folder / file.name)
    building.rmdir()
    return dtype == torch.float32 or not is_exact


def _set_generation_defaults(model: Any, processor: Any, labels: Labels) -> None:
    """Make generate(), pipelines and servers decode as `skincare.inference.decoders` does."""
    tokenizer = processor.tokenizer
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    # Batched generation needs left padding; save_pretrained writes init_kwargs.
    tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "left"
    processor.chat_template = tokenizer.chat_template = chat_template(labels.system_prompt())
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    # A new config: the checkpoint's may hold temperatures and penalties.
    model.generation_config = GenerationConfig(
        bos_token_id=model.generation_config.bos_token_id,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
        max_new_tokens=max_new_tokens(labels),
    )
    model.config.text_config.eos_token_id, model.config.text_config.pad_token_id = ends, tokenizer.pad_token_id


def _holds(dtype: torch.dtype, tensor: torch.Tensor) -> bool:
    """Return whether a dtype represents all values of a tensor exactly."""
    return tensor.dtype == dtype or torch.equal(tensor.to(dtype).to(tensor.dtype), tensor)


def _write_dtype(path: Path, dtype: torch.dtype) -> None:
    """Set the dtype in config.json; transformers writes the dtype of the first tensor."""
    config = json.loads(path.read_text(encoding="utf-8"))
    for part in (config, config["text_config"], config["vision_config"]):
        part["dtype"] = str(dtype).removeprefix("torch.")
    write_json(path, config)

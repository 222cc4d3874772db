"""The options of a training run in addition to its recipe; importable without torch, for the command line."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from skincare.modeling.settings import DEFAULT_MODEL, PixelLimits


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Options that finetune.py and compare_recipes.py share."""

    model: str = DEFAULT_MODEL
    """Model of the Hugging Face hub, or a local folder."""
    max_epochs: int | None = None
    """Number of epochs; the recipe's by default."""
    learning_rate: float | None = None
    """Peak learning rate; the recipe's by default."""
    min_tokens: int = 64
    """Minimum number of visual tokens per image (28 x 28 pixels each; Qwen3-VL: 32 x 32)."""
    max_tokens: int = 128
    """Maximum number of visual tokens per image."""
    vram_gb: float | None = None
    """Memory to plan for, in GiB; the machine's by default."""
    micro_batch_size: int | None = None
    """Images per forward pass, accumulated to the recipe's batch; chosen by the memory plan by default."""
    gradient_checkpointing: bool | None = None
    """Recompute activations instead of storing them; chosen by the memory plan by default."""
    attention: Literal["sdpa", "flash_attention_2", "eager"] = "sdpa"
    """Attention kernel of the language layers; flash_attention_2 requires flash-attn."""
    compile: bool = False
    """Compile the layers with torch.compile: pays off on a GPU in long runs; needs triton, on a CPU a C++ compiler."""
    dataset: str = ""
    """Folder or URL of shards written by export_dataset.py, to train on instead of clean_dataset/."""
    cache_images: Annotated[bool, tyro.conf.arg(aliases=("--no-cache-pictures",))] = True
    """Store the output of the frozen vision blocks on disk (.cache/vision)."""

    @property
    def limits(self) -> PixelLimits:
        """Return the bounds on the size of an image."""
        return PixelLimits(self.min_tokens, self.max_tokens)

"""Settings of the model that a command line, a recipe or a plan names: plain values, importable without torch."""

from dataclasses import dataclass
from typing import Final, Literal

DEFAULT_MODEL: Final = "Qwen/Qwen2-VL-2B"

# Pixels under one visual token of Qwen2-VL and Qwen2.5-VL: patches of 14 x 14, merged two by two.
PIXELS_PER_TOKEN: Final = 28 * 28

# Whether the loss is taken from the answer tokens ("none"), from the classification head ("alone"), or from both.
HeadUse = Literal["none", "alone", "joint"]

# The dtype to load weights in; auto is the one they were saved in.
Dtype = Literal["auto", "float32", "bfloat16"]

# The decoders, see skincare.inference.decoders.
DecoderName = Literal["generate", "constrained", "rank", "head"]


@dataclass(frozen=True)
class PixelLimits:
    """Bounds on the number of visual tokens of an image; the processor resizes the image to fit them."""

    min_tokens: int = 64
    max_tokens: int = 128

    def as_size(self, pixels_per_token: int = PIXELS_PER_TOKEN) -> dict[str, int]:
        """Return the limits as the image processor's `size`: pixel counts, in spite of the keys' names."""
        return {
            "shortest_edge": self.min_tokens * pixels_per_token,
            "longest_edge": self.max_tokens * pixels_per_token,
        }


@dataclass(frozen=True)
class Trainable:
    """Which modules of the model are trained; `everything` overrides the other fields."""

    n_vision_blocks: int = 1
    merger: bool = True
    n_language_layers: int = 1
    everything: bool = False

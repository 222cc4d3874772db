"""Settings of the model that a command line, a recipe or a plan names: plain values, importable without torch."""

from dataclasses import dataclass
from typing import Final, Literal

DEFAULT_MODEL: Final = "Qwen/Qwen2-VL-2B"

# One visual token covers 28 x 28 pixels: a 14-pixel patch, merged two by two.
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

    def as_size(self) -> dict[str, int]:
        """Return the limits as the image processor's `size`: pixel counts, in spite of the keys' names."""
        return {
            "shortest_edge": self.min_tokens * PIXELS_PER_TOKEN,
            "longest_edge": self.max_tokens * PIXELS_PER_TOKEN,
        }


@dataclass(frozen=True)
class Trainable:
    """Which modules of the model are trained; `everything` overrides the other fields."""

    n_vision_blocks: int = 1
    merger: bool = True
    n_language_layers: int = 1
    everything: bool = False

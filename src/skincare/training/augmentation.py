"""Other views of training images: what a photographer might have done, never a mirrored print.

A view is a function of seed, epoch and image, so that a run can go on in the middle of an epoch, whatever the number of
threads that make views. It is made at the size that the model sees: there is nothing to gain by changing colours of
ten times as many pixels.
"""

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, Literal

import numpy as np
import torch
from PIL import Image
from torch.overrides import TorchFunctionMode
from torchvision.transforms import v2

from skincare import images

Augmentation = Literal["none", "light", "colour", "geometric", "randaugment", "augmix"]

# (width, height) in pixels
Size = tuple[int, int]

_WHITE: Final = (255, 255, 255)
_SMALLEST_CROP: Final = 0.85  # of each side


def augment(
    image: Image.Image, kind: Augmentation, seed: int, epoch: int, image_id: str,
    enough_size: Callable[[Size], tuple[float, float]] = lambda size: size,
) -> Image.Image:  # fmt: skip
    """Return the view of an RGB image that this epoch shows; the global random state is left alone.

    `enough_size` tells how large, for an image of some size, is enough for the model. The view is made at that size, or
    at so much more that a crop of it still has it.
    """
    if kind == "none":
        return image
    digest = hashlib.sha256(f"{seed} {epoch} {image_id}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
    small = _shrunk(image, enough_size(image.size), margin=1 / _SMALLEST_CROP if kind == "geometric" else 1.0)
    with _OwnGenerator(generator):
        return _transform(kind)(small)


def _shrunk(image: Image.Image, size: tuple[float, float], margin: float) -> Image.Image:
    """Return the image in its own proportions, each side at least `margin` times that of `size`, never enlarged."""
    scale = margin * max(size[0] / image.width, size[1] / image.height)
    if scale >= 1:
        return image
    smaller = round(scale * image.width), round(scale * image.height)
    # Means of four pixels take a tenth of the time of PIL's filter, which has a quarter of the pixels left to read.
    halved = Image.fromarray(images.reduced(np.asarray(image), max(smaller)))
    return halved.resize(smaller, Image.Resampling.BICUBIC)


class _OwnGenerator(TorchFunctionMode):
    """Lets torchvision, which draws from the one global generator, draw from another: in this thread alone."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        of_generator = {"generator": self.generator} if func in _RANDOM_FUNCTIONS else {}
        return func(*args, **{**(kwargs or {}), **of_generator})


# All that the transforms below draw with.
_RANDOM_FUNCTIONS: Final = (torch.rand, torch.randint, torch.randperm, torch.Tensor.uniform_, torch._sample_dirichlet)


@cache
def _transform(kind: Augmentation) -> Any:
    """Return the transform; ranges are those in which a print stays readable."""
    if kind == "light":
        return v2.ColorJitter(brightness=0.25, contrast=0.25)
    if kind == "colour":
        # Hue hardly: the colour of a pack tells variants apart.
        return v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.3, hue=0.02)
    if kind == "geometric":
        return v2.Compose([
            v2.RandomRotation(10, v2.InterpolationMode.BILINEAR, fill=_WHITE),
            _CropOfMost(),
        ])  # fmt: skip
    if kind == "randaugment":
        # Its list holds shears, shifts, rotations and tones, no flips.
        return v2.RandAugment(num_ops=2, magnitude=7, fill=_WHITE)
    return v2.AugMix(severity=3, fill=_WHITE)


class _CropOfMost(torch.nn.Module):
    """Crops to 85 to 100 % of each side, anywhere."""

    def forward(self, image: Image.Image) -> Image.Image:
        """Return the crop; its own size, since the processor resizes every image."""
        share, left, top = (float(value) for value in torch.rand(3))
        width, height = (max(1, round(side * (_SMALLEST_CROP + (1 - _SMALLEST_CROP) * share))) for side in image.size)
        x, y = round(left * (image.width - width)), round(top * (image.height - height))
        return image.crop((x, y, x + width, y + height))

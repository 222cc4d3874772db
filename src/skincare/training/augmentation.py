"""Augmentation of training images: changes of lighting, colour, rotation and crop; never a mirror image.

An augmented image depends on seed, epoch and image id only, so that a run can be resumed in the middle of an epoch with
any number of threads. Transforms are applied at the model's input resolution, about a tenth of an image's pixels.
"""

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch.overrides import TorchFunctionMode
from torchvision.transforms import v2

from skincare import images
from skincare.training.recipes import Augmentation

# (width, height) in pixels
Size = tuple[int, int]

_WHITE: Final = (255, 255, 255)
_MIN_CROP: Final = 0.85  # share of each side


def augment(
    image: Image.Image, kind: Augmentation, seed: int, epoch: int, image_id: str,
    enough_size: Callable[[Size], tuple[float, float]] = lambda size: size,
) -> Image.Image:  # fmt: skip
    """Return the augmented RGB image of this epoch; the global random state is not used.

    `enough_size` returns the size, for an image of a given size, below which the model would lose pixels. The image is
    shrunk to it before the transform, or to a size of which the smallest crop still has it.
    """
    if kind == "none":
        return image
    digest = hashlib.sha256(f"{seed} {epoch} {image_id}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
    small = _shrunk(image, enough_size(image.size), margin=1 / _MIN_CROP if kind == "geometric" else 1.0)
    with _OwnGenerator(generator):
        return _transform(kind)(small)


def _shrunk(image: Image.Image, size: tuple[float, float], margin: float) -> Image.Image:
    """Return the image shrunk with its aspect ratio, each side at least `margin` times that of `size`."""
    scale = margin * max(size[0] / image.width, size[1] / image.height)
    if scale >= 1:
        return image
    smaller = round(scale * image.width), round(scale * image.height)
    # Averaging 2 x 2 pixels first takes a tenth of the time of PIL's filter and leaves it a quarter of the pixels.
    halved = Image.fromarray(images.reduced(np.asarray(image), max(smaller)))
    return halved.resize(smaller, Image.Resampling.BICUBIC)


class _OwnGenerator(TorchFunctionMode):
    """Makes torchvision, which uses torch's global generator, use another one, in this thread only."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        of_generator = {"generator": self.generator} if func in _RANDOM_FUNCTIONS else {}
        return func(*args, **{**(kwargs or {}), **of_generator})


# The random functions that the transforms below call.
_RANDOM_FUNCTIONS: Final = (torch.rand, torch.randint, torch.randperm, torch.Tensor.uniform_, torch._sample_dirichlet)


@cache
def _transform(kind: Augmentation) -> Any:
    """Return the transform; its ranges keep the printed text readable."""
    if kind == "light":
        return v2.ColorJitter(brightness=0.25, contrast=0.25)
    if kind == "colour":
        # Little hue: variants of a product differ in the colour of the pack.
        return v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.3, hue=0.02)
    if kind == "geometric":
        return v2.Compose([
            v2.RandomRotation(10, v2.InterpolationMode.BILINEAR, fill=_WHITE),
            _RandomCrop(),
        ])  # fmt: skip
    if kind == "randaugment":
        # Its operations are shears, translations, rotations and tone changes, no flips.
        return v2.RandAugment(num_ops=2, magnitude=7, fill=_WHITE)
    return v2.AugMix(severity=3, fill=_WHITE)


class _RandomCrop(torch.nn.Module):
    """Crops to 85 to 100 % of each side, at a random position."""

    def forward(self, image: Image.Image) -> Image.Image:
        """Return the crop without resizing it: the processor resizes every image."""
        share, left, top = (float(value) for value in torch.rand(3))
        width, height = (max(1, round(side * (_MIN_CROP + (1 - _MIN_CROP) * share))) for side in image.size)
        x, y = round(left * (image.width - width)), round(top * (image.height - height))
        return image.crop((x, y, x + width, y + height))

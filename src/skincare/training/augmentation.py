"""Other views of training pictures: what a photographer might have done, never a mirrored print.

The view of a picture is a function of seed, epoch and picture, so that a run can go on in the middle of an epoch.
"""

import hashlib
import threading
from functools import cache
from typing import Any, Literal

import torch
from PIL import Image
from torchvision.transforms import v2

Augmentation = Literal["none", "light", "colour", "geometric", "randaugment", "augmix"]

_WHITE = (255, 255, 255)
# torchvision draws from the one global generator, and pictures are read in threads.
_GENERATOR = threading.Lock()


def augment(image: Image.Image, kind: Augmentation, seed: int, epoch: int, image_id: str) -> Image.Image:
    """Return the view of an RGB picture that this epoch shows; the global random state is left alone."""
    if kind == "none":
        return image
    digest = hashlib.sha256(f"{seed} {epoch} {image_id}".encode()).digest()
    with _GENERATOR, torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(digest[:8], "big", signed=True))
        return _transform(kind)(image)


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
        """Return the crop; its own size, since the processor resizes every picture."""
        share, left, top = (float(value) for value in torch.rand(3))
        width, height = (max(1, round(side * (0.85 + 0.15 * share))) for side in image.size)
        x, y = round(left * (image.width - width)), round(top * (image.height - height))
        return image.crop((x, y, x + width, y + height))

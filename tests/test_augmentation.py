"""Views change a picture as a photographer might, the same way whenever the run is repeated."""

from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from skincare.training.augmentation import Augmentation, augment
from tests.dataset_helpers import pack

KINDS = [kind for kind in get_args(Augmentation) if kind != "none"]
PICTURE = pack(3, 240)


def pixels(kind, seed=0, epoch=1, image_id="1_1", picture=PICTURE):
    return np.asarray(augment(picture, kind, seed, epoch, image_id).resize((240, 240)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_view_is_a_function_of_seed_epoch_and_picture(kind):
    first = pixels(kind)
    assert np.array_equal(pixels(kind), first)
    others = [pixels(kind, seed=1), pixels(kind, epoch=2), pixels(kind, image_id="1_2")]
    assert sum(not np.array_equal(other, first) for other in others) >= 2


@pytest.mark.parametrize("kind", KINDS)
def test_threads_do_not_change_a_view(kind):
    ids = [f"1_{i}" for i in range(24)]
    alone = [pixels(kind, image_id=i) for i in ids]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda i: pixels(kind, image_id=i), ids))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


@pytest.mark.parametrize("kind", [*KINDS, "none"])
def test_the_global_random_state_is_left_alone(kind):
    before = torch.get_rng_state()
    pixels(kind)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", KINDS)
def test_no_view_is_a_mirror_image(kind):
    """A picture dark on its left half stays darker there: mirrored print cannot be read."""
    half = Image.new("RGB", (240, 240), (200, 200, 200))
    half.paste((60, 60, 60), (0, 0, 120, 240))
    mirrored = 0
    for i in range(60):
        view = pixels(kind, image_id=f"1_{i}", picture=half).astype(float).mean(axis=2)
        mirrored += view[60:180, 40:80].mean() > view[60:180, 160:200].mean()
    # RandAugment and AugMix may invert tones (solarize), which is not a flip.
    assert mirrored <= (6 if kind in ("randaugment", "augmix") else 0)


def test_none_is_the_picture_itself():
    assert augment(PICTURE, "none", 0, 0, "1_1") is PICTURE

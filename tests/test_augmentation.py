"""Augmentation is reproducible, independent of threads, and never mirrors an image."""

import copy
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from skincare.labels import skincare_labels
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.modeling.settings import PixelLimits
from skincare.modeling.vision_features import VisionFeatures
from skincare.paths import Layout
from skincare.training import augmentation
from skincare.training.augmentation import augment
from skincare.training.recipes import Augmentation
from tests.dataset_helpers import pack, write_dataset_files

KINDS = [kind for kind in get_args(Augmentation) if kind != "none"]
IMAGE = pack(3, 240)


def pixels(kind, seed=0, epoch=1, image_id="1_1", image=IMAGE):
    return np.asarray(augment(image, kind, seed, epoch, image_id).resize((240, 240)))


@pytest.mark.parametrize("kind", KINDS)
def test_augmentation_is_a_function_of_seed_epoch_and_image(kind):
    first = pixels(kind)
    assert np.array_equal(pixels(kind), first)
    others = [pixels(kind, seed=1), pixels(kind, epoch=2), pixels(kind, image_id="1_2")]
    assert sum(not np.array_equal(other, first) for other in others) >= 2


@pytest.mark.parametrize("kind", KINDS)
def test_threads_do_not_change_the_augmentation(kind):
    ids = [f"1_{i}" for i in range(24)]
    alone = [pixels(kind, image_id=i) for i in ids]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda i: pixels(kind, image_id=i), ids))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_augmentation_matches_torchvision_with_the_same_seed(kind):
    """All random numbers come from the image's own generator, none from the global one."""
    seed = int.from_bytes(hashlib.sha256(b"0 1 1_1").digest()[:8], "big", signed=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        expected = augmentation._transform(kind)(IMAGE)
    assert np.array_equal(np.asarray(augment(IMAGE, kind, 0, 1, "1_1")), np.asarray(expected))


def test_threads_augment_concurrently(monkeypatch):
    """Each transform waits for the other: under a lock this would deadlock."""
    both = threading.Barrier(2, timeout=20)
    monkeypatch.setattr(augmentation, "_transform", lambda _: lambda image: (both.wait() and image) or image)
    with ThreadPoolExecutor(2) as pool:
        assert len(list(pool.map(lambda i: augment(IMAGE, "light", 0, 0, i), ["1_1", "1_2"]))) == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1000, 1000), (1000, 667), (300, 1200)])
@pytest.mark.parametrize("limits", [(64, 128), (36, 36)])
def test_augmented_images_have_the_models_input_resolution(tiny_encoder, kind, size, limits):
    encoder = PromptEncoder(copy.deepcopy(tiny_encoder.processor), skincare_labels())
    encoder.processor.image_processor.size = PixelLimits(*limits).as_size()
    image = IMAGE.resize(size)
    grid = encoder.patches(image).grid
    wanted = (14 * grid[2], 14 * grid[1])
    for i in range(10):
        augmented = augment(image, kind, 0, 1, f"1_{i}", encoder.enough_size)
        assert all(found >= least for found, least in zip(augmented.size, wanted, strict=True)), "no image is enlarged"
        assert augmented.width * augmented.height < 2.5 * limits[1] * 784
        assert encoder.patches(augmented).grid == grid or kind == "geometric"


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_image_is_not_enlarged(kind):
    small = IMAGE.resize((60, 60))
    shown = [augment(small, kind, 0, 1, "1_1", size) for size in (lambda _: (308, 308), lambda size: size)]
    assert np.array_equal(*map(np.asarray, shown))


@pytest.mark.parametrize("kind", ["geometric", "augmix"])
def test_the_number_of_threads_does_not_change_the_features(tiny_model, tiny_encoder, tmp_path, kind, monkeypatch):
    layout = Layout(tmp_path)
    names = [one.image for one in write_dataset_files(layout, {"train": 6})["train"]]
    images = VisionFeatures(CachedVLM(tiny_model.requires_grad_(False)), tiny_encoder, layout.root)
    shown = [partial(augment, kind=kind, seed=0, epoch=1, image_id=one, enough_size=tiny_encoder.enough_size)
             for one in names]  # fmt: skip
    found = []
    for n_workers in (1, 2, 8):
        monkeypatch.setattr(
            "skincare.modeling.vision_features.ThreadPoolExecutor", partial(ThreadPoolExecutor, n_workers)
        )
        found.append(torch.cat(images.transformed(names, shown)[1]))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("kind", [*KINDS, "none"])
def test_the_global_random_state_is_unchanged(kind):
    before = torch.get_rng_state()
    pixels(kind)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_never_mirrored(kind):
    """An image with a dark left half stays darker there: mirrored text is not readable."""
    half = Image.new("RGB", (240, 240), (200, 200, 200))
    half.paste((60, 60, 60), (0, 0, 120, 240))
    mirrored = 0
    for i in range(60):
        augmented = pixels(kind, image_id=f"1_{i}", image=half).astype(float).mean(axis=2)
        mirrored += augmented[60:180, 40:80].mean() > augmented[60:180, 160:200].mean()
    # RandAugment and AugMix may invert tones (solarize), which is not a flip.
    assert mirrored <= (6 if kind in ("randaugment", "augmix") else 0)


def test_without_augmentation_the_image_is_returned():
    assert augment(IMAGE, "none", 0, 0, "1_1") is IMAGE

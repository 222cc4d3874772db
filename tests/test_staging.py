"""The images of a pass are copied to the device together, and read by threads that live as long as their owner."""

import threading

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from skincare.modeling.staging import to_device
from skincare.modeling.vision_features import VisionFeatures
from tests.helpers import noise_image


class Copies(TorchDispatchMode):
    """Counts copies between devices; meta stands for a device without memory."""

    def __init__(self):
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n += func is torch.ops.aten._to_copy.default
        return func(*args, **(kwargs or {}))


PARTS = [torch.arange(n * 3, dtype=torch.float32).reshape(n, 3) + n for n in (4, 1, 6)]


def test_images_are_copied_together():
    with Copies() as one_by_one:
        for part in PARTS:
            part.to("meta")
    with Copies() as together:
        moved = to_device(PARTS, torch.device("meta"))
    assert (one_by_one.n, together.n) == (3, 1)
    assert [part.shape for part in moved] == [part.shape for part in PARTS]
    assert all(part.device.type == "meta" for part in moved)


def test_tensors_on_the_device_are_not_copied():
    assert all(one is other for one, other in zip(to_device(PARTS, torch.device("cpu")), PARTS, strict=True))
    assert to_device([], torch.device("meta")) == []


def test_later_calls_read_images_with_the_threads_of_the_first(tiny_model, tiny_encoder, tmp_path):
    from skincare.modeling.cached_vlm import CachedVLM

    for i in range(4):
        noise_image(84, 84, seed=i).save(tmp_path / f"{i}.png")
    features = VisionFeatures(CachedVLM(tiny_model.requires_grad_(False)), tiny_encoder, tmp_path)
    features.get(["0.png", "1.png"])
    before = {thread.ident for thread in threading.enumerate() if thread.name.startswith("images")}
    assert before
    n_most = features._readers._max_workers
    for _ in range(3):
        features.transformed(["2.png", "3.png"], [lambda image: image] * 2)
    after = {thread.ident for thread in threading.enumerate() if thread.name.startswith("images")}
    assert before <= after
    assert len(after) <= n_most + len(before)

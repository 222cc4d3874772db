"""Cached vision features equal the computed ones, whatever the folder holds, and are never those of another model."""

import re
import shutil

import pytest
import torch
from PIL import Image

from skincare.errors import StageError
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.feature_memory import FeatureMemory
from skincare.modeling.freezing import freeze
from skincare.modeling.settings import Trainable
from skincare.modeling.vision_features import VisionFeatures, features_key
from skincare.paths import Layout
from tests.dataset_helpers import jpeg, pack, write_dataset_files


@pytest.fixture
def layout(tmp_path):
    found = Layout(tmp_path)
    write_dataset_files(found, {"train": 5})
    return found


@pytest.fixture
def names(layout):
    return sorted(layout.relative(path) for path in layout.clean_images.iterdir())


@pytest.fixture
def frozen(tiny_model):
    freeze(tiny_model, Trainable())
    return CachedVLM(tiny_model)


def test_features_on_disk_are_the_computed_ones(layout, names, frozen, tiny_encoder, monkeypatch):
    grids, fresh = VisionFeatures(frozen, tiny_encoder, layout.root).get(names)
    VisionFeatures(frozen, tiny_encoder, layout.root, layout.vision_cache).fill(names)
    again = VisionFeatures(frozen, tiny_encoder, layout.root, layout.vision_cache)
    monkeypatch.setattr(again, "_compute", lambda images: [] if not images else pytest.fail("computed again"))
    found_grids, found = again.get(names)
    assert found_grids == grids
    assert all(torch.equal(one, other) for one, other in zip(found, fresh, strict=True))


def test_features_are_returned_in_the_requested_order(layout, names, frozen, tiny_encoder):
    images = VisionFeatures(frozen, tiny_encoder, layout.root)
    _, forwards = images.get(names)
    _, backwards = images.get([*reversed(names), names[0]])
    assert all(torch.equal(one, other) for one, other in zip(forwards, backwards[-2::-1], strict=True))
    assert torch.equal(backwards[-1], forwards[0])


def test_a_truncated_file_is_computed_again(layout, names, frozen, tiny_encoder):
    VisionFeatures(frozen, tiny_encoder, layout.root, layout.vision_cache).fill(names)
    entries = sorted(layout.vision_cache.rglob("*.safetensors"))
    assert len(entries) == len(names)
    content = entries[0].read_bytes()
    for use in (VisionFeatures.fill, VisionFeatures.get):
        entries[0].write_bytes(content[:100])
        use(VisionFeatures(frozen, tiny_encoder, layout.root, layout.vision_cache), names)
        assert entries[0].read_bytes() == content


def test_an_image_that_was_replaced_has_new_features(layout, names, frozen, tiny_encoder):
    _, old = VisionFeatures(frozen, tiny_encoder, layout.root, layout.vision_cache).get(names[:1])
    (layout.root / names[0]).write_bytes(jpeg(pack(99, 224)))
    _, new = VisionFeatures(frozen, tiny_encoder, layout.root, layout.vision_cache).get(names[:1])
    assert not torch.equal(old[0], new[0])


def test_the_key_depends_on_frozen_weights_pixel_limits_and_number_of_blocks_only(tiny_model, tiny_encoder):
    freeze(tiny_model, Trainable())
    key = features_key(CachedVLM(tiny_model), tiny_encoder)
    visual = tiny_model.model.visual
    with torch.no_grad():
        visual.blocks[-1].mlp.fc1.weight += 1  # trained, so not part of the cached blocks
    assert features_key(CachedVLM(tiny_model), tiny_encoder) == key
    processor = tiny_encoder.processor.image_processor
    old, processor.size = processor.size, {"shortest_edge": 49 * 784, "longest_edge": 49 * 784}
    try:
        assert features_key(CachedVLM(tiny_model), tiny_encoder) != key
    finally:
        processor.size = old
    with torch.no_grad():
        visual.blocks[0].mlp.fc1.weight += 1e-3
    assert features_key(CachedVLM(tiny_model), tiny_encoder) != key
    freeze(tiny_model, Trainable(n_vision_blocks=2))
    assert features_key(CachedVLM(tiny_model), tiny_encoder) != key


@pytest.mark.parametrize("broken", [b"", b"no image", jpeg(pack(1, 224))[:-800]])
def test_a_broken_image_is_an_error_with_its_name(layout, names, frozen, tiny_encoder, broken):
    (layout.root / names[2]).write_bytes(broken)
    with pytest.raises(StageError, match=names[2]):
        VisionFeatures(frozen, tiny_encoder, layout.root).get(names)


def test_an_absent_image_is_an_error_with_the_stage_to_run(layout, names, frozen, tiny_encoder):
    (layout.root / names[2]).unlink()
    with pytest.raises(StageError, match=r"build_dataset\.py"):
        VisionFeatures(frozen, tiny_encoder, layout.root, layout.vision_cache).fill(names)


def test_the_size_on_disk_is_logged_before_and_must_fit(layout, names, frozen, tiny_encoder, monkeypatch, caplog):
    images = VisionFeatures(frozen, tiny_encoder, layout.root, layout.vision_cache)
    with caplog.at_level("INFO"):
        images.fill(names)
    announced = float(re.search(r"at most ([0-9.]+) MB", caplog.text)[1]) * 1e6
    written = sum(path.stat().st_size for path in layout.vision_cache.rglob("*.safetensors"))
    assert 0.8 * written <= announced + 50_000 <= 1.5 * written + 50_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 100, 0))
    with pytest.raises(StageError, match="--no-cache-images"):
        VisionFeatures(frozen, tiny_encoder, layout.root, layout.root / "elsewhere").fill(names)


def test_nothing_is_written_without_frozen_blocks(layout, names, tiny_model, tiny_encoder):
    freeze(tiny_model, Trainable(everything=True))
    images = VisionFeatures(CachedVLM(tiny_model), tiny_encoder, layout.root, layout.vision_cache)
    images.fill(names)
    assert len(images.get(names)[1]) == len(names)
    assert not layout.vision_cache.exists()


def test_memory_stays_within_its_budget_and_the_results_are_the_same(layout, names, frozen, tiny_encoder):
    """With room for two of five images, and with room for none."""
    _, expected = VisionFeatures(frozen, tiny_encoder, layout.root).get(names)
    n_bytes = expected[0].nbytes
    for budget in (2 * n_bytes, 0):
        features = VisionFeatures(frozen, tiny_encoder, layout.root, max_bytes=budget)
        for _ in range(2):
            _, found = features.get(names)
            assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
            assert features._in_memory.n_bytes <= budget


def test_filling_memory_alone_ends_where_it_is_full(layout, names, frozen, tiny_encoder, monkeypatch, caplog):
    n_bytes = VisionFeatures(frozen, tiny_encoder, layout.root).get(names[:1])[1][0].nbytes
    features, n_computed = VisionFeatures(frozen, tiny_encoder, layout.root, max_bytes=2 * n_bytes), []
    compute = features._compute
    monkeypatch.setattr(features, "_compute", lambda images: n_computed.append(len(images)) or compute(images))
    features.fill(names, batch_size=1)
    assert n_computed == [1] * 3, "the third does not fit"
    assert "not all vision features fit into memory" in caplog.text


def test_the_least_recently_used_features_make_room():
    cache = FeatureMemory(max_bytes=8)
    for name in "ab":
        cache.put(name, ((1, 1, 1), torch.zeros(1)))
    cache.get("a")
    cache.put("c", ((1, 1, 1), torch.zeros(1)))
    assert [name in cache for name in "abc"] == [True, False, True]
    cache.put("c", ((1, 1, 1), torch.zeros(1)))
    assert cache.n_bytes == 8


def test_a_view_does_not_keep_its_whole_batch_in_memory():
    cache = FeatureMemory(max_bytes=100)
    cache.put("a", ((1, 1, 1), torch.arange(10.0)[2:4]))
    _, features = cache.get("a")
    assert features.tolist() == [2.0, 3.0]
    assert features.untyped_storage().nbytes() == 8


@pytest.mark.parametrize("size", [(600, 600), (300, 900), (1200, 500), (40, 90), (28, 5600)])
def test_the_number_of_visual_tokens_is_known_from_the_header(tmp_path, frozen, tiny_encoder, size):
    Image.new("RGB", size).save(tmp_path / "a.png")
    features = VisionFeatures(frozen, tiny_encoder, tmp_path)
    (grid,), _ = features.get(["a.png"])
    assert features.n_visual_tokens("a.png") == tiny_encoder.n_visual_tokens(grid)


def test_a_broken_image_has_no_visual_tokens_until_it_is_decoded(tmp_path, frozen, tiny_encoder):
    (tmp_path / "a.png").write_bytes(b"no image")
    Image.new("RGB", (1, 300)).save(tmp_path / "thin.png")
    features = VisionFeatures(frozen, tiny_encoder, tmp_path)
    assert [features.n_visual_tokens(name) for name in ("a.png", "thin.png")] == [0, 0]
    with pytest.raises(StageError, match=r"a\.png: not_an_image"):
        features.load(["a.png"])

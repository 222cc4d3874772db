"""Shards: deterministic bytes, verified when they are read, and training from them equals training from files."""

import contextlib
import hashlib
import io
import json
import tarfile

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import export_dataset
import finetune
from skincare.dataset import chat
from skincare.dataset.shard_formats import FORMATS, unpack
from skincare.dataset.shards import INDEX, ShardedDataset
from skincare.errors import MissingInputError, StageError
from skincare.labels import skincare_labels
from skincare.paths import SPLITS, Layout
from skincare.tables import IMAGES
from skincare.training import loop
from tests.dataset_helpers import url as product_url
from tests.dataset_helpers import write_dataset_files
from tests.test_training import SIZES, assert_same_run, config

KINDS = tuple(FORMATS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    layout = Layout(tmp_path_factory.mktemp("made"))
    write_dataset_files(layout, SIZES)
    return layout


@pytest.fixture
def layout(made, tmp_path):
    """Return a copy of the layout that a test may change; it shares the images of the module."""
    found = Layout(tmp_path)
    (tmp_path / "clean_dataset").mkdir()
    for split in SPLITS:
        found.dataset(split).write_bytes(made.dataset(split).read_bytes())
    found.clean_images.symlink_to(made.clean_images)
    return found


def export(layout, kind="webdataset", **changes):
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    return export_dataset.run(export_dataset.Config(root=layout.root, format=kind, **changes), layout)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def images_of(dataset):
    return {one.image: dataset.bytes_of(one.image) for part in dataset.parts.values() for one in part}


@pytest.mark.parametrize("kind", KINDS)
def test_reading_an_export_returns_its_examples_and_images(layout, kind):
    summary = export(layout, kind)
    dataset = ShardedDataset(str(layout.export(kind)), layout.root / "cache", skincare_labels())
    assert dataset.parts == {split: chat.read_dataset(layout, split) for split in SPLITS}
    assert images_of(dataset) == {
        one.image: (layout.root / one.image).read_bytes() for part in dataset.parts.values() for one in part
    }
    assert summary.counts == SIZES


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_dataset_gives_the_same_bytes(layout, kind):
    export(layout, kind)
    first = contents(layout.export(kind))
    export(layout, kind, to=str(layout.root / "again"))
    assert contents(layout.root / "again") == first


def test_an_export_to_another_file_system_has_the_same_bytes(layout):
    export(layout)
    memory = fsspec.filesystem("memory")
    export(layout, to="memory://skincare/export")
    try:
        assert {path.rpartition("/")[2]: memory.cat_file(path) for path in memory.ls("skincare/export", False)} == (
            contents(layout.export("webdataset"))
        )
        dataset = ShardedDataset("memory://skincare/export", layout.root / "cache", skincare_labels())
        assert len(images_of(dataset)) == sum(SIZES.values())
    finally:
        memory.rm("skincare", recursive=True)


def test_an_interrupted_export_resumes_and_removes_old_shards(layout, monkeypatch):
    export(layout)
    folder = layout.export("webdataset")
    whole = contents(folder)
    torn, *_ = sorted(folder.glob("train-*.tar"))
    torn.write_bytes(torn.read_bytes()[:1000])
    (folder / INDEX).unlink()
    (folder / "train-00007-0123456789ab.tar").write_bytes(b"of an earlier export")
    (folder / "mine.txt").write_bytes(b"not a shard")
    export(layout)
    assert contents(folder) == whole | {"mine.txt": b"not a shard"}


def test_no_shard_exceeds_the_size_limit(made, monkeypatch, tmp_path):
    biggest = max(path.stat().st_size for path in made.clean_images.iterdir())
    monkeypatch.setattr(export_dataset, "FolderImages", _ThreeHundredKilobytes)
    summary = export(made, shard_mb=1, to=str(tmp_path / "small"))
    index = json.loads((tmp_path / "small" / INDEX).read_text())
    assert biggest < 300_000
    assert {shard["n_images"] for shard in index["shards"]} <= {1, 2, 3}
    assert sum(shard["n_images"] for shard in index["shards"]) == sum(SIZES.values())
    assert summary.results["n_shards"] > len(SPLITS)


class _ThreeHundredKilobytes:
    def __init__(self, root):
        self.root = root

    def bytes_of(self, image):
        return (self.root / image).read_bytes().ljust(300_000, b"\0")


def test_tar_members_have_webdataset_names(layout):
    export(layout)
    shard = next(layout.export("webdataset").glob("val-*.tar"))
    with tarfile.open(shard) as tar:
        names = tar.getnames()
        keys = [name.partition(".")[0] for name in names]
        element = json.load(tar.extractfile(names[2]))
    assert [name.partition(".")[2] for name in names[:3]] == ["jpg", "cls.txt", "json"]
    assert keys[0] == keys[1] == keys[2] == chat.read_dataset(layout, "val")[0].image_id
    assert element == json.loads(layout.dataset("val").read_text())[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_shard_with_another_size_or_hash_is_refused(layout, kind):
    export(layout, kind)
    shard = next(layout.export(kind).glob("test-*"))
    good = shard.read_bytes()
    image = chat.read_dataset(layout, "test")[0].image
    for bad, message in (
        (good[: len(good) // 2], "cut off"),
        (good[:-1] + bytes([good[-1] ^ 1]), "wrong SHA-256"),
        (b"", "0 bytes instead of"),
    ):
        shard.write_bytes(bad)
        with pytest.raises(StageError, match=message):
            ShardedDataset(str(layout.export(kind)), layout.root / "cache", skincare_labels()).bytes_of(image)
    shard.unlink()
    with pytest.raises(MissingInputError, match="export_dataset"):
        ShardedDataset(str(layout.export(kind)), layout.root / "cache", skincare_labels()).bytes_of(image)
    assert not (layout.root / "cache").exists()


def spoiled(layout, change):
    """Write a modified index."""
    folder = layout.export("webdataset")
    index = json.loads((folder / INDEX).read_text())
    change(index)
    (folder / INDEX).write_text(json.dumps(index))
    return ShardedDataset(str(folder), layout.root / "cache", skincare_labels())


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.update(format="pickle"),
        lambda index: index.update(version=2),
        lambda index: index.update(question="What is this?"),
        lambda index: index.update(shards=None),
        lambda index: index.update(images={}),
        lambda index: index["shards"][0].update(name="../../outside.tar"),
        lambda index: index["shards"][0].update(surprise=1),
        lambda index: index["images"]["train"][0].__setitem__(0, "../../etc/passwd_1_1.jpg"),
        lambda index: index["images"]["train"][0].__setitem__(0, "/etc/passwd"),
        lambda index: index["images"]["train"][0].__setitem__(1, "Lipstick"),
        lambda index: index["images"]["train"][0].__setitem__(2, "train-00099-0123456789ab.tar"),
        lambda index: index["images"]["train"][0].__setitem__(3, "../../x"),
        lambda index: index["images"]["train"][0].pop(),
        lambda index: index["images"].update(train=7),
    ],
)
def test_a_hostile_index_is_refused(layout, change):
    export(layout)
    with pytest.raises(StageError, match=r"index\.json"):
        spoiled(layout, change)


def test_names_in_a_shard_do_not_determine_where_files_are_written(layout):
    """Unpack a shard with hostile file names and a matching index."""
    export(layout)
    image = chat.read_dataset(layout, "train")[0]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("../../outside.jpg", "/tmp/outside.jpg", f"{image.image_id}.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 4
            tar.addfile(info, io.BytesIO(b"evil"))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    content = buffer.getvalue()

    def change(index):
        shard = index["shards"][0]
        (layout.export("webdataset") / shard["name"]).write_bytes(content)
        shard.update(sha256=hashlib.sha256(content).hexdigest(), n_bytes=len(content))

    dataset = spoiled(layout, change)
    with pytest.raises(StageError, match="its hash is not that of the index"):
        dataset.bytes_of(image.image)
    written = [path for path in layout.root.rglob("*") if path.is_file() and path.read_bytes() == b"evil"]
    assert [path.name for path in written] == [hashlib.sha256(b"evil").hexdigest()]
    assert not (layout.root.parent / "outside.jpg").exists()


def test_a_damaged_cached_image_is_fetched_again(layout):
    export(layout)
    first = images_of(ShardedDataset(str(layout.export("webdataset")), layout.root / "cache", skincare_labels()))
    for path in (layout.root / "cache").rglob("*"):
        if path.is_file():
            path.write_bytes(b"torn")
    assert (
        images_of(ShardedDataset(str(layout.export("webdataset")), layout.root / "cache", skincare_labels())) == first
    )


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), st.binary(max_size=2000))
def test_unpacking_any_bytes_returns_images_or_raises_value_error(kind, content):
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    with contextlib.suppress(ValueError):
        unpack(kind, content)


def test_unreachable_storage_is_a_clear_error(tmp_path):
    with pytest.raises(MissingInputError, match="export_dataset"):
        ShardedDataset(str(tmp_path / "nothing"), tmp_path / "cache", skincare_labels())
    with pytest.raises(StageError, match="nowhere"):
        ShardedDataset("nowhere://bucket/x", tmp_path / "cache", skincare_labels())


def test_the_card_has_counts_and_credits(layout):
    rows = []
    for one in chat.read_dataset(layout, "train")[:2]:
        row = IMAGES.row_type(product_url(one.product_id), one.image_id, one.product_id, one.image, "", 1, 1, 1, "",
                              licence="CC BY-SA 3.0", attribution="ada")  # fmt: skip
        rows.append(row)
    IMAGES.write(layout.images_table, rows)
    summary = export(layout)
    card = (layout.export("webdataset") / "dataset_card.md").read_text()
    n = sum(SIZES.values())
    assert "- CC BY-SA 3.0: 2 photos" in card
    assert f"- not recorded: {n - 2} photos" in card
    assert b",CC BY-SA 3.0,ada\n" in (layout.export("webdataset") / "images.csv").read_bytes()
    assert "- www.sample-shop.example: 2 photos" in card
    assert summary.results["split_fingerprint"] in card
    assert f"| Photos | {' | '.join(str(size) for size in SIZES.values())} |" in card


# -- training


@pytest.mark.slow
def test_training_from_shards_is_the_same_run_as_from_files(layout):
    export(layout)
    finetune.run(config(layout, run="files", max_epochs=2, cache_images=False), layout)
    layout.clean_images.unlink()
    shards = str(layout.export("webdataset"))
    finetune.run(config(layout, run="shards", max_epochs=2, cache_images=False, dataset=shards), layout)
    assert_same_run(layout, "files", "shards")


@pytest.mark.slow
def test_a_resumed_run_from_shards_has_the_same_weights(layout, monkeypatch):
    export(layout, shard_mb=1)
    shards = str(layout.export("webdataset"))
    finetune.run(config(layout, run="whole", max_epochs=2, dataset=shards), layout)
    original, n_taken = loop.Trainer._step, 0

    def step(self, examples):
        nonlocal n_taken
        if n_taken == 2:
            raise KeyboardInterrupt
        n_taken += 1
        return original(self, examples)

    monkeypatch.setattr(loop.Trainer, "_step", step)
    with pytest.raises(KeyboardInterrupt):
        finetune.run(config(layout, run="torn", max_epochs=2, dataset=shards), layout)
    monkeypatch.setattr(loop.Trainer, "_step", original)
    finetune.run(config(layout, run="torn", max_epochs=2, dataset=shards, resume=True), layout)
    assert_same_run(layout, "whole", "torn")

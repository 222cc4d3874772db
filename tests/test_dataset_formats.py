"""The dataset files and shards, loaded with `datasets`; skipped where it is not installed."""

import json

import pytest

import export_dataset
from skincare.dataset import chat
from skincare.labels import skincare_labels
from skincare.paths import SPLITS, Layout
from tests.dataset_helpers import write_dataset_files

QUESTION = skincare_labels().question

SIZES = {"train": 5, "val": 2, "test": 2}


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    found = Layout(tmp_path_factory.mktemp("formats"))
    write_dataset_files(found, SIZES)
    return found


@pytest.fixture
def datasets(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("datasets", reason="`datasets` is not installed")


def elements(layout, split="train"):
    return json.loads(layout.dataset(split).read_text(encoding="utf-8"))


def test_datasets_loads_the_files_unchanged(datasets, layout, tmp_path):
    files = {split: str(layout.dataset(split)) for split in SPLITS}
    loaded = datasets.load_dataset("json", data_files=files, cache_dir=str(tmp_path))
    assert {split: loaded[split].to_list() for split in SPLITS} == {split: elements(layout, split) for split in SPLITS}


@pytest.mark.parametrize(("kind", "ending", "image"), [("parquet", "parquet", "image"), ("webdataset", "tar", "jpg")])
def test_datasets_loads_shards_with_their_images(datasets, layout, tmp_path, kind, ending, image):
    export_dataset.run(export_dataset.Config(root=layout.root, format=kind, to=str(tmp_path / "out")), layout)
    files = {split: str(tmp_path / "out" / f"{split}-*.{ending}") for split in SPLITS}
    loaded = datasets.load_dataset(kind, data_files=files, cache_dir=str(tmp_path / "cache"))
    assert {split: loaded[split].num_rows for split in SPLITS} == SIZES
    assert loaded["train"][0][image].size == (224, 224)
    categories = loaded["train"]["category" if kind == "parquet" else "cls.txt"]
    assert list(categories) == [one.category for one in chat.read_dataset(layout, "train")]

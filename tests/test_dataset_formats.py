"""The dataset files and exports, read by the libraries that they are for; skipped where one is not installed."""

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


def test_trl_takes_the_examples_as_conversations_about_one_image(datasets, layout, tiny_encoder, monkeypatch):
    """Also by way of Dataset.from_list, which fills absent keys with None; TRL's trainers take them out again."""
    data_utils = pytest.importorskip("trl.data_utils", reason="trl is not installed")
    utils = pytest.importorskip("trl.trainer.utils", reason="trl is not installed")
    loaded = datasets.Dataset.from_list(elements(layout)).with_transform(utils.remove_none_values)
    monkeypatch.chdir(layout.root)
    for example in loaded:
        assert data_utils.is_conversational(example)
        messages = data_utils.prepare_multimodal_messages(example["messages"])
        assert messages == example["messages"]
        read = tiny_encoder.processor.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_tensors="pt"
        )
        assert read["image_grid_thw"].shape[0] == 1
        text = tiny_encoder.tokenizer.decode(read["input_ids"][0])
        assert QUESTION in text
        assert example["messages"][1]["content"][0]["text"] in text


def test_llamafactorys_form_is_as_its_documentation_asks(layout, tmp_path):
    """Its converter wants text, as many <image> marks as images, turns that alternate, and columns that exist."""
    export_dataset.run(export_dataset.Config(root=layout.root, format="llamafactory", to=str(tmp_path)), layout)
    described = json.loads((tmp_path / "dataset_info.json").read_text())
    assert set(described) == {"skincare_train", "skincare_val", "skincare_test"}
    for name, entry in described.items():
        read = json.loads((tmp_path / entry["file_name"]).read_text())
        assert len(read) == SIZES[name.removeprefix("skincare_")]
        tags, columns = entry["tags"], entry["columns"]
        for element, one in zip(read, chat.read_dataset(layout, name.removeprefix("skincare_")), strict=True):
            messages, images = element[columns["messages"]], element[columns["images"]]
            assert [message[tags["role_tag"]] for message in messages] == [tags["user_tag"], tags["assistant_tag"]]
            assert all(isinstance(message[tags["content_tag"]], str) for message in messages)
            assert messages[0][tags["content_tag"]].count("<image>") == len(images) == 1
            assert messages[1][tags["content_tag"]] == one.category
            assert images == [str(layout.root / one.image)]


@pytest.mark.parametrize(("kind", "ending", "image"), [("parquet", "parquet", "image"), ("webdataset", "tar", "jpg")])
def test_datasets_loads_shards_with_their_images(datasets, layout, tmp_path, kind, ending, image):
    export_dataset.run(export_dataset.Config(root=layout.root, format=kind, to=str(tmp_path / "out")), layout)
    files = {split: str(tmp_path / "out" / f"{split}-*.{ending}") for split in SPLITS}
    loaded = datasets.load_dataset(kind, data_files=files, cache_dir=str(tmp_path / "cache"))
    assert {split: loaded[split].num_rows for split in SPLITS} == SIZES
    assert loaded["train"][0][image].size == (224, 224)
    categories = loaded["train"]["category" if kind == "parquet" else "cls.txt"]
    assert list(categories) == [one.category for one in chat.read_dataset(layout, "train")]

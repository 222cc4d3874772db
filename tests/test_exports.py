"""Exports for other trainers: the inputs of the model there, and equal pixels in every loader."""

import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import export_dataset
from skincare import images
from skincare.dataset import chat
from skincare.dataset.chat import Example
from skincare.dataset.file_exports import FILE_FORMS, category_folders
from skincare.errors import StageError
from skincare.images import decode
from skincare.labels import skincare_labels
from skincare.paths import SPLITS, TINY_MODEL, Layout
from tests.dataset_helpers import pack, write_dataset_files
from tests.test_import_images import awkward_images

SIZES = {"train": 8, "val": 2, "test": 2}
FILE_KINDS = tuple(FILE_FORMS)


@pytest.fixture
def layout(tmp_path):
    found = Layout(tmp_path / "root")
    write_dataset_files(found, SIZES)
    return found


def export(layout, kind, **options):
    return export_dataset.run(export_dataset.Config(root=layout.root, format=kind, **options), layout)


def moved(layout, kind, tmp_path):
    """Export, move the export to another folder and remove everything else."""
    export(layout, kind)
    target = tmp_path / "moved"
    layout.export(kind).rename(target)
    shutil.rmtree(layout.root)
    return target


def examples(layout) -> dict[str, list[Example]]:
    return {split: chat.read_dataset(layout, split) for split in SPLITS}


@pytest.fixture
def datasets(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return pytest.importorskip("datasets", reason="`datasets` is not installed")


# -- inputs of the model in TRL


@pytest.fixture
def trl_trainer(layout, tmp_path, datasets, monkeypatch):
    """Run the code of the dataset card with the tiny model, up to the creation of the trainer."""
    pytest.importorskip("trl", reason="trl is not installed")
    monkeypatch.chdir(moved(layout, "trl", tmp_path))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    code = re.search(r"```\n(.*?)\n```", (tmp_path / "moved" / "dataset_card.md").read_text(), re.DOTALL)[1]
    code = code.replace('"Qwen/Qwen2-VL-2B-Instruct"', repr(str(TINY_MODEL))).replace("trainer.train()", "")
    options = 'report_to=[], use_cpu=True, bf16=False, save_strategy="no", max_steps=10, learning_rate=1e-3, '
    code = code.replace("max_length=None, ", f"max_length=None, {options} logging_steps=1, ")
    names: dict = {}
    exec(code, names)
    return names["trainer"]


def test_a_trl_batch_has_the_pixels_and_labels_only_on_the_answer(trl_trainer):
    batch = next(iter(trl_trainer.get_train_dataloader()))
    tokenizer = trl_trainer.processing_class.tokenizer
    n_tokens = int((batch["input_ids"] == trl_trainer.model.config.image_token_id).sum())
    assert batch["pixel_values"].shape[0] == 4 * n_tokens  # 2 x 2 patches a token
    assert batch["image_grid_thw"].shape[0] == len(batch["input_ids"]) == 4
    names = skincare_labels().names
    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        answer = tokenizer.decode(labels[labels != -100]).replace("<|im_end|>", "").strip()
        assert answer in names
        text = tokenizer.decode(ids)
        assert skincare_labels().question in text
        assert skincare_labels().system_prompt() in text


def test_the_loss_falls_over_ten_steps_of_trl(trl_trainer):
    batch = next(iter(trl_trainer.get_train_dataloader()))
    before = float(trl_trainer.model(**batch).loss)
    trl_trainer.train()
    losses = [entry["loss"] for entry in trl_trainer.state.log_history if "loss" in entry]
    assert len(losses) == 10
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])
    assert float(trl_trainer.model(**batch).loss) < before


# -- formats of trainers that are not installed, checked against their documentation


def read_conversations(folder, kind) -> dict[str, list[dict]]:
    """Return the elements by split as LLaMA-Factory or ms-swift reads them."""
    if kind == "ms-swift":
        return {
            split: [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]
            for split in SPLITS
        }
    described = json.loads((folder / "dataset_info.json").read_text())
    assert set(described) == {f"skincare_{split}" for split in SPLITS}
    for entry in described.values():
        assert entry["formatting"] == "sharegpt"
        assert entry["columns"] == {"messages": "messages", "images": "images"}
    return {split: json.loads((folder / described[f"skincare_{split}"]["file_name"]).read_text()) for split in SPLITS}


@pytest.mark.parametrize("kind", ["llamafactory", "ms-swift"])
def test_conversations_follow_the_documented_rules(layout, tmp_path, kind):
    """Contents are strings, there is one <image> tag per image, roles alternate, images are in the folder."""
    parts = examples(layout)
    folder = moved(layout, kind, tmp_path)
    for split, elements in read_conversations(folder, kind).items():
        for element, one in zip(elements, parts[split], strict=True):
            system, user, assistant = element["messages"]
            assert [message["role"] for message in element["messages"]] == ["system", "user", "assistant"]
            assert system["content"] == skincare_labels().system_prompt()
            assert user["content"] == f"<image>{skincare_labels().question}"
            assert assistant["content"] == one.category
            (name,) = element["images"]
            assert not name.startswith(("/", ".."))
            assert Image.open(folder / name).size == (224, 224)


def test_llamafactory_names_the_tags_that_its_converter_needs(layout):
    export(layout, "llamafactory")
    described = json.loads((layout.export("llamafactory") / "dataset_info.json").read_text())
    assert described["skincare_train"]["tags"] == {
        "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
        "system_tag": "system",
    }  # fmt: skip


def test_datasets_reads_an_imagefolder_with_its_categories(layout, tmp_path, datasets):
    parts = examples(layout)
    folder = moved(layout, "imagefolder", tmp_path)
    loaded = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))
    for name, split in (("train", "train"), ("validation", "val"), ("test", "test")):
        names = loaded[name].features["label"].names
        found = sorted(names[label] for label in loaded[name]["label"])
        assert found == sorted(one.category for one in parts[split])
    assert (folder / "categories.txt").read_text().splitlines() == list(skincare_labels().names)


@pytest.mark.parametrize("name", ["../up", "/etc", "a\\b", ".", "..", "a/../../b", "\U0001f9f4" * 80])
def test_category_folders_are_inside_the_imagefolder(name):
    folder = category_folders((name,))[name]
    assert len(folder.encode()) < 255
    assert folder
    assert "/" not in folder
    assert "\\" not in folder
    assert folder not in (".", "..")


def test_every_category_has_its_own_folder_also_without_case():
    names = ("a-b", "a/b", "A\\B", "a-b (2)", ".hidden", "hidden")
    folders = category_folders(names)
    assert tuple(folders) == names
    assert folders["a-b"] == "a-b"
    assert len({folder.casefold() for folder in folders.values()}) == len(names)


# -- images


def exported_images(folder, kind) -> list[bytes]:
    """Return the exported images in the order of the dataset."""
    if kind in FILE_KINDS:
        return [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))]
    from skincare.dataset.shards import ShardedDataset

    dataset = ShardedDataset(str(folder), folder.parent / "image-cache", skincare_labels())
    return [dataset.bytes_of(one.image) for split in SPLITS for one in dataset.parts[split]]


@pytest.mark.parametrize("kind", ["webdataset", *FILE_KINDS])
def test_every_loader_gives_the_pixels_of_the_pipelines_decoder(layout, kind):
    """Datasets of other origins may have PNG, WebP or rotated files with the suffix .jpg."""
    contents = dict(zip(sorted(layout.clean_images.iterdir()), awkward_images().values(), strict=False))
    for path, content in contents.items():
        path.write_bytes(content)
    expected = [np.asarray(decode(path.read_bytes())) for path in sorted(layout.clean_images.iterdir())]
    export(layout, kind)
    exported = exported_images(layout.export(kind), kind)
    assert len(exported) == sum(SIZES.values())
    shown = [np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in exported]
    for pixels in expected:
        same_size = [one for one in shown if one.shape == pixels.shape]
        assert min(np.abs(one.astype(int) - pixels).mean() for one in same_size) < 1.5
    for content in exported:
        assert images.is_plain_jpeg(content)


def test_a_plain_jpeg_keeps_its_bytes(layout):
    export(layout, "ms-swift")
    for one in examples(layout)["train"]:
        name = one.image.rpartition("/")[2]
        assert (layout.export("ms-swift") / "images" / name).read_bytes() == (layout.root / one.image).read_bytes()


def test_an_undecodable_image_stops_the_export_with_its_name(layout):
    path = sorted(layout.clean_images.iterdir())[0]
    path.write_bytes(b"no image")
    with pytest.raises(StageError, match=path.name):
        export(layout, "trl")


# -- repeated exports


@pytest.mark.parametrize("kind", FILE_KINDS)
def test_an_export_replaces_an_earlier_one_and_keeps_other_files(layout, kind):
    export(layout, kind)
    folder = layout.export(kind)
    first = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    old = next(folder.rglob("*.jpg")).with_name("gone_99999999_1.jpg")
    old.write_bytes(images.encode_jpeg(pack(99)))
    (old.parent / "mine.jpg").write_bytes(b"not ours")
    export(layout, kind)
    second = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert second.pop((old.parent / "mine.jpg").relative_to(folder)) == b"not ours"
    assert second == first


@pytest.mark.parametrize("kind", FILE_KINDS)
def test_a_folder_with_other_files_is_not_written_to(layout, kind):
    with pytest.raises(StageError, match="no earlier export"):
        export(layout, kind, to=str(layout.clean_images.parent))

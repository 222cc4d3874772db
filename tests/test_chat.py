"""The dataset files: reading returns what was written; malformed files and paths outside the folder are refused."""

import json

import pytest

from skincare.dataset import chat
from skincare.errors import MissingInputError, StageError
from skincare.labels import skincare_labels
from skincare.paths import Layout

EXAMPLES = [
    chat.example("clean_dataset/images/a-balm_12_10.jpg", "Balm", skincare_labels()),
    chat.example("clean_dataset/images/dr.-x_balm_12_2.jpg", "Balm", skincare_labels()),
    chat.example("clean_dataset/images/a-mask_7_1.jpg", "Mask", skincare_labels()),
]


def test_examples_round_trip_in_natural_order(tmp_path):
    chat.write_dataset(Layout(tmp_path), "val", EXAMPLES)
    read = chat.read_dataset(Layout(tmp_path), "val")
    assert [one.image_id for one in read] == ["7_1", "12_2", "12_10"]
    assert set(read) == set(EXAMPLES)
    assert read[1].product_id == "12"


def test_an_element_has_the_documented_messages(tmp_path):
    chat.write_dataset(Layout(tmp_path), "val", EXAMPLES[:1])
    assert json.loads((tmp_path / "clean_dataset" / "val.json").read_text()) == [
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "image": "clean_dataset/images/a-balm_12_10.jpg"},
                        {"type": "text", "text": "What type of skincare product is shown in this image?"},
                    ],
                },
                {"role": "assistant", "content": [{"type": "text", "text": "Balm"}]},
            ]
        }
    ]


@pytest.mark.parametrize(
    ("image", "category"),
    [
        ("../outside/a_1_1.jpg", "Balm"),
        ("clean_dataset/../../a_1_1.jpg", "Balm"),
        ("/etc/a_1_1.jpg", "Balm"),
        ("clean_dataset\\..\\a_1_1.jpg", "Balm"),
        ("clean_dataset/images/a.jpg", "Balm"),
        ("clean_dataset/images/a_1_1.png", "Balm"),
        ("clean_dataset/images/a_1_1.jpg", "Unknown"),
        ("clean_dataset/images/a_1_1.jpg", "balm"),
    ],
)
def test_a_path_outside_or_an_unknown_category_is_refused(image, category):
    with pytest.raises(ValueError, match="is no"):
        chat.example(image, category, skincare_labels())


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "[1]", "[{}]", '[{"messages": []}]', '[{"messages": [{"content": []}, {"content": []}]}]', "[nul"],
)
def test_a_malformed_file_is_an_error_that_names_it_and_the_remedy(tmp_path, content):
    path = Layout(tmp_path).dataset("train")
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(StageError, match=r"train\.json(.|\n)*build_dataset\.py"):
        chat.read_dataset(Layout(tmp_path), "train")


def test_a_dataset_with_another_question_is_refused(tmp_path):
    layout = Layout(tmp_path)
    chat.write_dataset(layout, "train", EXAMPLES)
    path = layout.dataset("train")
    path.write_text(path.read_text().replace("What type", "Which kind"))
    with pytest.raises(StageError, match="element 1: the question is"):
        chat.read_dataset(layout, "train")


def test_a_missing_file_is_a_missing_input_error(tmp_path):
    with pytest.raises(MissingInputError, match=r"build_dataset\.py"):
        chat.read_dataset(Layout(tmp_path), "test")

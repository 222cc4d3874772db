"""Datasets of structured answers: the answer is the product as JSON, and the dataset says so to every reader."""

import dataclasses
import json

import pytest

import build_dataset
import export_dataset
import product_facts
from skincare.dataset import chat
from skincare.dataset.dataset_source import read_parts
from skincare.errors import MissingInputError, StageError
from skincare.labels import skincare_labels
from skincare.paths import SPLITS, Layout
from skincare.product.schema import FIELDS, Product
from skincare.prompts import HINT_LABELS, PRODUCT_QUESTION, labels_for, target_of
from tests.structured_examples import LABELS, write_structured_dataset
from tests.test_build_dataset import build, small_shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    layout = Layout(tmp_path_factory.mktemp("shop"))
    small_shop(layout, 12, names={f"{10_000_000 + i}": f"Noor Balm Nr {i} {30 + i}ml" for i in range(12)})
    return layout


def answers(part):
    return [one["messages"][1]["content"][0]["text"] for one in part]


def test_answers_are_products_and_the_split_and_the_first_target_stay(shop):
    before, _ = build(shop)
    bytes_before = {split: shop.dataset(split).read_bytes() for split in SPLITS}
    with pytest.raises(MissingInputError, match=r"product_facts\.py"):
        build(shop, target="product")
    product_facts.run(product_facts.Config(root=shop.root), shop)
    parts, summary = build(shop, target="product")
    for split, part in parts.items():
        assert [one["messages"][0]["content"][0] for one in part] == [
            one["messages"][0]["content"][0] for one in before[split]
        ]
        for text, category in zip(answers(part), answers(before[split]), strict=True):
            product = Product.model_validate_json(text)
            assert (product.to_json(), tuple(json.loads(text))) == (text, FIELDS)
            assert (product.category, product.country, product.origin) == (category, None, None)
            assert product.size.endswith(" ml")
    assert summary.results["target"] == "product"
    assert {one["messages"][0]["content"][1]["text"] for part in parts.values() for one in part} == {PRODUCT_QUESTION}
    assert "target" not in build(shop)[1].results
    assert {split: shop.dataset(split).read_bytes() for split in SPLITS} == bytes_before


def test_fields_that_are_not_chosen_are_null(shop):
    product_facts.run(product_facts.Config(root=shop.root), shop)
    parts, _ = build(shop, target="product", fields=("category", "size"))
    for text in answers(parts["train"]):
        assert {name for name, value in json.loads(text).items() if value is not None} == {"category", "size"}
    for fields, message in ((("category", "colour"), "colour"), (("size",), "category")):
        with pytest.raises(StageError, match=message):
            build(shop, target="product", fields=fields)
    with pytest.raises(StageError, match="--target product"):
        build(shop, fields=("category",))


def test_facts_of_another_catalogue_are_refused(shop):
    product_facts.run(product_facts.Config(root=shop.root), shop)
    text = shop.product_facts.read_text()
    shop.product_facts.write_text(text.replace('"category": "Moisturiser"', '"category": "Mask"'))
    with pytest.raises(StageError, match=r"another category, such as 10000000\n.*product_facts\.py"):
        build(shop, target="product")
    shop.product_facts.write_text(text)


def test_what_is_read_is_what_was_written_and_names_its_target(tmp_path):
    layout = Layout(tmp_path)
    parts = write_structured_dataset(layout, {"train": 6, "val": 3, "test": 3})
    found = {split: chat.read_dataset(layout, split) for split in SPLITS}
    assert found == {split: sorted(part, key=lambda one: one.image_id) for split, part in parts.items()}
    assert chat.target_of_examples(found["train"]) == target_of(LABELS) == "product"
    assert target_of(skincare_labels()) == "category"
    category = chat.example(found["train"][0].image, "Peel", skincare_labels())
    with pytest.raises(StageError, match="mixes"):
        chat.target_of_examples([*found["train"], category])


@pytest.mark.parametrize(
    "answer",
    ["Peel", "{}", Product(brand="Noor").to_json(), Product(category="Hat").to_json(),
     Product(category="Peel").to_json().replace(",", ", "), '{"category":"Peel"}', "[" * 9999],
    ids=["label", "empty", "no category", "no label", "blanks", "fields left out", "deep"],
)  # fmt: skip
def test_other_answers_are_refused_with_their_place(tmp_path, answer):
    layout = Layout(tmp_path)
    write_structured_dataset(layout, {"train": 2})
    elements = json.loads(layout.dataset("train").read_text())
    elements[1]["messages"][1]["content"][0]["text"] = answer
    layout.dataset("train").write_text(json.dumps(elements))
    with pytest.raises(StageError, match=r"train\.json, element 2: "):
        chat.read_dataset(layout, "train")


def test_question_and_answer_must_fit(tmp_path):
    image = "clean_dataset/images/pack_20000000_1.jpg"
    for labels, product in ((LABELS, ""), (skincare_labels(), Product(category="Peel").to_json())):
        with pytest.raises(ValueError, match="do not fit"):
            chat.example(image, "Peel", labels, product=product)
    with pytest.raises(ValueError, match="not of the category"):
        chat.example(image, "Peel", LABELS, product=Product(category="Oil").to_json())


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_shards_keep_structured_answers_with_and_without_hints(tmp_path, kind):
    layout = Layout(tmp_path)
    parts = write_structured_dataset(layout, {"train": 4, "val": 2, "test": 2})
    hinted = dataclasses.replace(parts["train"][0], hint=f"{HINT_LABELS['text']}NOOR")
    chat.write_dataset(layout, "train", [hinted, *parts["train"][1:]])
    export_dataset.run(export_dataset.Config(root=layout.root, format=kind), layout)
    found = read_parts(str(layout.export(kind)), layout)
    assert found == {split: chat.read_dataset(layout, split) for split in SPLITS}


def test_other_trainers_get_the_structured_answer_with_its_instruction(tmp_path):
    layout = Layout(tmp_path)
    parts = write_structured_dataset(layout, {"train": 2, "val": 1, "test": 1})
    export_dataset.run(export_dataset.Config(root=layout.root, format="ms-swift"), layout)
    line = json.loads((layout.export("ms-swift") / "train.jsonl").read_text().splitlines()[0])
    system, user, assistant = (one["content"] for one in line["messages"])
    assert (system, user) == (LABELS.system_prompt(), f"<image>{PRODUCT_QUESTION}")
    assert assistant == parts["train"][0].product


def test_the_instruction_names_every_field_and_every_label():
    text = labels_for("product", skincare_labels()).system_prompt()
    assert all(name in text for name in (*FIELDS, *skincare_labels().names))
    assert labels_for("category", skincare_labels()) is skincare_labels()


def test_the_target_is_an_option_of_the_stage():
    assert build_dataset.Config().target == "category"
    assert build_dataset.Config().fields == FIELDS

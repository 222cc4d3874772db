"""Both formats of the report hold the same facts, also of imported images and of the embedded model."""

import html
import json
import re

import pytest

from skincare.evaluation import confidence
from skincare.files import write_json
from skincare.labels import skincare_labels
from tests.helpers import prediction
from tests.test_model_card import EXPORT
from tests.test_report import CATEGORIES, layout, summary, written  # noqa: F401 - the fixture


@pytest.mark.parametrize("is_sample", [False, True])
def test_notice_names_the_embedded_model_and_rendered_images_only_where_they_are_used(layout, is_sample):  # noqa: F811
    assert "says nothing about" not in written(layout)[0]
    config = {"model": "models/tiny-qwen2-vl", "min_tokens": 36, "max_tokens": 36}
    before = json.loads(layout.summary("zero_shot").read_text())
    summary(layout, "zero_shot", results=before["results"], config=config)
    if is_sample:
        write_json(layout.shop_truth, {"seed": 0})
    for text in written(layout):
        assert "says nothing about" in text
        assert ("embedded tiny model on rendered products" in text) == is_sample
        assert ("rendered products, on other images" in text) != is_sample
        assert "every stage works" in text
    layout.summary("finetune").unlink()
    for text in written(layout):
        assert "every stage works" not in text
        assert "says nothing about" in text


def test_both_formats_show_an_import_with_its_refused_files(layout):  # noqa: F811
    layout.summary("scrape").unlink()
    write_json(layout.shop_truth, {"seed": 0})
    results = {"form": "a folder per category", "grouped_by": "name", "n_products": 31, "unknown_categories": {},
               "images_and_products": {"Oil": [41, 29], "Peel": [3, 2]}}  # fmt: skip
    summary(layout, "import_images", counts={"imported": 44, "broken_image": 5, "unknown_category": 6}, results=results)
    page, markdown = written(layout)
    for text in (page, markdown):
        assert "44 of 55 files or rows of a folder per category imported as 31 products, grouped by name" in text
        assert "41 (29)" in text
        assert "scrape.py" not in text
        assert "rendered products" not in text, "imported images are not those of the sample shop"
    assert "Not imported: broken image 5, unknown category 6." in markdown
    assert '<th scope="row">broken image</th><td class="n">5</td>' in page


NUMBER = re.compile(r"(?<![\w.])[+-]?\d[\d,]*(?:\.\d+)?%?(?!\w|\.\d)")


def numbers(text):
    return set(NUMBER.findall(text))


def test_both_formats_hold_the_same_numbers(layout):  # noqa: F811
    """All but those of the gallery and the matrices, which Markdown shows as a table of errors and as plots."""
    path = layout.summary("finetune")
    saved = json.loads(path.read_text())
    write_json(path, saved | {"results": saved["results"] | {"export": EXPORT}})
    ranked = [
        prediction(f"{i}_1", CATEGORIES[i % 14], CATEGORIES[i % 14],
                   log_probabilities=tuple(-0.1 if j == i * i % 14 else -4.0 - j / 10 for j in range(14)))
        for i in range(60)
    ]  # fmt: skip
    log = layout.finetune_log("sample")
    write_json(log / "confidence.json", confidence.summarise(ranked, ranked[:50], (0.1, 0.5), skincare_labels()))
    page, markdown = written(layout)
    page = re.sub(r"<style>.*?</style>|<script>.*?</script>", "", page, flags=re.DOTALL)
    page = re.sub(r'<section id="(?:gallery|matrices)">.*?</section>', "", page, flags=re.DOTALL)
    text = html.unescape(re.sub(r'<th scope="col" class="axis">.*?</th>|<[^>]+>', " ", page, flags=re.DOTALL))
    assert numbers(text) - numbers(markdown) == set()

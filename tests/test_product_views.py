"""The report's section on structured answers shows what score_products.py wrote, and is absent without it."""

import json

import pytest

from skincare.errors import StageError
from skincare.files import write_json
from skincare.inference.structured_decoder import MAX_ANSWER_TOKENS
from skincare.reporting import product_views, report_data
from skincare.tables import HISTORY, PRODUCT_HISTORY, ProductHistoryRow
from tests.test_report import HOSTILE, Page, layout, summary, written  # noqa: F401 - the fixture

CALIBRATION = {"field": "size", "n": 37, "mean_confidence": 0.537, "accuracy": 0.211, "ece": 0.326, "bins": None}
WANTED = {"wanted_risk": 0.1, "threshold": 0.8125, "test_coverage": 0.433, "test_risk": 0.071}
FIELD_CONFIDENCE = {"version": 1, "fields": {
    "size": {"n_val": 88, "ece_before": 0.329, "ece": 0.139, "wanted": [WANTED]},
    "brand": {"n_val": 88, "ece_before": 0.2, "ece": 0.1, "wanted": [{**WANTED, "threshold": None, "test_risk": None}]},
    "origin": {"n_val": 0, "ece_before": None, "ece": None, "wanted": []},
}}  # fmt: skip


def test_section_on_structured_answers_shows_the_worst_fields_first_in_both_formats(layout):  # noqa: F811
    for text in written(layout):
        assert "Structured answers" not in text
    field = {"n_known": 40, "n_unscored": 3, "correct": 10, "omitted": 19, "substituted": 17, "invented": 23,
             "precision": 0.5, "recall": 0.25, "f1": 0.31, "f1_low": 0.21, "f1_high": 0.43}  # fmt: skip
    undefined = {"precision": None, "recall": 0.0, "f1": 0.07, "f1_low": None, "f1_high": None}
    system = {"n": 42, "n_products": 21, "json_valid": 0.96, "schema_valid": 0.91, "statuses": {}, "document": 0.185,
              "document_low": 0.167, "document_high": 0.202}  # fmt: skip
    fields = [{"field": "brand", **field}, {"field": "size", **field, **undefined},
              {"field": "origin", **field, "n_known": 0}]  # fmt: skip
    paired = {"n_known": 40, "difference": 0.127, "low": -0.011, "high": 0.243, "products_p": 0.062}
    summary(layout, "score_products", counts={"images": 42}, results={
        "split": "test", "reader": {**system, "fields": fields, "calibration": [CALIBRATION]},
        HOSTILE: {**system, "fields": fields}, "systems": ["reader", HOSTILE],
        f"{HOSTILE}_minus_reader": {"brand": paired, "document": {**paired, "difference": 0.0625}},
    })  # fmt: skip
    coverage = {"size": {"name": 191, HOSTILE: 11}}
    summary(layout, "product_facts", counts={"products": 202}, results={"coverage": coverage})
    write_json(layout.finetune_log("sample") / "field_confidence.json", FIELD_CONFIDENCE)
    layout.product_answers("reader").parent.mkdir(parents=True)
    line = {"image_id": "0_1", "status": "valid", "product": {"brand": HOSTILE, "size": None, "origin": None},
            "truth": {"brand": "Weleda", "size": "50 ml", "origin": None}}  # fmt: skip
    layout.product_answers("reader").write_text(f"{json.dumps(line)}\n")
    page, markdown = written(layout)
    assert Page(page).tags.count("script") == 1
    for text in (page, markdown):
        section = text[text.rindex("A product as JSON fields") :]
        for number in ("0.185 (0.167 to 0.202)", "96.0%", "91.0%", "+12.7 (-1.1 to +24.3)", "0.062", "19", "17", "23",
                       "+0.062 (-0.011 to +0.243)", "53.7%", "21.1%", "32.6%", "0.812", "43.3%", "7.1%", "13.9%",
                       "40 of 42", "name 191"):  # fmt: skip
            assert number in section
        assert section.index("size") < section.index("brand")
        assert section.index("Unverified") < section.index("ECE calibrated") < section.index("Products by source")
        assert "origin" not in section[: section.index("Products by source")]
    assert "(21.0% to 43.0%)" in markdown
    assert "| size | Rules on the text of the pack | 40 | – | 0.0% | 7.0% | 19 | 17 | 23 | 3 |" in markdown
    assert "inventions cannot be counted" in markdown
    assert "inventions cannot be counted" in page


def test_inventions_are_shown_as_a_share_of_the_images_without_a_value(layout):  # noqa: F811
    field = {"n_known": 40, "n_absent": 25, "n_unscored": 0, "omitted": 0, "substituted": 0, "invented": 3, "f1": 0.9,
             "precision": 0.9, "recall": 0.9, "f1_low": 0.8, "f1_high": 0.95, "invention_rate": 0.12,
             "invention_low": 0.031, "invention_high": 0.29}  # fmt: skip
    never = {"n_known": 0, "precision": 0.0, "recall": None, "f1": 0.0, "f1_low": None, "f1_high": None}
    system = {"n": 65, "n_products": 21, "json_valid": 1, "schema_valid": 1, "document": 0.5, "document_low": 0.4,
              "document_high": 0.6,
              "fields": [{"field": "origin", **field, **never}, {"field": "size", **field}]}  # fmt: skip
    summary(layout, "score_products", counts={}, results={"split": "test", "systems": ["reader"], "reader": system})
    facts = {"coverage": {"size": {"name": 191}}, "absent": {"size": {HOSTILE: 72}}}
    summary(layout, "product_facts", counts={"products": 202}, results=facts)
    layout.product_answers("reader").parent.mkdir(parents=True)
    line = {"image_id": "0_1", "status": "valid", "product": {"brand": "Noor", "origin": "France"},
            "truth": {"brand": "Noor", "origin": None}, "absent": ["origin"]}  # fmt: skip
    layout.product_answers("reader").write_text(f"{json.dumps(line)}\n")
    page, markdown = written(layout)
    assert Page(page).tags.count("script") == 1
    assert "| 3 of 25 (12.0%, 3.1% to 29.0%) | 0 |\n" in markdown
    assert "| size | 40 of 65 | name 191 | 25 of 65 |" in markdown
    assert "| Field | Images | Products by source | Images without a value | Products by source |\n|---|" in markdown
    assert '3 of 25 <span class="soft">(12.0%, 3.1% to 29.0%)</span>' in page
    for text in (page, markdown):
        section = text[text.rindex("A product as JSON fields") :]
        assert section.index("size") < section.index("origin"), "a field without values comes last"
        assert "cannot be counted" not in section
    values = product_views.view(report_data.gather(layout))["examples"][0].values
    assert ("origin", "none", "France") in values


def test_fields_fused_by_fuse_are_not_reported_as_not_run(layout):  # noqa: F811
    (layout.finetune_log("sample") / "fusion.json").unlink(missing_ok=True)
    assert all("python src/fuse.py" in text for text in written(layout))
    system = {"n": 4, "n_products": 2, "json_valid": 1.0, "schema_valid": 1.0, "statuses": {}, "document": 0.5,
              "document_low": 0.4, "document_high": 0.6, "fields": []}  # fmt: skip
    summary(layout, "score_products", counts={}, results={"split": "test", "systems": ["fused"], "fused": system})
    for text in written(layout):
        assert "Fused by field" in text
        assert "python src/fuse.py" not in text


def test_examples_show_true_and_predicted_values_with_their_image(layout):  # noqa: F811
    system = {"n": 1, "n_products": 1, "json_valid": 1.0, "schema_valid": 1.0, "document": 0.5, "document_low": 0.4,
              "document_high": 0.6, "fields": []}  # fmt: skip
    summary(layout, "score_products", results={"split": "test", "reader": system})
    layout.product_answers("reader").parent.mkdir(parents=True)
    truth = {"brand": "Weleda", "ingredients": ["aqua", "parfum"], "origin": None, "details": "x" * 500}
    lines = [
        {"image_id": f"{i}_{n}", "status": "repaired", "product": {**dict.fromkeys(truth), "brand": "Veleda"},
         "truth": truth}
        for i in range(9) for n in (1, 2)
    ]  # fmt: skip
    layout.product_answers("reader").write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    found = product_views.view(report_data.gather(layout))["examples"]
    assert [one.image_id for one in found] == [f"{i}_1" for i in range(6)], "one image per product"
    assert found[0].thumbnail.startswith("data:image/jpeg")
    assert found[0].values[:2] == [("brand", "Weleda", "Veleda"), ("ingredients", "aqua, parfum", "")]
    assert [value.field for value in found[0].values] == ["brand", "ingredients", "details"]
    scores = {"field": "brand", "n_known": 9, "n_unscored": 0, "precision": 1, "recall": 1, "f1": 1, "f1_low": 1,
              "f1_high": 1, "omitted": 0, "substituted": 0, "invented": 0}  # fmt: skip
    summary(layout, "score_products", results={"split": "test", "reader": {**system, "fields": [scores]}})
    first = product_views.view(report_data.gather(layout))["examples"][0]
    assert [value.field for value in first.values] == ["ingredients", "details", "brand"], "the worst first"
    assert len(found[0].values[2].truth) < 170
    written(layout)
    layout.product_answers("reader").write_text("{")
    with pytest.raises(StageError, match=r"reader\.jsonl.*score_products"):
        report_data.gather(layout)


def test_report_on_structured_answers_names_what_selected_the_epoch(layout):  # noqa: F811
    log = layout.finetune_log("sample")
    predicted = [json.loads(line) | {"target": "product"} for line in (log / "test_predictions.jsonl").open()]
    (log / "test_predictions.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in predicted))
    rows = [ProductHistoryRow(**vars(one), val_document_anls=0.4371) for one in HISTORY.read(log / "history.csv")]
    PRODUCT_HISTORY.write(log / "history.csv", rows)
    (log / "confidence.json").unlink(missing_ok=True)
    for text in written(layout):
        for part in ("0.437", "selected on val by the ANLS* of whole answers",
                     "have the right category in their structured answer", f"at most {MAX_ANSWER_TOKENS} new tokens",
                     "Structured answers have no probabilities of labels"):  # fmt: skip
            assert part in text

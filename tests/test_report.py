"""The report shows the files of the stages, is self-contained, and escapes hostile text."""

import dataclasses
import html.parser
import json
import re

import pytest

import report
from skincare import stage
from skincare.errors import MissingInputError, StageError
from skincare.evaluation import comparison, metrics
from skincare.files import write_json
from skincare.inference import predictions
from skincare.labels import skincare_labels
from skincare.paths import Layout
from skincare.reporting import report_data, report_views
from skincare.runlog import environment
from skincare.tables import HISTORY, HistoryRow
from tests.dataset_helpers import jpeg, pack
from tests.helpers import prediction
from tests.test_model_card import EXPORT

CATEGORIES = skincare_labels().names

HOSTILE = '</dd></script><script>alert(1)</script><img src=x onerror="alert(2)"> | `code` & "quotes"'


def summary(layout, name, headline="done", counts=None, results=None, config=None):
    write_json(
        layout.summary(name),
        {"stage": name, "headline": headline, "counts": counts or {}, "results": results or {}, "config": config or {},
         "started": "2026-01-02T03:04:05+00:00", "seconds": 61.0, **environment()},
    )  # fmt: skip


@pytest.fixture
def layout(tmp_path):
    """Return the output files of the stages for a model with hostile outputs."""
    found = Layout(tmp_path)
    before = [prediction(f"{i // 2}_{i % 2 + 1}", CATEGORIES[i % 14], None, text=HOSTILE) for i in range(42)]
    after = [
        prediction(one.image_id, one.truth, one.truth if i % 3 else CATEGORIES[(i + 1) % 14])
        for i, one in enumerate(before)
    ]
    found.clean_images.mkdir(parents=True)
    for i, one in enumerate(before[:5]):
        (found.root / one.file).write_bytes(jpeg(pack(i, 320)))
    log = found.finetune_log("sample")
    for folder, name, scores_name, answers in (
        (found.zero_shot, "predictions.jsonl", "metrics.json", before),
        (log, "test_predictions.jsonl", "test_metrics.json", after),
    ):
        predictions.write_jsonl(folder / name, answers)
        write_json(folder / scores_name, metrics.to_json(metrics.score(answers, skincare_labels())))
    write_json(log / "comparison.json", metrics.to_json(comparison.compare(before, after)))
    HISTORY.write(log / "history.csv", [
        HistoryRow(e, e, 1e-3, 1.0 if e else None, 0.5 if e else None, 2.0, *[0.5] * 5, 1.0, 3.0) for e in range(3)
    ])  # fmt: skip
    tokens = {"min_tokens": 36, "max_tokens": 36}
    summary(found, "zero_shot", results={"model": "some/model", "n_parameters": 9, "prompt": f"<|im_start|>{HOSTILE}"},
            config={"model": "some/model", **tokens})  # fmt: skip
    summary(
        found, "finetune",
        results={"run": "sample", "model": "some/model", "decoder": "generate", "recipe": "sample", "n_parameters": 9,
                 "n_trainable": 3, "token_side_px": 32,
                 "trainable_modules": ["model.visual.merger"], "best_epoch": 2, "n_epochs": 2,
                 "stop_reason": "patience",
                 "recipe_settings": {"learning_rate": 1e-3, "trainable": {"n_vision_blocks": 1, "heads": []}}},
        config={"model": "some/model", **tokens},
    )  # fmt: skip
    summary(
        found, "scrape", headline=HOSTILE, counts={"scraped": 19, "failed": 2},
        results={"n_products": 21, "n_images": 42, "coverage": 0.905, "failures_by_reason": {"http_404": 2},
                 "image_failures_by_reason": {}},
    )  # fmt: skip
    return found


def test_an_image_has_its_own_probabilities_whatever_the_order_of_the_ids(layout):
    """The file of the run is in natural order ("2_1" before "10_1"), arrays of probabilities in that of texts."""
    log = layout.finetune_log("sample")
    answers = predictions.read_jsonl(log / "test_predictions.jsonl", skincare_labels())
    ranked = [
        dataclasses.replace(one, log_probabilities=tuple(-0.1 if name == one.category else -4.0 for name in CATEGORIES))
        for one in answers
    ]
    predictions.write_jsonl(log / "test_ranked.jsonl", ranked)
    images = report_data.gather(layout).images
    assert [one.likeliest for one in images] == [one.last.category for one in images]


def explained(image_id):
    """Return the results of explain.py for one image."""
    row = {"iou": 0.562, "iou_low": 0.51, "iou_high": 0.62, "correlation": 0.394, "correlation_low": 0.3,
           "correlation_high": 0.5}  # fmt: skip
    control = {"other": 0.219, "excess": 0.343, "excess_low": 0.28, "excess_high": 0.41}
    alone = dict.fromkeys(control)
    return {
        "run": "sample", "method": "gradient", "overlap": {},
        "attention": {
            "n": 81, "n_products": 27, "chance": 0.114,
            "image_share": {"late": {"share": 0.412, "share_low": 0.35, "share_high": 0.48}},
            "agreement": {"late": row | control, "rollout": row | alone},
        },
        "images": [{"image_id": image_id, "truth": "Mask", "rival": "Balm", "contrast": 1.25}],
    }  # fmt: skip


def test_both_formats_show_attention_next_to_saliency(layout):
    summary(layout, "explain", results=explained("1_1"))
    for path in (layout.overlay("1_1"), layout.attention_panels("1_1")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(pack(0, 60)))
    report.run(report.Config(root=layout.root), layout)
    page, text = layout.report_html.read_text("utf-8"), layout.report_markdown.read_text("utf-8")
    late, rollout = (re.search(rf"\| {name} \|.*", text).group() for name in ("Late layers", "Rollout"))
    assert (
        late
        == "| Late layers | 56.2% (51.0% to 62.0%) | 21.9% | +34.3 (+28.0 to +41.0) | +0.39 (+0.30 to +0.50) | 41.2% |"
    )
    assert rollout == "| Rollout | 56.2% (51.0% to 62.0%) |  |  | +0.39 (+0.30 to +0.50) |  |"
    assert "plots/explain/1_1_attention.jpg" in text
    assert 'alt="Attention to image 1_1 in green' in page
    for value in ("56.2% (51.0% to 62.0%)", "+34.3 (+28.0 to +41.0)", "+0.39 (+0.30 to +0.50)", "41.2%", "21.9%"):
        assert value in page
    for words in ("Attention is not attribution", "IoU of random tokens: 11.4%"):
        assert words in page
        assert words in text


def test_a_log_of_explain_without_attention_is_shown(layout):
    results = explained("1_1")
    del results["attention"]
    summary(layout, "explain", results=results)
    report.run(report.Config(root=layout.root), layout)
    assert "Attention is not attribution" not in layout.report_html.read_text("utf-8")


def test_both_formats_show_the_export_check(layout):
    path = layout.summary("finetune")
    saved = json.loads(path.read_text())
    write_json(path, saved | {"results": saved["results"] | {"export": EXPORT}})
    report.run(report.Config(root=layout.root), layout)
    for page in (layout.report_markdown.read_text(), layout.report_html.read_text()):
        assert "rounded to bfloat16, 1.7% would differ" in page
        for number in ("1.2500", "1.2512", "1.3750", "47.5%", "1 of 40"):
            assert number in page


class Page(html.parser.HTMLParser):
    """The elements of a page and the addresses that they load."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.sources, self.handlers, self.without_alt = [], [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.sources += [attributes[name] for name in ("src", "href") if attributes.get(name)]
        self.handlers += [name for name in attributes if name.startswith("on")]
        self.without_alt += tag == "img" and not attributes.get("alt")


def written(layout):
    assert stage.execute("report", report.Config(root=layout.root), layout, report.run) == 0
    return layout.report_html.read_text(), layout.report_markdown.read_text()


def test_nested_settings_are_plain_text_in_both_formats(layout):
    page, markdown = written(layout)
    assert "| trainable.n\\_vision\\_blocks | 1 |" in markdown
    assert "<code>trainable.n_vision_blocks</code></th><td>1</td>" in page
    assert "{'" not in markdown
    assert "&#39;" not in markdown, "entities only where Markdown would parse HTML"


def test_both_formats_name_the_detectable_difference_of_products(layout):
    path = layout.finetune_log("sample") / "comparison.json"
    found = json.loads(path.read_text())
    write_json(path, {**found, "smallest_detectable_difference": 0.26, "smallest_detectable_difference_products": 0.44})
    for text in written(layout):
        assert "differences of 44 points or more" in text


def test_both_formats_give_the_token_size_of_the_models_family(layout):
    page, markdown = written(layout)
    assert "visual tokens of 32 × 32 pixels" in page
    assert "visual tokens of 32 x 32 pixels" in markdown


def test_page_is_self_contained(layout):
    text, _ = written(layout)
    page = Page(text)
    assert all(source.startswith(("data:", "#")) for source in page.sources)
    assert "@import" not in text
    assert "url(" not in text
    assert len(text.encode()) < 10_000_000


def test_hostile_text_is_escaped(layout):
    text, markdown = written(layout)
    page = Page(text)
    assert page.tags.count("script") == 1
    assert page.handlers == []
    assert "onerror=&#34;" in text or "onerror=&quot;" in text
    assert "<script>" not in re.sub("```text.*?```", "", markdown, flags=re.DOTALL)


def test_images_have_alternative_text(layout):
    page = Page(written(layout)[0])
    assert page.tags.count("img") >= 5
    assert page.without_alt == 0


def test_numbers_equal_those_of_the_files(layout):
    text, markdown = written(layout)
    scores = json.loads((layout.finetune_log("sample") / "test_metrics.json").read_text())
    for shown in (text, markdown):
        assert report_views.percent(scores["accuracy"]) in shown
        assert report_views.percent(scores["accuracy_low"]) in shown
        assert report_views.percent(scores["f1_macro"]) in shown
        assert "29.4% → 50.0%" in shown
    assert json.loads(layout.summary("report").read_text())["results"]["scores"][0]["after"].startswith(
        report_views.percent(scores["accuracy"])
    )


def test_matrix_cells_add_up_and_link_to_their_images(layout):
    text, _ = written(layout)
    data = report_data.gather(layout)
    matrix = report_views.matrix(data.after)
    assert sum(int(cell.text or 0) for row in matrix for cell in row.cells) == 42
    for row in matrix:
        for cell in row.cells:
            found = re.findall(rf'data-truth="{row.category}" data-answer="{cell.answer}" data-when="after"', text)
            assert len(found) == bool(cell.text)


def test_difference_matrix_adds_up_to_zero(layout):
    data = report_data.gather(layout)
    rows = report_views.difference_matrix(data.before, data.after)
    assert sum(int(cell.text or 0) for row in rows for cell in row.cells) == 0


def test_errors_come_first_and_missing_images_lose_only_their_thumbnail(layout):
    images = report_data.gather(layout).images
    right = [one.last.category == one.truth for one in images]
    assert right == sorted(right)
    assert len(images) == 42
    assert sum(bool(one.thumbnail) for one in images) == 5


def test_equal_files_give_equal_reports(layout):
    assert written(layout) == written(layout)


@pytest.mark.parametrize("absent", ["zero_shot", "finetune", "scrape"])
def test_stage_that_was_not_run_is_omitted(layout, absent):
    layout.summary(absent).unlink()
    text, _ = written(layout)
    assert f"python src/{absent}.py" in text or absent == "zero_shot"


def test_predictions_on_other_images_are_not_compared(layout):
    other = [prediction(f"{i}_1", "Oil", "Oil") for i in range(100, 110)]
    predictions.write_jsonl(layout.zero_shot / "predictions.jsonl", other)
    data = report_data.gather(layout)
    assert data.before is None
    assert data.comparison == {}
    written(layout)


def test_without_results_the_error_names_the_stages(tmp_path):
    with pytest.raises(MissingInputError, match=r"zero_shot\.py"):
        report.run(report.Config(root=tmp_path), Layout(tmp_path))


def test_error_names_a_damaged_file(layout):
    log = layout.finetune_log("sample")
    objects = [layout.summary("scrape"), layout.summary("finetune"), log / "test_metrics.json"]
    tables = [layout.zero_shot / "predictions.jsonl", log / "history.csv"]
    for path in (*objects, *tables, log / "comparison.json"):
        whole = path.read_bytes()
        damages = [whole[: len(whole) // 2], b"\xff", b"[" * 100_000]
        for damage in [*damages, *([b"{}", b"null"] if path in objects else [])]:
            path.write_bytes(damage)
            with pytest.raises(StageError, match=re.escape(path.name)):
                report_data.gather(layout)
        path.write_bytes(whole)


def test_matrix_text_has_the_contrast_of_wcag():
    """WCAG 2.2, 1.4.3: a contrast of 4.5 at every depth of both colours."""
    for share in [i / 100 for i in range(-100, 101)]:
        lights = sorted(
            report_views.luminance(*bytes.fromhex(colour.removeprefix("#"))) for colour in report_views.shade(share)
        )
        assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 4.5


def test_families_hold_all_images(layout):
    rows = report_views.family_rows(report_data.gather(layout).last, skincare_labels())
    assert sum(row.n for row in rows) == 42
    assert all(sum((row.right, row.near, row.far, row.unanswered)) == pytest.approx(1) for row in rows)


def test_model_card_is_written_into_the_model_folder(layout):
    written(layout)
    card = layout.finetuned_model("sample") / "README.md"
    assert not card.parent.exists()
    card.parent.mkdir(parents=True)
    written(layout)
    scores = json.loads((layout.finetune_log("sample") / "test_metrics.json").read_text())
    assert report_views.percent(scores["accuracy"]) in card.read_text()


def test_ablations_are_compared_with_ranking(layout):
    assert "python src/ablations.py" in written(layout)[0]
    shares = ("accuracy", "difference")
    row = {f"{name}{end}": 0.25 for name in shares for end in ("", "_low", "_high")}
    ways = [{"way": way, **row, "coverage": 1.0, "f1_macro": 0.5} for way in ("rank", "rank_sum", HOSTILE)]
    summary(layout, "ablations", counts={"images": 42},
            results={"model": HOSTILE, "split": "val", "ways": ways, "alike_in_all_orders": 0.9})  # fmt: skip
    text, markdown = written(layout)
    assert "<code>rank_sum</code>" in text
    assert Page(text).tags.count("script") == 1
    assert "| rank\\_sum | 25.0% (25.0% to 25.0%) | +25.0 (+25.0 to +25.0) | 100.0% | 50.0% |" in markdown


@pytest.mark.parametrize("with_name", [False, True])
def test_hints_are_named_and_product_names_in_prompts_give_a_warning(layout, with_name):
    parts = {"images_and_products": {"test": {name: [1, 1] for name in CATEGORIES}}, "categories_absent": {}}
    leak = {"same_group": 0.0, "lookup_accuracy": 0.0}
    counts = {"train": 3, "val": 1, "test": 2}
    summary(
        layout, "build_dataset",
        results={**parts, "split": "product", "leakage": leak, "leakage_if_split_by_image": leak,
                 "hints": {"kind": "metadata", "with_name": with_name, "images_with_one": counts}},
    )  # fmt: skip
    report.run(report.Config(root=layout.root), layout)
    for path in (layout.report_html, layout.report_markdown):
        text = path.read_text()
        assert "metadata of the product from the shop's page" in text.replace("&#39;", "'")
        assert ("The prompt contains the product" in text) == with_name


def test_verdict_on_model_and_reader_precedes_the_numbers(layout):
    row = {"accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6, "f1_macro": 0.5, "coverage": 1.0}
    pair = {"n": 42, "difference": -0.1, "difference_low": -0.2, "difference_high": -0.01, "mcnemar_p": 0.04,
            "products_p": 0.03}  # fmt: skip
    write_json(
        layout.finetune_log("sample") / "fusion.json",
        {"weights": {"model": 0.25, "reader": 1.75, "model_alone": 1.0}, "n_val": 30, "n_test_read": 40,
         "expected_calibration_error": {"model": 0.1, "fused": 0.05},
         "rows": [{"name": name, "label": f"The {name}, {HOSTILE}", **row} for name in ("reader", "model", "fused")],
         "comparisons": [{"before": "reader", "after": "model", **pair}]},
    )  # fmt: skip
    report.run(report.Config(root=layout.root), layout)
    markdown, page = layout.report_markdown.read_text(), layout.report_html.read_text()
    for text in (markdown, page):
        assert "1.75 for the reader" in text
        verdict = text.index("The model is worse than reading the text on the pack")
        assert verdict < text.index("Macro F1")
        assert "-20.0 to -1.0" in text
        assert f"The reader, {HOSTILE}" not in text


def test_both_formats_show_rejected_images_by_category(layout):
    results = {
        "seen": 9, "products_seen": 4, "products_lost": [], "kept_against_plain_rule": [],
        "seen_by_category": {"Oil": 5, "Serum": 4}, "rejected_by_category": {"too_small": {"Serum": 2}},
    }  # fmt: skip
    summary(layout, "clean", counts={"kept": 7, "too_small": 2}, results=results)
    report.run(report.Config(root=layout.root), layout)
    markdown, page = layout.report_markdown.read_text(), layout.report_html.read_text()
    assert "| Category | Images | too small |" in markdown
    assert "| Oil | 5 | |\n| Serum | 4 | 2 (50.0%) |" in markdown
    rows = re.findall(r'<tr><th scope="row">(?:Oil|Serum)</th>.*</tr>', page)
    assert [re.findall(r'<td class="n">(.*?)</td>', row) for row in rows][:2] == [["5", ""], ["4", "2 (50.0%)"]]

"""The gate fails a significantly worse model and rejects damaged baselines."""

import json
from dataclasses import replace

import pytest

import report
from skincare import stage
from skincare.errors import MissingInputError, StageError
from skincare.evaluation import comparison, metrics, release_gate
from skincare.files import write_json
from skincare.inference import predictions
from skincare.labels import skincare_labels
from skincare.paths import Layout
from tests.helpers import prediction
from tests.test_report import summary

CATEGORIES = skincare_labels().names


def answers(n_right, n=80):
    """Return predictions of two images per product, the first `n_right` correct."""
    truths = [CATEGORIES[i // 2 % 14] for i in range(n)]
    return [
        prediction(f"{10 + i // 2}_{i % 2 + 1}", truth, truth if i < n_right else None)
        for i, truth in enumerate(truths)
    ]


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "run")


def finished(layout, predicted):
    """Write the files of zero_shot.py."""
    predictions.write_jsonl(layout.zero_shot / "predictions.jsonl", predicted)
    write_json(layout.zero_shot / "metrics.json", metrics.to_json(metrics.score(predicted, skincare_labels())))
    summary(layout, "zero_shot", results={"model": "some/model", "n_parameters": 9, "prompt": "?"},
            config={"model": "some/model", "min_tokens": 36, "max_tokens": 36})  # fmt: skip


def run(layout, **options):
    config = report.Config(root=layout.root, **options)
    return stage.execute("report", config, layout, report.run)


@pytest.mark.parametrize(
    ("n_right", "margin", "verdict", "exit_code"),
    [
        (70, 0.0, "passed", 0),
        (60, 0.0, "passed", 0),
        (59, 0.0, "inconclusive", 0),
        (30, 0.0, "failed", 1),
        (30, -0.9, "passed", 0),
        (64, 0.3, "failed", 1),
        (64, 0.05, "inconclusive", 0),
    ],
)
def test_verdict_sets_the_exit_code_and_the_report_is_written(layout, tmp_path, n_right, margin, verdict, exit_code):
    baseline = tmp_path / "baseline.json"
    finished(layout, answers(60))
    assert run(layout, write_gate_baseline=baseline) == 0
    layout.report_html.unlink()
    finished(layout, answers(n_right))
    assert run(layout, gate=baseline, gate_margin=margin) == exit_code
    assert layout.report_html.is_file()
    found = json.loads(layout.summary("report").read_text())["results"]["gate"]
    assert found["verdict"] == verdict
    expected = comparison.compare(answers(60), answers(n_right))
    assert (found["difference_low"], found["difference_high"]) == (expected.difference_low, expected.difference_high)
    assert found["baseline"]["model"] == "some/model"


def test_baseline_round_trips_in_any_order(tmp_path):
    path, other = tmp_path / "one.json", tmp_path / "other.json"
    release_gate.write_baseline(path, answers(40), {"model": "a"})
    release_gate.write_baseline(other, answers(40)[::-1], {"model": "a"})
    assert path.read_bytes() == other.read_bytes()
    found = release_gate.read_baseline(path, skincare_labels())
    assert {(one.image_id, one.category) for one in found.predictions} == {
        (one.image_id, one.category) for one in answers(40)
    }
    assert release_gate.judge(found, answers(40), 0.0).verdict == "passed"


@pytest.mark.parametrize(
    ("candidate", "says"),
    [
        (answers(60)[1:], "1 only in the baseline, such as '10_1'"),
        (answers(60, 82), "2 only in this run, such as '50_1'"),
        ([replace(answers(60)[0], truth="Peel"), *answers(60)[1:]], "1 with another truth"),
    ],
)
def test_other_images_are_an_error_not_a_failed_gate(layout, tmp_path, caplog, candidate, says):
    baseline = tmp_path / "baseline.json"
    release_gate.write_baseline(baseline, answers(60), {})
    finished(layout, candidate)
    with pytest.raises(release_gate.GateBaselineError, match="other images") as error:
        release_gate.judge(release_gate.read_baseline(baseline, skincare_labels()), candidate, 0.0)
    assert says in str(error.value)
    assert run(layout, gate=baseline) == 2


GOOD = {"image_id": "1_1", "product_id": "1", "truth": "Oil", "category": None}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[" * 100_000,
        "[]",
        "{}",
        "\udcff",
        {"answers": [GOOD]},
        {"kind": "skincare gate baseline", "version": 2, "answers": [GOOD]},
        *(
            {"kind": "skincare gate baseline", "version": 1, "answers": some}
            for some in (
                None,
                [],
                [1],
                [GOOD, GOOD],
                [{**GOOD, "extra": 1}],
                [{**GOOD, "image_id": 7}],
                [{**GOOD, "truth": "Perfume"}],
                [{**GOOD, "category": "Unknown"}],
                [{**GOOD, "truth": ["Oil"]}],
            )
        ),
    ],
    ids=lambda content: str(content)[:60],
)
def test_damaged_or_foreign_file_is_an_error(tmp_path, content):
    path = tmp_path / "baseline.json"
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(release_gate.GateBaselineError, match="no gate baseline") as error:
        release_gate.read_baseline(path, skincare_labels())
    assert error.value.exit_code == 2


def test_source_of_a_baseline_is_shown_as_one_short_line(tmp_path):
    path = tmp_path / "baseline.json"
    release_gate.write_baseline(path, answers(40), {"model": "evil\n\x1b[31mname" + "x" * 999})
    shown = str(release_gate.judge(release_gate.read_baseline(path, skincare_labels()), answers(40), 0.0))
    assert "\n" not in shown
    assert "\x1b" not in shown
    assert len(shown) < 500


def test_missing_baseline_error_names_the_command(tmp_path):
    with pytest.raises(MissingInputError, match="--write-gate-baseline"):
        release_gate.read_baseline(tmp_path / "absent.json", skincare_labels())


@pytest.mark.parametrize("margin", [float("nan"), 2.0, -1.5])
def test_margin_out_of_range_is_an_error(margin):
    baseline = release_gate.Baseline({}, tuple(release_gate.GatePrediction("1_1", "1", "Oil", None) for _ in range(1)))
    with pytest.raises(StageError, match="--gate-margin"):
        release_gate.judge(baseline, [prediction("1_1", "Oil", None)], margin)

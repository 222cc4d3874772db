"""Predictions round-trip through their file for any generated text; errors name the damaged line."""

import json

import pytest

from skincare.errors import MissingInputError, StageError
from skincare.inference import predictions
from skincare.labels import skincare_labels
from tests.helpers import prediction

DIFFICULT_TEXTS = [
    "",
    "Oil\n\nOil",
    "a\u2028b\u0085c",
    "emoji 🧴 and \x00 \x1b[31m",
    '"quoted", {json}',
    "<script>alert(1)</script>",
]


def test_predictions_with_any_text_round_trip(tmp_path):
    written = [prediction(f"1_{i}", "Oil", None, text=text) for i, text in enumerate(DIFFICULT_TEXTS)]
    predictions.write_jsonl(tmp_path / "p.jsonl", written)
    assert predictions.read_jsonl(tmp_path / "p.jsonl", skincare_labels()) == written


def test_the_file_does_not_depend_on_the_order_of_predictions(tmp_path):
    written = [prediction(f"{i}_{n}", "Oil", "Balm") for i in (2, 10, 1) for n in (11, 2)]
    predictions.write_jsonl(tmp_path / "a", written)
    predictions.write_jsonl(tmp_path / "b", reversed(written))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert [one.image_id for one in predictions.read_jsonl(tmp_path / "a", skincare_labels())] == [
        "1_2",
        "1_11",
        "2_2",
        "2_11",
        "10_2",
        "10_11",
    ]


def test_a_missing_file_error_names_the_stage(tmp_path):
    with pytest.raises(MissingInputError, match=r"zero_shot\.py"):
        predictions.read_jsonl(tmp_path / "none.jsonl", skincare_labels())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("truth", "Shampoo"), ("category", "Unknown"), ("n_new_tokens", "3"), ("is_finished", 1), ("latency_s", None),
        ("candidates", "Oil"), ("candidates", [1]), ("text", None), ("surplus", 1),
    ],
)  # fmt: skip
def test_the_error_for_an_invalid_field_names_the_line(tmp_path, key, value):
    path = tmp_path / "p.jsonl"
    predictions.write_jsonl(path, [prediction("1_1", "Oil", "Oil"), prediction("1_2", "Oil", "Oil")])
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps({**json.loads(second), key: value})}\n")
    with pytest.raises(StageError, match="line 2"):
        predictions.read_jsonl(path, skincare_labels())


@pytest.mark.parametrize("line", ["{", "[]", "null", '"text"', "{}", "[" * 100_000, b'{"text": "\xc3'])
def test_the_error_for_a_malformed_line_names_the_line(tmp_path, line):
    (tmp_path / "p.jsonl").write_bytes(line if isinstance(line, bytes) else line.encode())
    with pytest.raises(StageError, match="line 1"):
        predictions.read_jsonl(tmp_path / "p.jsonl", skincare_labels())

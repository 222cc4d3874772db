"""Baselines see what they may see, answer about every test picture, and depend on nothing but their inputs."""

from collections import Counter

import pytest

import baselines
from skincare import predictions
from skincare.errors import StageError
from skincare.paths import TINY_MODEL, Layout
from tests.dataset_helpers import write_catalogue, write_dataset_files

SIZES = {"train": 42, "val": 14, "test": 14}


@pytest.fixture
def layout(tmp_path):
    found = Layout(tmp_path)
    parts = write_dataset_files(found, SIZES)
    everything = [one for part in parts.values() for one in part]
    write_catalogue(
        found,
        {one.product_id: one.category for one in everything},
        {one.product_id: f"Noor {one.category} for you {i}" for i, one in enumerate(everything)},
    )
    return found


def run(layout):
    settings = baselines.Config(root=layout.root, model=str(TINY_MODEL), min_tokens=36, max_tokens=36)
    summary = baselines.run(settings, layout)
    return summary.results["scores"], {
        path.stem: predictions.read_jsonl(path) for path in sorted(layout.baselines.glob("*.jsonl"))
    }


def test_each_answers_about_every_test_picture(layout):
    scores, answers = run(layout)
    assert answers.keys() == scores.keys() == {"majority", "name", "vision_probe", "name_picture"}
    for found in answers.values():
        assert len(found) == SIZES["test"]
        assert all(len(one.log_probabilities) == 14 for one in found)


def test_a_name_that_tells_is_read_and_the_majority_is_one_category(layout):
    scores, answers = run(layout)
    assert scores["name"]["accuracy"] > 0.9
    assert len({one.category for one in answers["majority"]}) == 1
    # Test shows every category once.
    assert scores["majority"]["accuracy"] == pytest.approx(1 / 14)


def test_a_second_run_gives_the_same_answers(layout):
    assert run(layout) == run(layout)


def test_test_pictures_have_no_say_in_what_is_learnt(layout, monkeypatch):
    """Their truths are shuffled: the answers stay."""
    _, before = run(layout)
    text = layout.dataset("test").read_text()
    layout.dataset("test").write_text(text.replace('"text": "Oil"', '"text": "Peel"'))
    _, after = run(layout)
    for name in before:
        assert [one.category for one in after[name]] == [one.category for one in before[name]]
    assert Counter(one.truth for one in after["name"])["Peel"] == 2


def test_a_product_without_a_name_is_an_error(layout):
    write_catalogue(layout, {"20000000": "Oil"})
    with pytest.raises(StageError, match="not in the catalogue"):
        run(layout)

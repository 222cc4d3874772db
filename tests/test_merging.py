"""Merging renames, sums probabilities, and rejects invalid groups."""

import numpy as np
import pytest

from skincare.errors import StageError
from skincare.evaluation import merging
from skincare.labels import skincare_labels
from tests.helpers import prediction

CATEGORIES = skincare_labels().names

GROUPS = (("Mist", "Toner"), ("Oil", "Bath Oil", "Balm"))


def test_groups_are_parsed():
    assert merging.parse(["Mist + toner", "Oil+Bath Oil+balm"], skincare_labels()) == GROUPS
    assert merging.parse([], skincare_labels()) == ()


@pytest.mark.parametrize(
    "texts", [["Toner"], ["Toner+Perfume"], ["Toner+"], [""], ["Toner+Toner"], ["Toner+Mist", "Mist+Oil"]]
)
def test_invalid_groups_are_an_error(texts):
    with pytest.raises(StageError, match=r"(category|two or more)"):
        merging.parse(texts, skincare_labels())


def test_group_takes_the_position_of_its_first_category():
    names = merging.names(GROUPS, skincare_labels())
    assert len(names) == 14 - 3
    assert names.index("Toner + Mist") == CATEGORIES.index("Toner")
    assert names.index("Bath Oil + Balm + Oil") == CATEGORIES.index("Bath Oil")
    assert merging.names((), skincare_labels()) == CATEGORIES


def test_predictions_are_renamed_and_probabilities_summed():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(14))
    one = prediction(
        "1_1", "Toner", "Mist", candidates=("Mist", "Toner", "Oil"), log_probabilities=tuple(np.log(probabilities))
    )
    silent = prediction("2_1", "Serum", None)
    found, kept = merging.merge([one, silent], GROUPS, skincare_labels())
    assert (found.truth, found.category) == ("Toner + Mist", "Toner + Mist")
    assert found.candidates == ("Toner + Mist", "Bath Oil + Balm + Oil")
    summed = dict(zip(merging.names(GROUPS, skincare_labels()), np.exp(found.log_probabilities), strict=True))
    expected = sum(probabilities[CATEGORIES.index(name)] for name in GROUPS[1])
    assert summed["Bath Oil + Balm + Oil"] == pytest.approx(expected)
    assert sum(summed.values()) == pytest.approx(1)
    assert kept == silent
    assert merging.merge([one], (), skincare_labels()) == [one]

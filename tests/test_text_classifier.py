"""The linear text classifier, against scikit-learn."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union

from skincare.labels import skincare_labels
from skincare.text_reading import text_classifier
from skincare.text_reading.text_classifier import TextClassifier

CATEGORIES = skincare_labels().names

TEXTS = [
    "rose body wash",
    "mint body wash",
    "rose day cream",
    "night cream",
    "clay mask",
    "a rose clay face mask",
    "mask",
]
LABELS = ["Body Wash", "Body Wash", "Moisturiser", "Moisturiser", "Mask", "Mask", "Mask"]


@pytest.fixture(scope="module")
def classifier():
    return text_classifier.fit(skincare_labels(), TEXTS, LABELS)


def test_probabilities_equal_those_of_scikit_learn(classifier):
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"[a-z]+")
    theirs = make_pipeline(make_union(letters, words), LogisticRegression(C=10, max_iter=1000)).fit(TEXTS, LABELS)
    for text in [*TEXTS, "rose body mask", "cream wash"]:
        ours = np.exp(classifier.log_probabilities(text))[[CATEGORIES.index(name) for name in theirs.classes_]]
        np.testing.assert_allclose(ours, theirs.predict_proba([text])[0], atol=2e-3)


def test_unseen_labels_have_negligible_probability():
    found = text_classifier.fit(skincare_labels(), TEXTS[:4], LABELS[:4]).log_probabilities("day cream")
    assert CATEGORIES[found.argmax()] == "Moisturiser"
    assert np.exp(found).sum() == pytest.approx(1)
    assert found[CATEGORIES.index("Peel")] < -20


def test_arrays_round_trip(classifier):
    again = TextClassifier.from_arrays(classifier.arrays(), 14)
    for text in (*TEXTS, "", "unknown"):
        np.testing.assert_allclose(again.log_probabilities(text), classifier.log_probabilities(text), atol=1e-5)


@pytest.mark.parametrize("name", ["terms", "idf", "weights"])
def test_inconsistent_arrays_raise(classifier, name):
    arrays = classifier.arrays()
    with pytest.raises(ValueError, match="terms, but"):
        TextClassifier.from_arrays({**arrays, name: arrays[name][:-9]}, 14)


def test_no_text_gives_the_biases(classifier):
    np.testing.assert_allclose(
        classifier.log_probabilities(""), classifier.biases - np.logaddexp.reduce(classifier.biases)
    )

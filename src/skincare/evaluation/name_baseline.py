"""The baseline that classifies product names: names in, log-probabilities of the labels out; pure functions."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline, make_union

from skincare.catalogue import Product
from skincare.labels import Labels
from skincare.product.sizes import name_family

LogProbabilities = npt.NDArray[np.float64]

N_FOLDS: Final = 5
# The log-probability of a category without training examples.
NEVER: Final = -30.0


def name_model(strength: float) -> Any:
    """Return an untrained pipeline from names to categories; a larger `strength` regularises less."""
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    # Names are short and need less regularisation than image features.
    return make_pipeline(make_union(letters, words), LogisticRegression(C=100 * strength, max_iter=2000))


def log_probabilities(model: Any, inputs: Any, labels: Labels) -> LogProbabilities:
    """Return (n, k) log-probabilities of a fitted scikit-learn classifier; NEVER for labels absent from train."""
    found = model.predict_log_proba(inputs)
    table = np.full((len(found), len(labels)), NEVER)
    table[:, [labels.index(name) for name in model.classes_]] = found
    return np.maximum(table, NEVER)


def cross_validate(products: Sequence[Product], seed: int, labels: Labels) -> LogProbabilities | None:
    """Return (products, k) log-probabilities, each by a model trained without its family of names.

    Five folds, stratified; the sizes of one product ("50ml", "200ml") are in one fold. None if a category has fewer
    families than folds. There are no hyperparameters to choose, so no validation set is needed.
    """
    names, categories = [one.name for one in products], np.array([one.category for one in products])
    families = [name_family(name) for name in names]
    if _fewest_families(categories, families) < N_FOLDS:
        return None
    table = np.empty((len(products), len(labels)))
    folds = StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(names, categories, families):
        model = name_model(1.0).fit([names[i] for i in train], categories[train])
        table[test] = log_probabilities(model, [names[i] for i in test], labels)
    return table


def _fewest_families(categories: Sequence[str] | npt.NDArray[Any], families: Sequence[str]) -> int:
    pairs = set(zip(categories, families, strict=True))
    counts = [sum(category == one for category, _ in pairs) for one in set(categories)]
    return min(counts, default=0)

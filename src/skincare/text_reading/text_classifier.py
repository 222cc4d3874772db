"""A linear classifier of short texts, kept as plain arrays: TF-IDF of letters and words, logistic regression.

It knows what no table of phrases says: which ingredients, brands and claims go with which category. Texts are folded
as the phrase table is. Prediction needs numpy alone; only fitting imports scikit-learn.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from skincare.labels import Labels
from skincare.text_reading.phrases import tokenise

Table = npt.NDArray[np.float64]

_LETTERS: Final = (2, 5)
_WORDS: Final = (1, 2)
_MOST_LETTERS: Final = 5_000  # of a text; what a pack prints is shorter, and hostile text must not cost time
# A category that was never seen is not impossible.
_NEVER: Final = -30.0


@dataclass(frozen=True)
class TextClassifier:
    """Terms, their inverse document frequencies (V,), weights (V, k) and biases (k,) of k labels, in their order."""

    terms: Mapping[str, int]
    idf: Table
    weights: Table
    biases: Table

    def log_probabilities(self, text: str) -> Table:
        """Return (k,) log-probabilities of the labels."""
        places, values = _row(text, self.terms, self.idf)
        logits = values @ self.weights[places] + self.biases
        return np.asarray(logits - np.logaddexp.reduce(logits), dtype=np.float64)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return what `from_arrays` makes the classifier of again; plain arrays, to be written as npz."""
        terms = sorted(self.terms, key=self.terms.__getitem__)
        # One text instead of an array of texts, which would be as wide as its longest.
        return {
            "terms": np.frombuffer("\n".join(terms).encode(), dtype=np.uint8),
            "idf": self.idf.astype(np.float32),
            "weights": self.weights.astype(np.float32),
            "biases": self.biases,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], n_labels: int) -> "TextClassifier":
        """Return the classifier; raises ValueError or KeyError where the arrays do not fit together."""
        terms = arrays["terms"].tobytes().decode().split("\n")
        if arrays["weights"].shape != (len(terms), n_labels) or arrays["idf"].shape != (len(terms),):
            raise ValueError(f"{len(terms)} terms, but weights of shape {arrays['weights'].shape}")
        tables = (arrays[name].astype(np.float64) for name in ("idf", "weights", "biases"))
        return cls({term: i for i, term in enumerate(terms)}, *tables)


def fit(labels: Labels, texts: Sequence[str], truths: Sequence[str], strength: float = 10.0) -> TextClassifier:
    """Return a classifier of the texts; a larger `strength` regularises less. A few seconds for some thousand texts."""
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression

    counted = [Counter(_terms(text)) for text in texts]
    frequencies = Counter(term for one in counted for term in one)
    terms = {term: i for i, term in enumerate(sorted(frequencies))}
    # As scikit-learn smooths it: as if one more text held every term.
    idf = np.array([np.log((1 + len(texts)) / (1 + frequencies[term])) + 1 for term in terms])
    rows = [_row_of_counts(one, terms, idf) for one in counted]
    ends = np.cumsum([0, *(len(places) for places, _ in rows)])
    columns, values = (np.concatenate([row[i] for row in rows]) for i in range(2))
    matrix = sparse.csr_matrix((values, columns, ends), shape=(len(texts), len(terms)))
    model = LogisticRegression(C=strength, max_iter=1000).fit(matrix, truths)
    return _of_all_labels(labels, model, terms, idf)


def _of_all_labels(labels: Labels, model: Any, terms: Mapping[str, int], idf: Table) -> TextClassifier:
    """Return the classifier with a column for every label, seen or not."""
    weights, biases = np.zeros((len(terms), len(labels))), np.full(len(labels), _NEVER)
    seen = [labels.index(name) for name in model.classes_]
    # Of two categories scikit-learn keeps the difference only.
    coefficients = model.coef_ if len(seen) > 2 else np.concatenate([-model.coef_, model.coef_]) / 2
    intercepts = model.intercept_ if len(seen) > 2 else np.concatenate([-model.intercept_, model.intercept_]) / 2
    weights[:, seen], biases[seen] = coefficients.T, intercepts
    return TextClassifier(terms, idf, weights, biases)


def _row(text: str, terms: Mapping[str, int], idf: Table) -> tuple[npt.NDArray[np.int64], Table]:
    return _row_of_counts(Counter(_terms(text)), terms, idf)


def _row_of_counts(counts: Counter[str], terms: Mapping[str, int], idf: Table) -> tuple[npt.NDArray[np.int64], Table]:
    """Return the places and values of a text's known terms; letters and words are each of length 1."""
    known = {term: count for term, count in counts.items() if term in terms}
    places = np.array([terms[term] for term in known], dtype=np.int64)
    values = (1 + np.log(np.array(list(known.values()), dtype=np.float64))) * idf[places]
    is_word = np.array([term.startswith("=") for term in known], dtype=bool)
    for part in (is_word, ~is_word):
        values[part] /= max(float(np.linalg.norm(values[part])), 1e-12)
    return places, values


def _terms(text: str) -> Iterable[str]:
    """Yield the text's words and pairs of words, marked, and the letters inside and around its words."""
    tokens = tokenise(text[:_MOST_LETTERS])
    for length in range(_WORDS[0], _WORDS[1] + 1):
        for start in range(len(tokens) - length + 1):
            yield "=" + " ".join(tokens[start : start + length])
    for token in tokens:
        padded = f" {token} "
        for length in range(_LETTERS[0], _LETTERS[1] + 1):
            for start in range(max(1, len(padded) - length + 1)):
                yield padded[start : start + length]
                if len(padded) <= length:
                    break

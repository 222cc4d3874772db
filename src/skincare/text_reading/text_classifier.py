"""Linear text classifier: TF-IDF of character and word n-grams, logistic regression.

It learns associations that the phrase table lacks, such as ingredients, brands and claims. Texts are normalised like
the phrase table. Prediction needs only numpy; fitting imports scikit-learn.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from skincare.labels import Labels
from skincare.text_reading.phrases import tokenise

FloatArray = npt.NDArray[np.float64]

_LETTER_NGRAMS: Final = (2, 5)
_WORD_NGRAMS: Final = (1, 2)
_MAX_LETTERS: Final = 5_000  # longer than the text of any pack; bounds the time for hostile text
# Finite, so that a label without training texts keeps a probability.
_UNSEEN_LABEL_BIAS: Final = -30.0


@dataclass(frozen=True)
class TextClassifier:
    """Terms, their inverse document frequencies (V,), weights (V, k) and biases (k,) of k labels, in their order."""

    terms: Mapping[str, int]
    idf: FloatArray
    weights: FloatArray
    biases: FloatArray

    def log_probabilities(self, text: str) -> FloatArray:
        """Return (k,) log-probabilities of the labels."""
        places, values = _row(text, self.terms, self.idf)
        logits = values @ self.weights[places] + self.biases
        return np.asarray(logits - np.logaddexp.reduce(logits), dtype=np.float64)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return arrays for an npz file, the input of `from_arrays`."""
        terms = sorted(self.terms, key=self.terms.__getitem__)
        # Joined bytes: an array of strings would be padded to the longest.
        return {
            "terms": np.frombuffer("\n".join(terms).encode(), dtype=np.uint8),
            "idf": self.idf.astype(np.float32),
            "weights": self.weights.astype(np.float32),
            "biases": self.biases,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], n_labels: int) -> "TextClassifier":
        """Return the classifier; raises ValueError or KeyError if the arrays are inconsistent."""
        terms = arrays["terms"].tobytes().decode().split("\n")
        if arrays["weights"].shape != (len(terms), n_labels) or arrays["idf"].shape != (len(terms),):
            raise ValueError(f"{len(terms)} terms, but weights of shape {arrays['weights'].shape}")
        tables = (arrays[name].astype(np.float64) for name in ("idf", "weights", "biases"))
        return cls({term: i for i, term in enumerate(terms)}, *tables)


def fit(labels: Labels, texts: Sequence[str], truths: Sequence[str], strength: float = 10.0) -> TextClassifier:
    """Return a classifier fitted on texts with their true labels; takes seconds for thousands of texts.

    strength: inverse regularisation strength, scikit-learn's `C`.
    """
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression

    counted = [Counter(_terms(text)) for text in texts]
    frequencies = Counter(term for one in counted for term in one)
    terms = {term: i for i, term in enumerate(sorted(frequencies))}
    # Smoothed as in scikit-learn: as if one more text contained every term.
    idf = np.array([np.log((1 + len(texts)) / (1 + frequencies[term])) + 1 for term in terms])
    rows = [_row_of_counts(one, terms, idf) for one in counted]
    ends = np.cumsum([0, *(len(places) for places, _ in rows)])
    columns, values = (np.concatenate([row[i] for row in rows]) for i in range(2))
    matrix = sparse.csr_matrix((values, columns, ends), shape=(len(texts), len(terms)))
    model = LogisticRegression(C=strength, max_iter=1000).fit(matrix, truths)
    return _of_all_labels(labels, model, terms, idf)


def _of_all_labels(labels: Labels, model: Any, terms: Mapping[str, int], idf: FloatArray) -> TextClassifier:
    """Return the classifier with a column for every label, including those without training texts."""
    weights, biases = np.zeros((len(terms), len(labels))), np.full(len(labels), _UNSEEN_LABEL_BIAS)
    seen = [labels.index(name) for name in model.classes_]
    # For two classes scikit-learn has only the coefficients of their difference.
    coefficients = model.coef_ if len(seen) > 2 else np.concatenate([-model.coef_, model.coef_]) / 2
    intercepts = model.intercept_ if len(seen) > 2 else np.concatenate([-model.intercept_, model.intercept_]) / 2
    weights[:, seen], biases[seen] = coefficients.T, intercepts
    return TextClassifier(terms, idf, weights, biases)


def _row(text: str, terms: Mapping[str, int], idf: FloatArray) -> tuple[npt.NDArray[np.int64], FloatArray]:
    return _row_of_counts(Counter(_terms(text)), terms, idf)


def _row_of_counts(
    counts: Counter[str], terms: Mapping[str, int], idf: FloatArray
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Return the indices and TF-IDF values of a text's known terms; character and word parts each have L2 norm 1."""
    known = {term: count for term, count in counts.items() if term in terms}
    places = np.array([terms[term] for term in known], dtype=np.int64)
    values = (1 + np.log(np.array(list(known.values()), dtype=np.float64))) * idf[places]
    is_word = np.array([term.startswith("=") for term in known], dtype=bool)
    for part in (is_word, ~is_word):
        values[part] /= max(float(np.linalg.norm(values[part])), 1e-12)
    return places, values


def _terms(text: str) -> Iterable[str]:
    """Yield the text's word n-grams, prefixed with `=`, and its character n-grams within padded words."""
    tokens = tokenise(text[:_MAX_LETTERS])
    for length in range(_WORD_NGRAMS[0], _WORD_NGRAMS[1] + 1):
        for start in range(len(tokens) - length + 1):
            yield "=" + " ".join(tokens[start : start + length])
    for token in tokens:
        padded = f" {token} "
        for length in range(_LETTER_NGRAMS[0], _LETTER_NGRAMS[1] + 1):
            for start in range(max(1, len(padded) - length + 1)):
                yield padded[start : start + length]
                if len(padded) <= length:
                    break

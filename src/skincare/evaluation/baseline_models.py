"""The simple models that a fine-tuned model is compared with: log-probabilities of labels, and predictions from them.

Tables are (images, labels) log-probabilities. Models are fitted on train; strengths and weights are selected on val.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skincare.catalogue import Product
from skincare.dataset import splitting
from skincare.dataset.chat import Example
from skincare.errors import StageError
from skincare.evaluation import name_baseline
from skincare.evaluation.calibration import LogProbabilities, apply_temperature
from skincare.inference.predictions import Prediction
from skincare.labels import Labels
from skincare.text_reading import split_reader
from skincare.text_reading.pack_text import PackText

logger = logging.getLogger(__name__)

_STRENGTHS: Final = (0.01, 0.1, 1.0, 10.0)
_WEIGHTS: Final = tuple(i / 10 for i in range(11))

# The examples of each split.
Splits = Mapping[str, Sequence[Example]]


def product_names(splits: Splits, name_of: Mapping[str, str]) -> dict[str, list[str]]:
    """Return each image's product name; raises StageError for a product that is not in the catalogue."""
    unknown = sorted({one.product_id for part in splits.values() for one in part} - name_of.keys())
    if unknown:
        raise StageError(f"{len(unknown)} products are not in the catalogue, such as {unknown[0]}; run clean.py again")
    return {split: [name_of[one.product_id] for one in part] for split, part in splits.items()}


def fit(
    make_model: Callable[[float], Any], inputs: Mapping[str, Any], splits: Splits, labels: Labels
) -> dict[str, LogProbabilities]:
    """Return the tables of val and test of the model, over the regularisation strengths, with the best val accuracy."""
    truths = {split: [one.category for one in part] for split, part in splits.items()}
    fitted = [make_model(strength).fit(inputs["train"], truths["train"]) for strength in _STRENGTHS]
    best = max(fitted, key=lambda one: one.score(inputs["val"], truths["val"]))
    return {split: name_baseline.log_probabilities(best, inputs[split], labels) for split in ("val", "test")}


def probe_model(strength: float) -> Any:
    """Return an untrained linear probe; a larger `strength` regularises less."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1 * strength, max_iter=2000))


def majority(splits: Splits, labels: Labels) -> LogProbabilities:
    """Return the table of test by the frequency of the labels in train."""
    counts = Counter(one.category for one in splits["train"])
    row = [np.log(counts[name] / counts.total()) if counts[name] else name_baseline.NEVER for name in labels.names]
    return np.tile(np.array(row), (len(splits["test"]), 1))


def read_packs(
    splits: Splits, products: Sequence[Product], texts: Mapping[str, PackText], labels: Labels
) -> dict[str, LogProbabilities]:
    """Return the tables of val and test by a reader that is fitted on train; uniform for packs without text."""
    reader = split_reader.fit_on_train(splits, products, texts, labels)
    tables = {}
    for split in ("val", "test"):
        table, is_read = split_reader.read_packs(reader, splits[split], texts)
        tables[split] = np.where(is_read[:, None], table, -np.log(len(labels)))
    return tables


def choose_weight(first: LogProbabilities, second: LogProbabilities, val: Sequence[Example], labels: Labels) -> float:
    """Return the weight of the first table that gives the true labels of val the highest mean log-probability."""
    truths = [labels.index(one.category) for one in val]

    def mean_log_probability(weight: float) -> float:
        return float(combine(weight, first, second)[np.arange(len(truths)), truths].mean())

    return max(_WEIGHTS, key=mean_log_probability)


def combine(weight: float, first: LogProbabilities, second: LogProbabilities) -> LogProbabilities:
    """Return the normalised weighted mean of two tables."""
    return apply_temperature(weight * first + (1 - weight) * second, 1.0)


def product_lookup(splits: Splits, seed: int) -> list[Prediction]:
    """Predict the label of the same product's training images, on a split by image as the reference experiment's."""
    images = {one.image_id: one for part in splits.values() for one in part}
    test_ids = splitting.split_by_image(list(images), seed)
    train = [one for one in images.values() if one.image_id not in test_ids]
    categories = {one.product_id: one.category for one in sorted(train, key=lambda one: one.image_id)}
    most_frequent = min(Counter(one.category for one in train).items(), key=lambda item: (-item[1], item[0]))[0]
    return [
        _prediction(one, "product_lookup", categories.get(one.product_id, most_frequent), ())
        for one in images.values()
        if one.image_id in test_ids
    ]


def name_folds(products: Sequence[Product], seed: int, labels: Labels) -> list[Prediction]:
    """Predict every product of the catalogue by its name, in folds; empty if a category has too few products."""
    table = name_baseline.cross_validate(products, seed, labels)
    if table is None:
        logger.info(
            "name_folds left out: a category of the catalogue has fewer than %d products", name_baseline.N_FOLDS
        )
        return []
    # One example per product: it has one name.
    examples = [Example("", one.category, one.product_id, one.product_id, labels.question) for one in products]
    return to_predictions(examples, "name_folds", table, labels)


def to_predictions(examples: Sequence[Example], name: str, table: LogProbabilities, labels: Labels) -> list[Prediction]:
    """Return the most likely label of each example; none for a pack without text, whose row is uniform."""
    return [
        _prediction(
            one, name, None if name == "pack_text" and not np.ptp(row) else labels.names[int(row.argmax())], row
        )
        for one, row in zip(examples, table, strict=True)
    ]


def _prediction(one: Example, name: str, category: str | None, row: Sequence[float] | LogProbabilities) -> Prediction:
    return Prediction(
        image_id=one.image_id, product_id=one.product_id, file=one.image, split="test", truth=one.category,
        decoder=f"baseline:{name}", text=category or "", n_new_tokens=0, is_finished=True, category=category,
        status="exact" if category else "empty", candidates=(category,) if category else (),
        log_probabilities=tuple(round(float(v), 6) for v in row), latency_s=0.0,
    )  # fmt: skip

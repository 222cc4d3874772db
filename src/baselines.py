"""What simple methods reach on the same test pictures: a model that does not beat them is not worth its electricity.

    majority       the most frequent category of the training pictures
    name           the product's name alone (TF-IDF of letters and words, logistic regression)
    vision_probe   the untrained model's visual tokens, averaged (logistic regression)
    name_picture   the mean of the log-probabilities of the last two

In: clean_dataset/{train,val,test}.json, the catalogue (for names), a model of the hub or a folder.
Out: log/baselines/<name>.jsonl, log/baselines.json. Strengths of regularisation are chosen on val.
Command: python src/baselines.py [--model Qwen/Qwen2-VL-2B-Instruct]
Time: 10 s for the embedded sample on two cores.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import StandardScaler

from skincare import metrics, predictions, stage
from skincare.batches import PromptEncoder
from skincare.catalogue import read_products
from skincare.categories import CATEGORIES
from skincare.chat import Example, read_dataset
from skincare.errors import StageError
from skincare.metrics import Scores
from skincare.model import DEFAULT_MODEL, PixelLimits, default_device, load_model, load_processor
from skincare.paths import SPLITS, Layout
from skincare.pictures import PictureStates
from skincare.predictions import Prediction
from skincare.recogniser import Recogniser
from skincare.runlog import Summary

logger = logging.getLogger(__name__)

_STRENGTHS: Final = (0.01, 0.1, 1.0, 10.0)
_NEVER: Final = -30.0
Table = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """What the stage can be told."""

    model: str = DEFAULT_MODEL
    """Model whose untrained visual tokens are probed."""
    min_tokens: int = 64
    """Least visual tokens of a picture (28 x 28 pixels each)."""
    max_tokens: int = 128
    """Most visual tokens of a picture."""
    catalogue: Path | None = None
    """Catalogue to read instead of csv_data/skincare_products_clean.csv."""


def run(config: Config, layout: Layout) -> Summary:
    """Fit each baseline on train, choose its strength on val, score it on test."""
    parts = {split: read_dataset(layout, split) for split in SPLITS}
    names = {one.product_id: one.name for one in read_products(config.catalogue or layout.catalogue).products}
    unknown = sorted({one.product_id for part in parts.values() for one in part} - names.keys())
    if unknown:
        raise StageError(f"{len(unknown)} products are not in the catalogue, such as {unknown[0]}; run clean.py again")
    texts = {split: [names[one.product_id] for one in part] for split, part in parts.items()}
    features = _features(config, layout, parts)
    tables = {
        "majority": _majority(parts),
        "name": _fit(_name_model, texts, parts),
        "vision_probe": _fit(_probe_model, features, parts),
    }
    tables["name_picture"] = (tables["name"] + tables["vision_probe"]) / 2
    scores = {}
    for name, table in tables.items():
        answered = _predictions(parts["test"], name, table)
        predictions.write_jsonl(layout.baselines / f"{name}.jsonl", answered)
        scores[name] = metrics.score(answered)
        logger.info("%-13s %s", name, metrics.headline(scores[name]))
    best = max(scores, key=lambda name: scores[name].accuracy)
    return Summary(
        headline=f"best of {len(scores)} baselines on test: {best}, {scores[best].accuracy:.1%}",
        counts={"test pictures": len(parts["test"])},
        results={"model": config.model, "scores": {name: _figures(one) for name, one in scores.items()}},
    )


def _figures(scores: Scores) -> dict[str, float]:
    return {key: getattr(scores, key) for key in ("accuracy", "accuracy_low", "accuracy_high", "f1_macro")}


def _features(config: Config, layout: Layout, parts: dict[str, list[Example]]) -> dict[str, Table]:
    """Return (pictures, width) means of the untrained model's visual tokens."""
    encoder = PromptEncoder(load_processor(config.model, PixelLimits(config.min_tokens, config.max_tokens)))
    recogniser = Recogniser(load_model(config.model, default_device()).requires_grad_(False))
    pictures = PictureStates(recogniser, encoder, layout.root)
    return {split: _visual_means(pictures, [one.image for one in part]) for split, part in parts.items()}


def _visual_means(pictures: PictureStates, images: Sequence[str]) -> Table:
    pictures.fill(images)
    rows = []
    for image in images:
        grids, states = pictures.get([image])
        rows.append(pictures.recogniser.visual_tokens(grids, states).float().mean(dim=0).cpu().numpy())
    return np.stack(rows).astype(np.float64)


def _majority(parts: dict[str, list[Example]]) -> Table:
    counts = Counter(one.category for one in parts["train"])
    row = [np.log(counts[name] / counts.total()) if counts[name] else _NEVER for name in CATEGORIES]
    return np.tile(np.array(row), (len(parts["test"]), 1))


def _name_model(strength: float) -> Any:
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    # Names are short: they bear less regularisation than pictures.
    return make_pipeline(make_union(letters, words), LogisticRegression(C=100 * strength, max_iter=2000))


def _probe_model(strength: float) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1 * strength, max_iter=2000))


def _fit(make: Any, inputs: dict[str, Any], parts: dict[str, list[Example]]) -> Table:
    """Return (test pictures, 14) log-probabilities of the model that does best on val."""
    truths = {split: [one.category for one in part] for split, part in parts.items()}
    fitted = [make(strength).fit(inputs["train"], truths["train"]) for strength in _STRENGTHS]
    best = max(fitted, key=lambda one: one.score(inputs["val"], truths["val"]))
    table = np.full((len(truths["test"]), len(CATEGORIES)), _NEVER)
    table[:, [CATEGORIES.index(name) for name in best.classes_]] = best.predict_log_proba(inputs["test"])
    return np.maximum(table, _NEVER)


def _predictions(test: Sequence[Example], name: str, table: Table) -> list[Prediction]:
    return [
        Prediction(
            image_id=one.image_id, product_id=one.product_id, file=one.image, split="test", truth=one.category,
            decoder=f"baseline:{name}", text=category, n_new_tokens=0, is_finished=True, category=category,
            status="exact", candidates=(category,), log_probabilities=tuple(round(float(v), 6) for v in row),
            latency_s=0.0,
        )
        for one, row in zip(test, table, strict=True)
        for category in [CATEGORIES[int(row.argmax())]]
    ]  # fmt: skip


def main() -> None:
    """Run the stage from the command line."""
    stage.main("baselines", Config, run)


if __name__ == "__main__":
    main()

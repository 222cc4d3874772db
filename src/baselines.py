"""What simple methods reach: a model that does not beat them is not worth its electricity.

On the test images, learnt from the training images, strengths and weights chosen on val:
    majority        the most frequent category of the training images
    name            the product's name alone (TF-IDF of letters and words, logistic regression)
    vision_probe    the untrained model's visual tokens, averaged (logistic regression)
    name_image    the weighted mean of the log-probabilities of the last two
    pack_text       the text on the pack as read_text.py read it, by the reader of `predict.py` (where that was done)
    pack_text_image the weighted mean of the log-probabilities of pack_text and vision_probe
On other test sets, and marked so:
    product_lookup  the category of the same product's other images, on a split by image: what that gives away
    name_folds      the name alone for every product of the catalogue, in five folds that no size of a product crosses

In: clean_dataset/{train,val,test}.json, the catalogue (for names), a model of the hub or a folder.
Out: log/baselines/<name>.jsonl, log/baselines.json, log/finetune/<run>/baselines.json (the model against each, where
it has been trained already; finetune.py writes it too).
Command: python src/baselines.py [--model Qwen/Qwen2-VL-2B-Instruct]
Time: 15 s for the embedded sample on two cores; half a minute more for the names of the real catalogue.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skincare import runlog, stage
from skincare.catalogue import Product, read_products
from skincare.dataset import splitting
from skincare.dataset.chat import Example, read_dataset
from skincare.errors import StageError
from skincare.evaluation import comparison, metrics, names
from skincare.evaluation.calibration import with_temperature
from skincare.evaluation.metrics import Scores
from skincare.inference import predictions
from skincare.inference.classifier import Classifier
from skincare.inference.predictions import Prediction
from skincare.labels import Labels, labels_of
from skincare.modeling.settings import DEFAULT_MODEL, PixelLimits
from skincare.paths import SPLITS, Layout
from skincare.runlog import Summary
from skincare.text_reading import split_reader
from skincare.text_reading.pack_text import read_pack_text

logger = logging.getLogger(__name__)

Table = npt.NDArray[np.float64]

_STRENGTHS: Final = (0.01, 0.1, 1.0, 10.0)
_WEIGHTS: Final = tuple(i / 10 for i in range(11))
_LABELS: Final = {
    "majority": "Most frequent category",
    "name": "Product name alone, without the image",
    "vision_probe": "Linear probe on the untrained model's visual tokens",
    "name_image": "Name and probe together",
    "pack_text": "Text on the pack alone, read by OCR",
    "pack_text_image": "Text on the pack and probe together",
    "product_lookup": "Product looked up, on other test images: a split by image",
    "name_folds": "Product name alone, on the whole catalogue: five folds by product",
}


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """What the stage can be told."""

    goes_on: ClassVar[bool] = False

    model: str = DEFAULT_MODEL
    """Model whose untrained visual tokens are probed."""
    min_tokens: int = 64
    """Least visual tokens of an image (28 x 28 pixels each)."""
    max_tokens: int = 128
    """Most visual tokens of an image."""
    catalogue: Path | None = None
    """Catalogue to read instead of csv_data/skincare_products_clean.csv."""
    seed: int = 0
    """Seed of the split by image and of the folds."""


def run(config: Config, layout: Layout) -> Summary:
    """Fit each baseline on train, choose on val, score on test; then those that have a test set of their own."""
    parts = {split: read_dataset(layout, split) for split in SPLITS}
    labels = labels_of(layout)
    products = read_products(config.catalogue or layout.catalogue, labels).products
    texts = _texts(parts, {one.product_id: one.name for one in products})
    named = _fit(names.name_model, texts, parts, labels)
    probed = _fit(_probe_model, _features(config, layout, parts, labels), parts, labels)
    weight = _choose_weight(named["val"], probed["val"], parts["val"], labels)
    tables = {
        "majority": _majority(parts, labels),
        "name": named["test"],
        "vision_probe": probed["test"],
        "name_image": _fuse(weight, named["test"], probed["test"]),
    }
    if layout.pack_text.is_file():
        read = _read_packs(layout, parts, products, labels)
        weight_of_text = _choose_weight(read["val"], probed["val"], parts["val"], labels)
        tables["pack_text"] = read["test"]
        tables["pack_text_image"] = _fuse(weight_of_text, read["test"], probed["test"])
    else:
        logger.info("pack_text left out: `python src/read_text.py` was not run")
    answers = {name: _predictions(parts["test"], name, table, labels) for name, table in tables.items()}
    answers["product_lookup"] = _look_up(parts, config.seed)
    answers["name_folds"] = _name_folds(products, config.seed, labels)
    scores = {name: metrics.score(some, labels) for name, some in answers.items() if some}
    runlog.take_back_summary("baselines", layout)
    for name, one in scores.items():
        predictions.write_jsonl(layout.baselines / f"{name}.jsonl", answers[name])
        logger.info("%-14s %s", name, metrics.headline(one))
    for run_log in sorted(layout.finetune_log("").glob("*/")):
        comparison.compare_with_baselines(layout, run_log)
    best = max(tables, key=lambda name: scores[name].accuracy)
    return Summary(
        headline=f"best of {len(tables)} baselines on test: {best}, {scores[best].accuracy:.1%}",
        counts={"test images": len(parts["test"])},
        results={
            "model": config.model,
            "weight_of_name": weight,
            "scores": {name: _figures(name, one, is_of_test=name in tables) for name, one in scores.items()},
        },
    )


def _texts(parts: dict[str, list[Example]], name_of: dict[str, str]) -> dict[str, list[str]]:
    """Return each image's product name."""
    unknown = sorted({one.product_id for part in parts.values() for one in part} - name_of.keys())
    if unknown:
        raise StageError(f"{len(unknown)} products are not in the catalogue, such as {unknown[0]}; run clean.py again")
    return {split: [name_of[one.product_id] for one in part] for split, part in parts.items()}


def _read_packs(
    layout: Layout, parts: dict[str, list[Example]], products: Sequence[Product], labels: Labels
) -> dict[str, Table]:
    """Return, for val and test, what a reader says that has learnt from train; even odds for packs without text."""
    texts = read_pack_text(layout.pack_text)
    reader = split_reader.fit_on_train(parts, products, texts, labels)
    tables = {}
    for split in ("val", "test"):
        table, is_read = split_reader.read_packs(reader, parts[split], texts)
        tables[split] = np.where(is_read[:, None], table, -np.log(len(labels)))
    return tables


def _figures(name: str, scores: Scores, *, is_of_test: bool) -> dict[str, Any]:
    """Return a row of the table; `is_of_test`: about the images that the model is tested on."""
    keys = ("n", "n_products", *(f"{key}{end}" for key in ("accuracy", "f1_macro") for end in ("", "_low", "_high")))
    return {"label": _LABELS[name], "is_of_test": is_of_test, **{key: getattr(scores, key) for key in keys}}


def _features(config: Config, layout: Layout, parts: dict[str, list[Example]], labels: Labels) -> dict[str, Table]:
    """Return (images, width) means of the untrained model's visual tokens."""
    limits = PixelLimits(config.min_tokens, config.max_tokens)
    classifier = Classifier.load(config.model, labels, layout.root, limits=limits, n_uncached_blocks=0)
    return {split: _visual_means(classifier, [one.image for one in part]) for split, part in parts.items()}


def _visual_means(classifier: Classifier, images: Sequence[str]) -> Table:
    classifier.features.fill(images)
    rows = []
    for image in images:
        tokens = classifier.network.visual_tokens(*classifier.features.get([image]))
        rows.append(tokens.float().mean(dim=0).cpu().numpy())
    return np.stack(rows).astype(np.float64)


def _majority(parts: dict[str, list[Example]], labels: Labels) -> Table:
    counts = Counter(one.category for one in parts["train"])
    row = [np.log(counts[name] / counts.total()) if counts[name] else names.NEVER for name in labels.names]
    return np.tile(np.array(row), (len(parts["test"]), 1))


def _probe_model(strength: float) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1 * strength, max_iter=2000))


def _fit(make: Any, inputs: dict[str, Any], parts: dict[str, list[Example]], labels: Labels) -> dict[str, Table]:
    """Return, for val and test, (images, n_labels) log-probabilities of the model that does best on val."""
    truths = {split: [one.category for one in part] for split, part in parts.items()}
    fitted = [make(strength).fit(inputs["train"], truths["train"]) for strength in _STRENGTHS]
    best = max(fitted, key=lambda one: one.score(inputs["val"], truths["val"]))
    return {split: names.log_probabilities(best, inputs[split], labels) for split in ("val", "test")}


def _choose_weight(named: Table, probed: Table, val: Sequence[Example], labels: Labels) -> float:
    """Return the name's weight under which the truths of val are likeliest."""
    truths = [labels.index(one.category) for one in val]
    return max(_WEIGHTS, key=lambda weight: float(_fuse(weight, named, probed)[np.arange(len(truths)), truths].mean()))


def _fuse(weight: float, named: Table, probed: Table) -> Table:
    return with_temperature(weight * named + (1 - weight) * probed, 1.0)


def _look_up(parts: dict[str, list[Example]], seed: int) -> list[Prediction]:
    """Answer about a fifth of all images, drawn by image as the reference did, with their products' categories."""
    images = {one.image_id: one for part in parts.values() for one in part}
    test_ids = splitting.split_by_image(list(images), seed)
    train = [one for one in images.values() if one.image_id not in test_ids]
    categories = {one.product_id: one.category for one in sorted(train, key=lambda one: one.image_id)}
    frequent = min(Counter(one.category for one in train).items(), key=lambda item: (-item[1], item[0]))[0]
    return [
        _prediction(one, "product_lookup", categories.get(one.product_id, frequent), ())
        for one in images.values()
        if one.image_id in test_ids
    ]


def _name_folds(products: Sequence[Product], seed: int, labels: Labels) -> list[Prediction]:
    """Answer about every product of the catalogue; nothing where it is too small for folds."""
    table = names.cross_validate(products, seed, labels)
    if table is None:
        logger.info("name_folds left out: a category of the catalogue has fewer than %d products", names.N_FOLDS)
        return []
    # A product is one name, not one image.
    shown = [Example("", one.category, one.product_id, one.product_id, labels.question) for one in products]
    return _predictions(shown, "name_folds", table, labels)


def _predictions(examples: Sequence[Example], name: str, table: Table, labels: Labels) -> list[Prediction]:
    return [
        # Even odds are how a pack without text stands in the table: no answer.
        _prediction(
            one, name, None if name == "pack_text" and not np.ptp(row) else labels.names[int(row.argmax())], row
        )
        for one, row in zip(examples, table, strict=True)
    ]


def _prediction(one: Example, name: str, category: str | None, row: Sequence[float] | Table) -> Prediction:
    return Prediction(
        image_id=one.image_id, product_id=one.product_id, file=one.image, split="test", truth=one.category,
        decoder=f"baseline:{name}", text=category or "", n_new_tokens=0, is_finished=True, category=category,
        status="exact" if category else "empty", candidates=(category,) if category else (),
        log_probabilities=tuple(round(float(v), 6) for v in row), latency_s=0.0,
    )  # fmt: skip


def main() -> None:
    """Run the stage from the command line."""
    stage.main("baselines", Config, run)


if __name__ == "__main__":
    main()

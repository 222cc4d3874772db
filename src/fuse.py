"""Fuse a fine-tuned model with the reader of packs; compare both, the fusion and a model of the product's name.

In: a run of finetune.py (log/finetune/<run>/{val_ranked,test_ranked,test_predictions}.jsonl), the dataset, the
catalogue, clean_dataset/annotations/pack_text.jsonl.
Out: models/finetuned/<run>/{fusion.json,reader/}, used by `predict.py --by fused`;
log/finetune/<run>/{test_reader.jsonl,test_fused.jsonl,fusion.json}, which the report shows. Of structured answers:
product_fusion.json in both folders, the reader, and test_fused.jsonl, which score_products.py scores.
Command: python src/fuse.py [--run NAME]
Time: some seconds; no model is loaded.

The weights are fitted on val; test is read once. The reader is fitted without any name or text of the products of val
and test. It differs from the reader of `predict.py --by reader`, which is fitted on the whole catalogue.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from skincare import runlog, stage
from skincare.catalogue import read_products
from skincare.dataset.chat import Example, read_dataset, target_of_examples
from skincare.errors import MissingInputError, StageError
from skincare.evaluation import calibration, comparison, fusion, metrics
from skincare.evaluation.calibration import LogProbabilities, Mask
from skincare.files import write_json
from skincare.inference import fused_products, predictions, split_products
from skincare.inference.predictions import Prediction
from skincare.labels import Labels, labels_of
from skincare.paths import SPLITS, Layout
from skincare.runlog import Summary
from skincare.text_reading import split_reader
from skincare.text_reading.pack_text import PackText, read_pack_text
from skincare.text_reading.reader import Reader

logger = logging.getLogger(__name__)

_LABELS: Final = {
    "reader": "The reader alone: text on the pack",
    "model": "The model alone",
    "fused": "Model and reader fused",
    "name": "The product's name in the catalogue alone",
}
_INTERVAL: Final = ("accuracy", "accuracy_low", "accuracy_high")
# Pairs (before, after), on the same images.
_COMPARED: Final = (("reader", "model"), ("model", "fused"), ("reader", "fused"), ("reader", "name"))


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """Options of the stage."""

    run: str = ""
    """Run of finetune.py; by default the last one."""
    catalogue: Path | None = None
    """Catalogue to read instead of csv_data/skincare_products_clean.csv."""


@dataclass(frozen=True)
class _SplitTables:
    """Log-probabilities of both for the images of a split; the model's predictions in the order of the rows."""

    ranked: list[Prediction]
    model: LogProbabilities
    reader: LogProbabilities
    is_read: Mask
    truths: calibration.ClassIndices


def run(config: Config, layout: Layout) -> Summary:
    """Fit on val, score on test, write the weights into the model's folder."""
    name = config.run or runlog.last_training_run(layout)
    log, folder = layout.finetune_log(name), layout.finetuned_model(name)
    parts = {split: read_dataset(layout, split) for split in SPLITS}
    texts, labels = read_pack_text(layout.pack_text), labels_of(layout)
    products = read_products(config.catalogue or layout.catalogue, labels).products
    if target_of_examples(one for part in parts.values() for one in part) == "product":
        packs = split_products.fit_on_train(parts, products, texts, labels)
        results = fused_products.fuse_run(layout, name, parts, packs, texts)
        return _products_summary(results, len(parts["val"]), len(parts["test"]))
    reader = split_reader.fit_on_train(parts, products, texts, labels)
    val, test = (_split_tables(log / f"{split}_ranked.jsonl", parts[split], reader, texts) for split in ("val", "test"))
    weights = fusion.fit(val.model, val.reader, val.is_read, val.truths)
    fused = fusion.fuse(weights, test.model, test.reader, test.is_read)
    predicted = {
        "reader": _predictions(test.ranked, "reader", test.reader, labels, test.is_read),
        "model": predictions.read_jsonl(log / "test_predictions.jsonl", labels),
        "fused": _predictions(test.ranked, "fused", fused, labels),
        **_named(layout, test.ranked, labels),
    }
    for kind in ("reader", "fused"):
        predictions.write_jsonl(log / f"test_{kind}.jsonl", predicted[kind])
    results = _results(predicted, val, test, fused, labels)
    reader.save(folder / fusion.READER_FOLDER)
    labels.write(folder / fusion.READER_FOLDER)
    fusion.write(
        folder, weights, decoder=test.ranked[0].decoder, n_val=len(val.truths), ocr=_engine(texts),
        wanted=_thresholds(weights, val),
    )  # fmt: skip
    write_json(log / "fusion.json", {"run": name, "weights": vars(weights), **results})
    for row in results["rows"]:
        logger.info("%-45s %5.1f %% (%.1f to %.1f)", row["label"], *(100 * row[key] for key in _INTERVAL))
    accuracy = {row["name"]: row["accuracy"] for row in results["rows"]}
    return Summary(
        headline=f"fused {accuracy['fused']:.1%} on test, model {accuracy['model']:.1%}, "
        f"reader {accuracy['reader']:.1%}; weights of model {weights.model:.2f} and reader {weights.reader:.2f}, "
        f"of the model where nothing is read {weights.model_alone:.2f}",
        counts={"test images read": int(test.is_read.sum()), "test images not read": int((~test.is_read).sum())},
        results={"run": name, "weights": vars(weights)},
    )


def _products_summary(results: Mapping[str, Any], n_val: int, n_test: int) -> Summary:
    """Return the summary of a fusion of structured answers."""
    for name in ("model", "reader"):
        found = results[f"fused_minus_{name}"]
        ends = (found[key] for key in ("difference", "low", "high", "products_p"))
        logger.info("document ANLS*, fused minus %s: %+.3f (%+.3f to %+.3f), p %.2g", name, *ends)
    documents = ", ".join(f"{name} {value:.3f}" for name, value in results["document"].items())
    return Summary(
        headline=f"document ANLS* on test: {documents}",
        counts={"val images": n_val, "test images": n_test},
        results=results,
    )


def _split_tables(
    file: Path, examples: Sequence[Example], reader: Reader, texts: Mapping[str, PackText]
) -> _SplitTables:
    """Return the tables of a split; raises StageError if the run's predictions are on other images."""
    if not file.is_file():
        raise MissingInputError("ranked predictions of the run", file, "Train it again with `python src/finetune.py`.")
    # Sorted, as `as_arrays` sorts.
    ranked = sorted(predictions.read_jsonl(file, reader.labels), key=lambda one: one.image_id)
    examples = sorted(examples, key=lambda one: one.image_id)
    if [(one.image_id, one.truth) for one in ranked] != [(one.image_id, one.category) for one in examples]:
        raise StageError(f"{file}: predictions on other images than the dataset's; run `python src/finetune.py` again")
    table, truths = calibration.as_arrays(ranked, reader.labels)
    return _SplitTables(ranked, table, *split_reader.read_packs(reader, examples, texts), truths)


def _predictions(
    ranked: Sequence[Prediction], kind: str, table: LogProbabilities, labels: Labels, is_read: Mask | None = None
) -> list[Prediction]:
    """Return a prediction for each image: the most likely category, none for an image without text."""
    predicted = []
    for i, (one, row) in enumerate(zip(ranked, table, strict=True)):
        category = labels.names[int(row.argmax())] if is_read is None or is_read[i] else None
        predicted.append(
            replace(
                one, decoder=kind, text=category or "", category=category, status="exact" if category else "empty",
                candidates=(category,) if category else (), log_probabilities=tuple(round(float(v), 6) for v in row),
                n_new_tokens=0, latency_s=0.0, cache_key="", hint="",
            )
        )  # fmt: skip
    return predicted


def _named(layout: Layout, ranked: Sequence[Prediction], labels: Labels) -> dict[str, list[Prediction]]:
    """Return the predictions of the name baseline on the same images, if baselines.py was run."""
    file = layout.baselines / "name.jsonl"
    found = predictions.read_jsonl(file, labels) if file.is_file() else []
    return {"name": found} if found and comparison.have_same_images(found, ranked) else {}


def _results(
    predicted: Mapping[str, list[Prediction]],
    val: _SplitTables,
    test: _SplitTables,
    fused: LogProbabilities,
    labels: Labels,
) -> dict[str, Any]:
    """Return the scores and the paired comparisons, as the report shows them."""
    scores = {name: metrics.score(found, labels) for name, found in predicted.items()}
    keys = ("n", "n_products", *_INTERVAL, "f1_macro", "f1_macro_low", "f1_macro_high", "coverage")
    bins = {"model": test.model, "fused": fused}
    return {
        "n_val": len(val.truths),
        "n_test_read": int(test.is_read.sum()),
        "rows": [
            {"name": name, "label": _LABELS[name], **{key: getattr(one, key) for key in keys}}
            for name, one in scores.items()
        ],
        "comparisons": [
            {"before": one, "after": other, **metrics.to_json(comparison.compare(predicted[one], predicted[other]))}
            for one, other in _COMPARED
            if other in predicted
        ],
        "expected_calibration_error": {
            name: calibration.expected_calibration_error(calibration.reliability(table, test.truths))
            for name, table in bins.items()
        },
    }


def _thresholds(weights: fusion.Fusion, val: _SplitTables) -> list[dict[str, float | None]]:
    """Return the abstention threshold for each accepted error rate, selected on val; None if none qualifies."""
    fused = fusion.fuse(weights, val.model, val.reader, val.is_read)
    top1 = calibration.top1(fused, val.truths)
    chosen = {risk: calibration.threshold_for_risk(*top1, risk) for risk in calibration.ERROR_RATES}
    return [{"wanted_risk": risk, "threshold": one.threshold if one else None} for risk, one in chosen.items()]


def _engine(texts: Mapping[str, PackText]) -> str:
    """Return the names of the OCR engines that read the packs."""
    return "; ".join(sorted({one.engine for one in texts.values()}))


def main() -> None:
    """Run the stage from the command line."""
    stage.main("fuse", Config, run)


if __name__ == "__main__":
    main()

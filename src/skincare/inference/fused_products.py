"""Fusion of a run's structured answers with the reader's: fitted on val, tested once, kept with the model."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from skincare.dataset.chat import Example
from skincare.errors import MissingInputError
from skincare.evaluation import fusion, product_fusion, product_metrics
from skincare.evaluation.product_fusion import FieldAnswer, FieldFusion
from skincare.evaluation.product_metrics import ScoredProduct
from skincare.files import write_json, write_text
from skincare.inference import split_products
from skincare.inference.product_answers import holds_structured_answers, read_answers
from skincare.inference.structured_answers import with_label
from skincare.labels import Labels
from skincare.paths import Layout
from skincare.product import store
from skincare.product.facts import ProductFacts
from skincare.text_reading.pack_products import PackProducts
from skincare.text_reading.pack_text import PackText

# Kind of system, model or reader -> its answers about the images of a split.
Systems = dict[str, list[ScoredProduct]]


def fuse_run(
    layout: Layout, run: str, parts: Mapping[str, Sequence[Example]], packs: PackProducts, texts: Mapping[str, PackText]
) -> dict[str, Any]:
    """Fit on val, answer for test, and write fusion, reader and answers; return scores and paired comparisons.

    Raises MissingInputError without structured answers of the run or without facts.
    """
    log, folder = layout.finetune_log(run), layout.finetuned_model(run)
    facts = store.read_products(layout.product_facts)
    val, test = (_systems(log, split, parts[split], packs, texts, facts) for split in ("val", "test"))
    labels = packs.reader.labels
    fitted = product_fusion.fit(_labelled(val["model"], labels), val["reader"])
    fused = [fuse_scored(fitted, *pair) for pair in zip(_labelled(test["model"], labels), test["reader"], strict=True)]
    write_answers(log / "test_fused.jsonl", "test", fused)
    packs.save(folder / fusion.READER_FOLDER)
    engines = "; ".join(sorted({one.engine for one in texts.values()}))
    product_fusion.write(folder, fitted, n_val=len(parts["val"]), ocr=engines)
    results = {
        "run": run,
        "document": {kind: product_metrics.score(found).document for kind, found in (*test.items(), ("fused", fused))},
        **{
            f"fused_minus_{kind}": asdict(product_metrics.compare_documents(found, fused))
            for kind, found in test.items()
        },
        "thresholds": {name: one.threshold for name, one in fitted.items()},
    }
    write_json(log / product_fusion.FILE, results)
    return results


def _systems(
    log: Path, split: str, examples: Sequence[Example], packs: PackProducts, texts: Mapping[str, PackText],
    facts: Mapping[str, ProductFacts],
) -> Systems:  # fmt: skip
    file = log / f"{split}_predictions.jsonl"
    if not holds_structured_answers(file, split):
        raise MissingInputError("structured answers of the run", file, "Train it with `python src/finetune.py`.")
    answers = {
        "model": read_answers(file, [one.image_id for one in examples]),
        "reader": split_products.answers(packs, examples, texts, abstains=False),
    }
    return {kind: split_products.scored_products(examples, facts, found) for kind, found in answers.items()}


def _labelled(answers: Sequence[ScoredProduct], labels: Labels) -> list[ScoredProduct]:
    """Return a model's answers with labels as categories, as `FusedProductPredictor` fuses them."""
    return [replace(one, predicted=one.predicted and with_label(one.predicted, labels)) for one in answers]


def fuse_scored(fitted: Mapping[str, FieldFusion], model: ScoredProduct, reader: ScoredProduct) -> ScoredProduct:
    """Return the fused answer about an image, with the confidences of the values that it keeps."""
    fused = product_fusion.fuse(
        fitted, FieldAnswer(model.predicted, model.confidences), FieldAnswer(reader.predicted, reader.confidences)
    )
    kept = {name: p for name, p in fused.confidences.items() if getattr(fused.product, name) is not None}
    return replace(model, predicted=fused.product, status="valid", confidences=kept)


def write_answers(path: Path, split: str, answers: Sequence[ScoredProduct]) -> None:
    """Write answers as `product_answers.read_answers` reads them."""
    lines = [
        {
            "image_id": one.image_id,
            "split": split,
            "target": "product",
            "text": one.predicted.to_json() if one.predicted else "",
            "field_log_probabilities": {name: math.log(p) for name, p in one.confidences.items()},
        }
        for one in answers
    ]
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

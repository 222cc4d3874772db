"""Score structured answers by field against the known facts of the products.

- In: clean_dataset/{train,val,test}.json, clean_dataset/annotations/products.jsonl (product_facts.py) and the answers
  of each system that has any: `reader`, the rules over clean_dataset/annotations/pack_text.jsonl (read_text.py);
  `zero_shot` and `finetuned`, log/zero_shot/predictions.jsonl and log/finetune/<run>/<split>_predictions.jsonl of a
  dataset of build_dataset.py --target product; `fused`, log/finetune/<run>/<split>_fused.jsonl (fuse.py); `model`,
  with --answers a JSON Lines file of any system's texts, `{"image_id": "11396687_1", "answer": "{\\"brand\\": ..."}`.
  `majority` gives the commonest values of train.
- Out: log/products/<system>.jsonl (one parsed answer per image, with `confidences` where the system has them),
  plots/product_calibration.png and log/score_products.json. Its results hold, per system, precision, recall and F1 of
  each field with intervals over products, by kind of error (`fields`), and per field the calibration of the confidences
  (`calibration`); `<later>_minus_<earlier>`: per field the paired difference of two systems' shares of right answers,
  and `document`, that of their mean ANLS* of whole answers. A value of a field that the facts state to be absent counts
  as invented; a field of which they state nothing is not scored.
- Command: python src/score_products.py [--answers answers.jsonl] [--run NAME]
- Time: seconds; no model, no images.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from skincare import runlog, stage
from skincare.catalogue import read_products
from skincare.dataset.chat import Example, read_dataset
from skincare.errors import StageError
from skincare.evaluation import field_calibration, field_calibration_plot, product_metrics
from skincare.evaluation.product_metrics import DOCUMENT, FieldScores, ScoredProduct
from skincare.files import write_text
from skincare.inference import split_products
from skincare.inference.product_answers import ProductAnswer, holds_structured_answers, read_answers
from skincare.labels import labels_of
from skincare.paths import SPLITS, Layout
from skincare.product import store
from skincare.product.facts import ProductFacts
from skincare.product.json_answers import ParsedProduct
from skincare.product.majority import majority_product
from skincare.product.schema import Product
from skincare.runlog import Summary
from skincare.text_reading.pack_text import read_pack_text

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """Options of the stage."""

    answers: Path | None = None
    """JSON Lines with the `image_id` and the `answer` of each image of the split."""
    run: str = ""
    """Run of finetune.py whose answers are scored; the last one by default."""
    split: str = "test"
    """Split to score; selection must use val."""


def run(config: Config, layout: Layout) -> Summary:
    """Score every system that has answers, and compare them in pairs."""
    if config.split not in SPLITS:
        raise StageError(f"--split {config.split} is none of {', '.join(SPLITS)}")
    parts = {split: read_dataset(layout, split) for split in SPLITS}
    examples = parts[config.split]
    facts = store.read_products(layout.product_facts)
    answers = _systems(config, layout, parts, facts)
    runlog.remove_summary("score_products", layout)
    scored = {name: split_products.scored_products(examples, facts, found) for name, found in answers.items()}
    for name, found in scored.items():
        write_text(layout.product_answers(name), "".join(_line(one) for one in found))
    scores = {name: product_metrics.score(found) for name, found in scored.items()}
    for name, one in scores.items():
        logger.info("%s: document ANLS* %.3f\n%s", name, one.document, table(one.fields))
    results: dict[str, Any] = {name: asdict(one) for name, one in scores.items()}
    calibrations = {
        name: field_calibration.calibrate(found)
        for name, found in scored.items()
        if any(one.confidences for one in found)
    }
    for name, calibration in calibrations.items():
        results[name]["calibration"] = [asdict(field) for field in calibration]
    field_calibration_plot.draw_field_calibration(calibrations, layout.plot("product_calibration"))
    for earlier, later in combinations(scored, 2):
        paired = product_metrics.compare(scored[earlier], scored[later])
        paired[DOCUMENT] = product_metrics.compare_documents(scored[earlier], scored[later])
        results[f"{later}_minus_{earlier}"] = {field: asdict(one) for field, one in paired.items()}
    documents = ", ".join(f"{name} {one.document:.3f}" for name, one in scores.items())
    return Summary(
        headline=f"{len(examples)} images of {config.split}; document ANLS*: {documents}",
        counts={"images": len(examples)},
        results={"split": config.split, "systems": list(scored), **results},
    )


def _systems(
    config: Config, layout: Layout, parts: Mapping[str, Sequence[Example]], facts: Mapping[str, ProductFacts]
) -> dict[str, dict[str, ProductAnswer]]:
    """Return system -> image id -> answer, the baselines first."""
    examples = parts[config.split]
    image_ids = [one.image_id for one in examples]
    files = {"zero_shot": layout.zero_shot / "predictions.jsonl"}
    if config.run or layout.summary("finetune").is_file():
        log = layout.finetune_log(config.run or runlog.last_training_run(layout))
        files["finetuned"] = log / f"{config.split}_predictions.jsonl"
        files["fused"] = log / f"{config.split}_fused.jsonl"
    files = {name: path for name, path in files.items() if holds_structured_answers(path, config.split)}
    if config.run and "finetuned" not in files:
        raise StageError(f"--run {config.run}: no structured answers in {layout.finetune_log(config.run)}")
    if config.answers:
        files["model"] = config.answers
    train = sorted({one.product_id for one in parts["train"]} & set(facts))
    majority = ProductAnswer(ParsedProduct(majority_product([facts[one] for one in train]), "valid", {}))
    systems = {"majority": dict.fromkeys(image_ids, majority)}
    if not files or layout.pack_text.is_file():
        systems["reader"] = _read_packs(layout, parts, examples)
    else:
        logger.info("No %s: the reader is not scored. read_text.py writes it.", layout.pack_text)
    systems |= {name: read_answers(path, image_ids) for name, path in files.items()}
    return systems


def table(fields: Sequence[FieldScores]) -> str:
    """Return the scores of the fields whose truth is known, one line each; invented: of the images without a value."""
    lines = [f"{'field':18} known  precision  recall  {'F1 (95 % interval)':19}  invented"]
    for one in fields:
        if one.n_known or one.n_absent:
            interval = "" if one.f1_low is None else f" ({one.f1_low:.2f} to {one.f1_high:.2f})"
            cells = [f"{value:.2f}" if value is not None else "-" for value in (one.precision, one.recall, one.f1)]
            f1, invented = f"{cells[2]:>4}{interval}", f"{one.invented} of {one.n_absent}" if one.n_absent else "-"
            lines.append(f"{one.field:18} {one.n_known:5}  {cells[0]:>9}  {cells[1]:>6}  {f1:19}  {invented}")
    return "\n".join(lines)


def _read_packs(
    layout: Layout, parts: Mapping[str, Sequence[Example]], examples: Sequence[Example]
) -> dict[str, ProductAnswer]:
    """Return the reader's answers; it is fitted without the products of val and test."""
    labels, texts = labels_of(layout), read_pack_text(layout.pack_text)
    products = read_products(layout.catalogue, labels).products
    return split_products.answers(split_products.fit_on_train(parts, products, texts, labels), examples, texts)


def _line(one: ScoredProduct) -> str:
    values = {
        "image_id": one.image_id,
        "status": one.status,
        "product": (one.predicted or Product()).model_dump(mode="json"),
        "truth": one.truth.model_dump(mode="json"),
        **({"absent": sorted(one.absent)} if one.absent else {}),
        **({"confidences": {name: round(p, 6) for name, p in one.confidences.items()}} if one.confidences else {}),
    }
    return json.dumps(values, ensure_ascii=False) + "\n"


def main() -> None:
    """Run the stage from the command line."""
    stage.main("score_products", Config, run)


if __name__ == "__main__":
    main()

"""Score structured answers field by field against what is known of the products.

- In: clean_dataset/{train,val,test}.json, clean_dataset/annotations/products.jsonl (product_facts.py) and, for the
  rule-based reader, clean_dataset/annotations/pack_text.jsonl (read_text.py); with --answers a JSON Lines file of a
  model's texts, `{"image_id": "11396687_1", "answer": "{\\"brand\\": ..."}`.
- Out: log/products/<name>.jsonl (one parsed answer per image) and log/score_products.json: per field precision,
  recall and F1 with intervals over products, by kind of error; with --answers also the paired difference to the reader.
- Command: python src/score_products.py [--answers answers.jsonl]
- Time: seconds; no model, no images.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from skincare import runlog, stage
from skincare.catalogue import read_products
from skincare.dataset.chat import Example, read_dataset
from skincare.errors import StageError
from skincare.evaluation import product_metrics
from skincare.evaluation.product_metrics import FieldScores, ScoredProduct
from skincare.files import write_text
from skincare.inference.product_predictor import known_brands_reader
from skincare.labels import labels_of
from skincare.paths import SPLITS, Layout
from skincare.product import store
from skincare.product.facts import ProductFacts
from skincare.product.json_answers import ParsedProduct, parse_product
from skincare.product.schema import Product
from skincare.product.sizes import name_family
from skincare.runlog import Summary
from skincare.text_reading import split_reader
from skincare.text_reading.pack_text import read_pack_text

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """The command line of the stage."""

    answers: Path | None = None
    """JSON Lines with the `image_id` and the `answer` of each image of the split."""
    split: str = "test"
    """The split whose images are scored; choices are made on val."""


def run(config: Config, layout: Layout) -> Summary:
    """Score the reader, and a model's answers if there are any."""
    if config.split not in SPLITS:
        raise StageError(f"--split {config.split} is none of {', '.join(SPLITS)}")
    parts = {split: read_dataset(layout, split) for split in SPLITS}
    examples = parts[config.split]
    facts = store.read_products(layout.product_facts)
    answers = {"reader": _read_packs(layout, parts, examples)}
    if config.answers:
        answers["model"] = _read_answers(config.answers, examples)
    runlog.remove_summary("score_products", layout)
    scored = {name: scored_products(examples, facts, found) for name, found in answers.items()}
    for name, found in scored.items():
        write_text(layout.product_answers(name), "".join(_line(one) for one in found))
    scores = {name: product_metrics.score(found) for name, found in scored.items()}
    for name, one in scores.items():
        logger.info("%s: document ANLS* %.3f\n%s", name, one.document, table(one.fields))
    results: dict[str, Any] = {name: asdict(one) for name, one in scores.items()}
    if config.answers:
        paired = product_metrics.compare(scored["reader"], scored["model"])
        results["model_minus_reader"] = {field: asdict(one) for field, one in paired.items()}
    documents = ", ".join(f"{name} {one.document:.3f}" for name, one in scores.items())
    return Summary(
        headline=f"{len(examples)} images of {config.split}; document ANLS*: {documents}",
        counts={"images": len(examples)},
        results={"split": config.split, **results},
    )


def scored_products(
    examples: Sequence[Example], facts: Mapping[str, ProductFacts], answers: Mapping[str, ParsedProduct]
) -> list[ScoredProduct]:
    """Return the answers with their truths; raises StageError for a product whose facts are unknown."""
    absent = sorted({one.product_id for one in examples} - set(facts))
    if absent:
        raise StageError(f"No facts of {len(absent)} products, such as {absent[0]}\nRun `python src/product_facts.py`.")
    return [
        ScoredProduct(
            one.image_id, one.product_id, facts[one.product_id].product, answers[one.image_id].product,
            answers[one.image_id].status,
        )
        for one in examples
    ]  # fmt: skip


def table(fields: Sequence[FieldScores]) -> str:
    """Return the scores of the fields whose truth is known, one line each."""
    lines = [f"{'field':18} known  precision  recall  F1 (95 % interval)"]
    for one in fields:
        if one.n_known:
            interval = "" if one.f1_low is None else f" ({one.f1_low:.2f} to {one.f1_high:.2f})"
            cells = [f"{value:.2f}" if value is not None else "-" for value in (one.precision, one.recall, one.f1)]
            lines.append(f"{one.field:18} {one.n_known:5}  {cells[0]:>9}  {cells[1]:>6}  {cells[2]:>4}{interval}")
    return "\n".join(lines)


def _read_packs(
    layout: Layout, parts: Mapping[str, Sequence[Example]], examples: Sequence[Example]
) -> dict[str, ParsedProduct]:
    """Return the reader's answers; neither its categories nor its brands know a product of val or test."""
    labels, texts = labels_of(layout), read_pack_text(layout.pack_text)
    products = read_products(layout.catalogue, labels).products
    reader = split_reader.fit_on_train(parts, products, texts, labels)
    split_reader.read_packs(reader, examples, texts)  # raises where a pack was not read
    held_out = {one.product_id for split, part in parts.items() if split != "train" for one in part}
    families = {name_family(one.name) for one in products if one.product_id in held_out}
    rules = known_brands_reader([one.name for one in products if name_family(one.name) not in families])
    found = {}
    for one in examples:
        pack = texts[one.image_id]
        read = reader.predict(pack.lines, pack.other_script)
        category = read.label if read.status == "read" else None
        found[one.image_id] = ParsedProduct(rules.read(pack.lines, category), "valid", {})
    return found


def _read_answers(path: Path, examples: Sequence[Example]) -> dict[str, ParsedProduct]:
    """Return the parsed answers of a file; raises StageError for a malformed line or an image without an answer."""
    found: dict[str, ParsedProduct] = {}
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise StageError(f"{path}: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                values = json.loads(line)
                found[str(values["image_id"])] = parse_product(str(values["answer"]))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise StageError(f"{path}, line {number}: no image_id with an answer ({error})") from error
    absent = [one.image_id for one in examples if one.image_id not in found]
    if absent:
        raise StageError(f"{path}: no answer about {len(absent)} of {len(examples)} images, such as {absent[0]}")
    return found


def _line(one: ScoredProduct) -> str:
    values = {
        "image_id": one.image_id,
        "status": one.status,
        "product": (one.predicted or Product()).model_dump(mode="json"),
        "truth": one.truth.model_dump(mode="json"),
    }
    return json.dumps(values, ensure_ascii=False) + "\n"


def main() -> None:
    """Run the stage from the command line."""
    stage.main("score_products", Config, run)


if __name__ == "__main__":
    main()

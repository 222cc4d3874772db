"""Show where the fine-tuned model looks: which parts of a test image speak for the true category, which against it.

In: the run of log/finetune.json, its model and log/finetune/<run>/test_ranked.jsonl, the test images.
Out: plots/explain/<image>.jpg (mistakes first), log/explain.json; on the sample also how much of what speaks for the
truth lies in the drawn product's box, for both methods and a shuffled control.
Command: python src/explain.py [--method lens]
Time: 10 s for the embedded sample on two cores.
"""

import io
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import tyro
from tqdm import tqdm

from skincare import images, runlog, stage
from skincare.errors import MissingInputError
from skincare.evaluation import intervals
from skincare.files import write_bytes
from skincare.inference import predictions, saliency
from skincare.inference.classifier import Classifier
from skincare.inference.predictions import Prediction
from skincare.inference.saliency import Method, Saliency
from skincare.labels import Labels, labels_of
from skincare.paths import Layout
from skincare.runlog import Summary
from skincare.sample.boxes import product_boxes

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """What the stage can be told."""

    goes_on: ClassVar[bool] = False

    method: Method = "gradient"
    """What the overlays show; both are measured."""
    n_images: Annotated[int, tyro.conf.arg(aliases=("--n-pictures",))] = 24
    """Overlays to draw; mistakes come first, the surest of them first."""
    batch_size: int = 16
    """Images per pass; it does not change the result."""
    seed: int = 0
    """Seed of the shuffled control and of the intervals."""


def run(config: Config, layout: Layout) -> Summary:
    """Explain, draw, measure."""
    if not layout.summary("finetune").is_file():
        raise MissingInputError("finished run", layout.summary("finetune"), "Run `python src/finetune.py` first.")
    name = json.loads(layout.summary("finetune").read_text(encoding="utf-8"))["results"]["run"]
    labels = labels_of(layout)
    ranked = predictions.read_jsonl(layout.finetune_log(name) / "test_ranked.jsonl", labels)
    ranked.sort(key=lambda one: (one.category == one.truth, -max(one.log_probabilities)))
    boxes = product_boxes(layout, {one.image_id for one in ranked})
    asked = ranked if boxes else ranked[: config.n_images]
    classifier = Classifier.load(layout.finetuned_model(name), labels, layout.root, vision_cache=layout.vision_cache)
    found = _explain(classifier, asked, config.batch_size)
    shown = list(zip(asked, found, strict=True))[: config.n_images]
    runlog.take_back_summary("explain", layout)
    for one, saliency_of in shown:
        _draw(layout, one, saliency_of, config.method)
    overlap = _overlap(asked, found, boxes, config.seed) if boxes else {}
    for label, row in overlap.items():
        logger.info("%-8s %.1f %% inside the product", label, 100 * row["inside"])
    return Summary(
        headline=f"{len(shown)} overlays of {len(asked)} images explained, in {layout.overlay('').parent}",
        counts={"images": len(asked), "overlays": len(shown)},
        results={
            "run": name,
            "method": config.method,
            "overlap": overlap,
            "images": [
                {
                    "image_id": one.image_id,
                    "truth": one.truth,
                    "rival": _rival(one, labels),
                    "contrast": saliency_of.contrast,
                }
                for one, saliency_of in shown
            ],
        },
    )


def _rival(one: Prediction, labels: Labels) -> str:
    """Return the likeliest name that is not the true one: what a mistake said."""
    return max(
        (name for name in labels.names if name != one.truth),
        key=lambda name: one.log_probabilities[labels.index(name)],
    )


def _explain(classifier: Classifier, asked: Sequence[Prediction], batch_size: int) -> list[Saliency]:
    found: list[Saliency] = []
    with tqdm(total=len(asked), unit="image", desc="explain", disable=None) as bar:
        for start in range(0, len(asked), batch_size):
            some = asked[start : start + batch_size]
            grids, states = classifier.features.get([one.file for one in some])
            truths, rivals = [one.truth for one in some], [_rival(one, classifier.labels) for one in some]
            hints = [one.hint for one in some]
            found += saliency.explain(classifier.network, classifier.encoder, grids, states, truths, rivals, hints)
            bar.update(len(some))
    return found


def _draw(layout: Layout, one: Prediction, found: Saliency, method: Method) -> None:
    image = images.decode((layout.root / one.file).read_bytes())
    buffer = io.BytesIO()
    saliency.overlay(image, found.maps[method]).save(buffer, "JPEG", quality=85)
    write_bytes(layout.overlay(one.image_id), buffer.getvalue())


def _overlap(
    asked: Sequence[Prediction], found: Sequence[Saliency], boxes: dict[str, saliency.BoxShares], seed: int
) -> dict[str, Any]:
    """Return per method, for shuffled maps and for the bare area the mean share inside the product, with intervals."""
    rng = np.random.default_rng(seed)
    inside: dict[str, list[float]] = {label: [] for label in (*saliency.METHODS, "shuffled", "area")}
    points: dict[str, list[float]] = {label: [] for label in inside}
    for one, saliency_of in zip(asked, found, strict=True):
        maps: dict[str, saliency.Map] = {label: values for label, values in saliency_of.maps.items()}  # noqa: C416
        cover = saliency.cover(maps["gradient"].shape, boxes[one.image_id])
        maps["shuffled"] = rng.permutation(maps["gradient"].ravel()).reshape(cover.shape)
        for label, values in maps.items():
            inside[label].append(saliency.share_inside(values, cover))
            points[label].append(float(saliency.points_inside(values, cover)))
        inside["area"].append(float(cover.mean()))
        points["area"].append(float((cover > 0.5).mean()))
    products = [one.product_id for one in asked]
    return {label: _means(inside[label], points[label], products, seed) for label in inside}


def _means(inside: list[float], points: list[float], products: list[str], seed: int) -> dict[str, Any]:
    """Return the means over images; intervals draw products."""
    names = sorted(set(products))
    member = np.array([[float(product == name) for product in products] for name in names])
    draws = intervals.draw_products(len(names), seed, 2000)
    row: dict[str, Any] = {"n": len(products), "n_products": len(names)}
    for label, values in (("inside", inside), ("pointing", points)):
        low, high = intervals.share_interval(member @ np.array(values), member.sum(axis=1), draws) or (0.0, 1.0)
        row |= {label: float(np.mean(values)), f"{label}_low": low, f"{label}_high": high}
    return row


def main() -> None:
    """Run the stage from the command line."""
    stage.main("explain", Config, run)


if __name__ == "__main__":
    main()

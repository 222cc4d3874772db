"""Explain predictions: which parts of a test image support its true category and which oppose it.

In: the run of log/finetune.json, its model and log/finetune/<run>/test_ranked.jsonl, the test images.
Out: plots/explain/<image>.jpg (mistakes first), log/explain.json; on the sample also the share of the saliency that is
inside the box of the drawn product, for both methods and a shuffled control.
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

from skincare import runlog, stage
from skincare.errors import MissingInputError
from skincare.files import write_bytes
from skincare.inference import predictions, saliency_maps
from skincare.inference.predictions import Prediction
from skincare.inference.saliency_maps import BoxShares, Map, Method, Saliency
from skincare.labels import Labels, labels_of
from skincare.paths import Layout
from skincare.runlog import Summary
from skincare.sample.boxes import product_boxes

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """Options of the stage."""

    resumes: ClassVar[bool] = False

    method: Method = "gradient"
    """Method that the overlays show; both are computed."""
    n_images: Annotated[int, tyro.conf.arg(aliases=("--n-pictures",))] = 24
    """Number of overlays; mistakes come first, in order of decreasing confidence."""
    batch_size: int = 16
    """Images per pass; it does not change the result."""
    seed: int = 0
    """Seed of the shuffled control and of the intervals."""


def run(config: Config, layout: Layout) -> Summary:
    """Compute saliency maps, draw overlays, and measure the overlap with the product's box where it is known."""
    if not layout.summary("finetune").is_file():
        raise MissingInputError("finished run", layout.summary("finetune"), "Run `python src/finetune.py` first.")
    name = json.loads(layout.summary("finetune").read_text(encoding="utf-8"))["results"]["run"]
    labels = labels_of(layout)
    ranked = predictions.read_jsonl(layout.finetune_log(name) / "test_ranked.jsonl", labels)
    ranked.sort(key=lambda one: (one.category == one.truth, -max(one.log_probabilities)))
    boxes = product_boxes(layout, {one.image_id for one in ranked})
    chosen = ranked if boxes else ranked[: config.n_images]
    found = _explain(layout, name, labels, chosen, config.batch_size)
    shown = list(zip(chosen, found, strict=True))[: config.n_images]
    runlog.remove_summary("explain", layout)
    for one, saliency in shown:
        _draw(layout, one, saliency, config.method)
    overlap = _overlap(chosen, found, boxes, config.seed) if boxes else {}
    for label, row in overlap.items():
        logger.info("%-8s %.1f %% inside the product", label, 100 * row["inside"])
    return Summary(
        headline=f"{len(shown)} overlays of {len(chosen)} images explained, in {layout.overlay('').parent}",
        counts={"images": len(chosen), "overlays": len(shown)},
        results={
            "run": name,
            "method": config.method,
            "overlap": overlap,
            "images": [
                {
                    "image_id": one.image_id,
                    "truth": one.truth,
                    "rival": _rival(one, labels),
                    "contrast": saliency.contrast,
                }
                for one, saliency in shown
            ],
        },
    )


def _rival(one: Prediction, labels: Labels) -> str:
    """Return the most likely label that is not the true one; of a mistake, the predicted one."""
    return max(
        (name for name in labels.names if name != one.truth),
        key=lambda name: one.log_probabilities[labels.index(name)],
    )


def _explain(
    layout: Layout, name: str, labels: Labels, chosen: Sequence[Prediction], batch_size: int
) -> list[Saliency]:  # fmt: skip
    # Importing torch and transformers takes seconds, which --help must not wait for.
    from skincare.inference import saliency
    from skincare.inference.classifier import Classifier

    model = Classifier.load(layout.finetuned_model(name), labels, layout.root, vision_cache=layout.vision_cache)
    found: list[Saliency] = []
    with tqdm(total=len(chosen), unit="image", desc="explain", disable=None) as bar:
        for start in range(0, len(chosen), batch_size):
            batch = chosen[start : start + batch_size]
            grids, features = model.features.get([one.file for one in batch])
            truths, rivals = [one.truth for one in batch], [_rival(one, labels) for one in batch]
            hints = [one.hint for one in batch]
            found += saliency.explain(model.network, model.encoder, grids, features, truths, rivals, hints)
            bar.update(len(batch))
    return found


def _draw(layout: Layout, one: Prediction, found: Saliency, method: Method) -> None:
    from skincare import images

    image = images.decode((layout.root / one.file).read_bytes())
    buffer = io.BytesIO()
    saliency_maps.overlay(image, found.maps[method]).save(buffer, "JPEG", quality=85)
    write_bytes(layout.overlay(one.image_id), buffer.getvalue())


def _overlap(
    chosen: Sequence[Prediction], found: Sequence[Saliency], boxes: dict[str, BoxShares], seed: int
) -> dict[str, Any]:
    """Return the mean share inside the product per method, for shuffled maps and for the area, with intervals."""
    rng = np.random.default_rng(seed)
    inside: dict[str, list[float]] = {label: [] for label in (*saliency_maps.METHODS, "shuffled", "area")}
    points: dict[str, list[float]] = {label: [] for label in inside}
    for one, saliency in zip(chosen, found, strict=True):
        maps: dict[str, Map] = {label: values for label, values in saliency.maps.items()}  # noqa: C416
        covered = saliency_maps.coverage(maps["gradient"].shape, boxes[one.image_id])
        maps["shuffled"] = rng.permutation(maps["gradient"].ravel()).reshape(covered.shape)
        for label, values in maps.items():
            inside[label].append(saliency_maps.share_inside(values, covered))
            points[label].append(float(saliency_maps.points_inside(values, covered)))
        inside["area"].append(float(covered.mean()))
        points["area"].append(float((covered > 0.5).mean()))
    products = [one.product_id for one in chosen]
    return {label: _means(inside[label], points[label], products, seed) for label in inside}


def _means(inside: list[float], points: list[float], products: list[str], seed: int) -> dict[str, Any]:
    """Return the means over images, with intervals from resampled products."""
    from skincare.evaluation import intervals

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

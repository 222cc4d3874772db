"""Explain predictions: which parts of a test image support its true category, which oppose it, which are attended to.

In: the run of log/finetune.json, its model and its predictions on test (log/finetune/<run>/test_ranked.jsonl; of
structured answers test_predictions.jsonl), the test images.
Out: plots/explain/<image>.jpg and <image>_attention.jpg (mistakes first), log/explain.json: the agreement of attention
and saliency; on the sample also the share of both that is inside the box of the drawn product.
Command: python src/explain.py [--method lens]
Time: 10 s for the embedded sample on two cores.
"""

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import tyro
from PIL import Image
from tqdm import tqdm

from skincare import images, runlog, stage
from skincare.errors import MissingInputError
from skincare.evaluation import map_overlap
from skincare.files import write_bytes
from skincare.inference import predictions, saliency_maps
from skincare.inference.category_value import with_category
from skincare.inference.predictions import Prediction
from skincare.inference.saliency_maps import METHODS, Map, Method, Saliency
from skincare.labels import Labels, labels_of
from skincare.paths import Layout
from skincare.prompts import labels_for
from skincare.runlog import Summary
from skincare.sample.boxes import product_boxes

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """Options of the stage."""

    resumes: ClassVar[bool] = False

    method: Method = "gradient"
    """Method that the overlays show and that attention is compared with; both are computed."""
    n_images: Annotated[int, tyro.conf.arg(aliases=("--n-pictures",))] = 24
    """Number of overlays; mistakes come first, in order of decreasing confidence."""
    n_measured: int = 200
    """Number of test images, drawn at random, over which the agreement of maps is computed; all if there are fewer."""
    batch_size: int = 16
    """Images per pass; it does not change the result. Fewer are taken once memory has run out."""
    seed: int = 0
    """Seed of the draws, of the shuffled control and of the intervals."""


@dataclass(frozen=True)
class Explained:
    """A prediction with its saliency against a rival label."""

    prediction: Prediction
    rival: str
    saliency: Saliency


def run(config: Config, layout: Layout) -> Summary:
    """Compute saliency and attention maps, draw overlays, and compute how far the maps agree."""
    name = runlog.last_training_run(layout)
    found = _predictions(layout, name)
    usable = [one for one in found if _answer(one, one.truth) is not None]
    shown, measured = _choose(usable, config)
    chosen = {one.image_id: one for one in (*shown, *measured)}
    explained = _explain(layout, name, list(chosen.values()), config.batch_size)
    by_id = {one.prediction.image_id: one for one in explained}
    drawn = [by_id[one.image_id] for one in shown]
    runlog.remove_summary("explain", layout)
    for one in drawn:
        _draw(layout, one, config.method)
    of_measured = [by_id[one.image_id] for one in measured]
    overlap = _inside_boxes(layout, of_measured, config.seed)
    for label, row in overlap.items():
        logger.info("%-8s %.1f %% inside the product", label, 100 * row["inside"])
    return Summary(
        headline=f"{len(drawn)} overlays of {len(explained)} images explained, in {layout.overlay('').parent}",
        counts={
            "images": len(explained), "overlays": len(drawn), "without_category_in_answer": len(found) - len(usable)
        },
        results={
            "run": name,
            "method": config.method,
            "overlap": overlap,
            "attention": _attention(of_measured, config) if of_measured else {},
            "images": [
                {
                    "image_id": one.prediction.image_id,
                    "truth": one.prediction.truth,
                    "rival": one.rival,
                    "contrast": one.saliency.contrast,
                }
                for one in drawn
            ],
        },
    )  # fmt: skip


def _predictions(layout: Layout, name: str) -> list[Prediction]:
    """Return the predictions of a run on test, mistakes first, in order of decreasing confidence."""
    path, labels = layout.finetune_log(name) / "test_ranked.jsonl", labels_of(layout)
    structured = path.with_name("test_predictions.jsonl")
    if not path.is_file() and structured.is_file():
        found = predictions.read_jsonl(structured, labels)
        if any(one.target == "product" for one in found):
            return sorted(found, key=_order)
    if not path.is_file():
        raise MissingInputError("predictions on test", path, "Run `python src/finetune.py` again.")
    return sorted(predictions.read_jsonl(path, labels), key=_order)


def _order(one: Prediction) -> tuple[bool, float]:
    scores = one.log_probabilities or (one.field_log_probabilities.get("category", -np.inf),)
    return one.category == one.truth, -max(scores)


def _choose(found: Sequence[Prediction], config: Config) -> tuple[list[Prediction], list[Prediction]]:
    """Return the predictions to draw, the first ones, and those over which the maps are compared, in their order."""
    rng = np.random.default_rng(config.seed)
    drawn = rng.permutation(sorted(one.image_id for one in found))[: config.n_measured]
    return list(found[: config.n_images]), [one for one in found if one.image_id in set(drawn)]


def _explain(layout: Layout, name: str, chosen: Sequence[Prediction], batch_size: int) -> list[Explained]:
    if not chosen:
        return []
    # Importing torch and transformers takes seconds, which --help must not wait for.
    from skincare.inference.classifier import Classifier
    from skincare.modeling.out_of_memory import Passes

    labels = labels_for(chosen[0].target, labels_of(layout))
    model = Classifier.load(layout.finetuned_model(name), labels, layout.root, vision_cache=layout.vision_cache)
    passes = Passes(batch_size, "explaining", "explain.py needs the memory of a training pass of one image")
    found: list[Explained] = []
    with tqdm(total=len(chosen), unit="image", desc="explain", disable=None) as bar:
        for part in passes.over(chosen, lambda batch: _explain_batch(model, batch)):
            found += part
            bar.update(len(part))
    return found


def _explain_batch(model: Any, batch: Sequence[Prediction]) -> list[Explained]:
    from skincare.inference import saliency

    grids, features = model.features.get([one.file for one in batch])
    truths, hints = [str(_answer(one, one.truth)) for one in batch], [one.hint for one in batch]
    rivals = [_rival(one, model.labels) for one in batch]
    if not all(rivals):
        # The labels of a structured answer are not ranked: the rival is found at the token where the category begins.
        candidates = [{str(_answer(one, label)): label for label in _rivals(one, model.labels)} for one in batch]
        answers = saliency.nearest_rivals(
            model.network, model.encoder, grids, features, truths, [list(one) for one in candidates], hints
        )
        rivals = [label_of[answer] for label_of, answer in zip(candidates, answers, strict=True)]
    others = [str(_answer(one, rival)) for one, rival in zip(batch, rivals, strict=True)]
    found = saliency.explain(
        model.network, model.encoder, grids, features, truths, others, hints, by_head=batch[0].decoder == "head"
    )
    return [Explained(*row) for row in zip(batch, rivals, found, strict=True)]


def _answer(one: Prediction, label: str) -> str | None:
    """Return the answer that names a label: the label, or the model's structured answer with it as the category."""
    return with_category(one.text, label) if one.target == "product" else label


def _rivals(one: Prediction, labels: Labels) -> list[str]:
    """Return the labels that can be the rival: the predicted one if it is wrong, else all but the true one."""
    if one.category not in (None, one.truth):
        return [str(one.category)]
    return [name for name in labels.names if name != one.truth]


def _rival(one: Prediction, labels: Labels) -> str:
    """Return the most likely label that is not the true one; of a mistake, the predicted one; empty if not ranked."""
    if not one.log_probabilities:
        return ""
    return max(
        (name for name in labels.names if name != one.truth),
        key=lambda name: one.log_probabilities[labels.index(name)],
    )


def _draw(layout: Layout, one: Explained, method: Method) -> None:
    image = images.decode((layout.root / one.prediction.file).read_bytes())
    image_id = one.prediction.image_id
    _write_jpeg(saliency_maps.overlay(image, one.saliency.maps[method]), layout.overlay(image_id))
    _write_jpeg(
        saliency_maps.attention_panels(image, one.saliency.attention), layout.attention_panels(image_id)
    )  # fmt: skip


def _write_jpeg(image: Image.Image, path: Path) -> None:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    write_bytes(path, buffer.getvalue())


def _maps(explained: Sequence[Explained]) -> dict[str, list[Map]]:
    """Return the maps of all images by their kind: the saliency methods first, then the attention."""
    of_methods: dict[str, list[Map]] = {name: [one.saliency.maps[name] for one in explained] for name in METHODS}
    attention = {name: [one.saliency.attention[name] for one in explained] for name in explained[0].saliency.attention}
    return {**of_methods, **attention}


def _inside_boxes(layout: Layout, explained: Sequence[Explained], seed: int) -> dict[str, Any]:
    """Return the share of each kind of map inside the drawn product; empty where no box is known.

    The boxes are those of whole images, not of product crops.
    """
    whole = layout.relative(layout.clean_images)
    boxes = product_boxes(layout, {one.prediction.image_id for one in explained})
    known = [x for x in explained if x.prediction.image_id in boxes and x.prediction.file.startswith(f"{whole}/")]
    if not known:
        return {}
    products = [one.prediction.product_id for one in known]
    return map_overlap.inside_boxes(_maps(known), [boxes[one.prediction.image_id] for one in known], products, seed)


def _attention(explained: Sequence[Explained], config: Config) -> dict[str, Any]:
    """Return the image's share of the attention, and the agreement of attention with the magnitude of the saliency."""
    products = [one.prediction.product_id for one in explained]
    magnitude = {
        name: [np.abs(one) for one in maps] if name in METHODS else maps for name, maps in _maps(explained).items()
    }
    reference = magnitude.pop(config.method)
    groups = [name for name in magnitude if name in saliency_maps.LAYER_GROUPS]
    return {
        "n": len(explained),
        "n_products": len(set(products)),
        "chance": float(np.mean([map_overlap.chance_overlap(one.size) for one in reference])),
        "image_share": {
            name: map_overlap.mean_share([float(one.sum()) for one in magnitude[name]], products, config.seed)
            for name in groups
        },
        "agreement": map_overlap.agreement(magnitude, reference, products, config.seed),
    }


def main() -> None:
    """Run the stage from the command line."""
    stage.main("explain", Config, run)


if __name__ == "__main__":
    main()

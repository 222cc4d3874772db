"""Compute baselines: simple methods that a fine-tuned model has to beat.

On the test images, fitted on the training images, with strengths and weights selected on val:
    majority        the most frequent category of the training images
    name            the product's name alone (TF-IDF of letters and words, logistic regression)
    vision_probe    the mean of the untrained model's visual tokens (logistic regression)
    name_image      the weighted mean of the log-probabilities of the last two
    pack_text       the text on the pack as read_text.py read it, by the reader of `predict.py` (if it was run)
    pack_text_image the weighted mean of the log-probabilities of pack_text and vision_probe
On other test sets, and marked as such:
    product_lookup  the category of the same product's other images, on a split by image: the effect of that leak
    name_folds      the name alone for every product of the catalogue, in five folds that split no product line
With structured answers the baselines predict their category; score_products.py has baselines of all fields.

In: clean_dataset/{train,val,test}.json, the catalogue (for names), a model of the hub or a folder.
Out: log/baselines/<name>.jsonl, log/baselines.json, log/finetune/<run>/baselines.json (the comparison of each trained
model with each baseline; finetune.py writes it too).
Command: python src/baselines.py [--model Qwen/Qwen2-VL-2B-Instruct]
Time: 15 s for the embedded sample on two cores; half a minute more for the names of the real catalogue.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from skincare import runlog, stage
from skincare.dataset.chat import Example, read_dataset
from skincare.labels import Labels, labels_of
from skincare.modeling.settings import DEFAULT_MODEL, PixelLimits
from skincare.paths import SPLITS, Layout
from skincare.runlog import Summary

if TYPE_CHECKING:
    from skincare.evaluation.calibration import LogProbabilities
    from skincare.evaluation.metrics import Scores

logger = logging.getLogger(__name__)

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
    """Options of the stage."""

    resumes: ClassVar[bool] = False

    model: str = DEFAULT_MODEL
    """Model whose visual tokens are probed, without training it."""
    min_tokens: int = 64
    """Minimum number of visual tokens of an image (28 x 28 pixels each; Qwen3-VL: 32 x 32)."""
    max_tokens: int = 128
    """Maximum number of visual tokens of an image."""
    catalogue: Path | None = None
    """Catalogue to read instead of csv_data/skincare_products_clean.csv."""
    seed: int = 0
    """Seed of the split by image and of the folds."""


def run(config: Config, layout: Layout) -> Summary:
    """Fit and score the baselines of the test images, then those with a test set of their own."""
    # Importing torch and scikit-learn takes seconds, which --help must not wait for.
    from skincare.catalogue import read_products
    from skincare.evaluation import baseline_models, comparison, metrics
    from skincare.inference import predictions

    splits = {split: read_dataset(layout, split) for split in SPLITS}
    labels = labels_of(layout)
    products = read_products(config.catalogue or layout.catalogue, labels).products
    tables, weight = _fit_all(config, layout, splits, products, labels)
    predicted = {
        name: baseline_models.to_predictions(splits["test"], name, table, labels) for name, table in tables.items()
    }
    predicted["product_lookup"] = baseline_models.product_lookup(splits, config.seed)
    predicted["name_folds"] = baseline_models.name_folds(products, config.seed, labels)
    scores = {name: metrics.score(found, labels) for name, found in predicted.items() if found}
    runlog.remove_summary("baselines", layout)
    for name, one in scores.items():
        predictions.write_jsonl(layout.baselines / f"{name}.jsonl", predicted[name])
        logger.info("%-14s %s", name, metrics.headline(one))
    for run_log in sorted(layout.finetune_log("").glob("*/")):
        comparison.compare_with_baselines(layout, run_log)
    best = max(tables, key=lambda name: scores[name].accuracy)
    return Summary(
        headline=f"best of {len(tables)} baselines on test: {best}, {scores[best].accuracy:.1%}",
        counts={"test images": len(splits["test"])},
        results={
            "model": config.model,
            "weight_of_name": weight,
            "scores": {name: _figures(name, one, is_of_test=name in tables) for name, one in scores.items()},
        },
    )


def _fit_all(
    config: Config, layout: Layout, splits: dict[str, list[Example]], products: Sequence[Any], labels: Labels
) -> tuple[dict[str, "LogProbabilities"], float]:
    """Return the table of test of each baseline, and the weight of the name next to the probe."""
    from skincare.evaluation import baseline_models as models
    from skincare.evaluation import name_baseline
    from skincare.text_reading.pack_text import read_pack_text

    texts = models.product_names(splits, {one.product_id: one.name for one in products})
    named = models.fit(name_baseline.name_model, texts, splits, labels)
    probed = models.fit(models.probe_model, _mean_visual_tokens(config, layout, splits, labels), splits, labels)
    weight = models.choose_weight(named["val"], probed["val"], splits["val"], labels)
    tables = {
        "majority": models.majority(splits, labels),
        "name": named["test"],
        "vision_probe": probed["test"],
        "name_image": models.combine(weight, named["test"], probed["test"]),
    }
    if not layout.pack_text.is_file():
        logger.info("pack_text left out: `python src/read_text.py` was not run")
        return tables, weight
    read = models.read_packs(splits, products, read_pack_text(layout.pack_text), labels)
    weight_of_text = models.choose_weight(read["val"], probed["val"], splits["val"], labels)
    tables["pack_text"] = read["test"]
    tables["pack_text_image"] = models.combine(weight_of_text, read["test"], probed["test"])
    return tables, weight


def _mean_visual_tokens(
    config: Config, layout: Layout, splits: dict[str, list[Example]], labels: Labels
) -> dict[str, "LogProbabilities"]:
    """Return the (images, width) means of the untrained model's visual tokens of each split."""
    import numpy as np

    from skincare.inference.classifier import Classifier

    limits = PixelLimits(config.min_tokens, config.max_tokens)
    classifier = Classifier.load(config.model, labels, layout.root, limits=limits, n_uncached_blocks=0)

    def mean(image: str) -> Any:
        tokens = classifier.network.visual_tokens(*classifier.features.get([image]))
        return tokens.float().mean(dim=0).cpu().numpy()

    found = {}
    for split, part in splits.items():
        classifier.features.fill([one.image for one in part])
        found[split] = np.stack([mean(one.image) for one in part]).astype(np.float64)
    return found


def _figures(name: str, scores: "Scores", *, is_of_test: bool) -> dict[str, Any]:
    """Return a row of the table; `is_of_test`: about the images that the model is tested on."""
    keys = ("n", "n_products", *(f"{key}{end}" for key in ("accuracy", "f1_macro") for end in ("", "_low", "_high")))
    return {"label": _LABELS[name], "is_of_test": is_of_test, **{key: getattr(scores, key) for key in keys}}


def main() -> None:
    """Run the stage from the command line."""
    stage.main("baselines", Config, run)


if __name__ == "__main__":
    main()

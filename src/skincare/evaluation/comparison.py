"""Paired comparison of two models' predictions on the same images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skincare.errors import StageError
from skincare.evaluation import intervals, metrics
from skincare.evaluation.metrics import LabelledPrediction
from skincare.files import write_json
from skincare.inference import predictions
from skincare.labels import labels_of
from skincare.paths import Layout


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images; differences are after - before, with 95 % intervals over products.

    mcnemar_p: exact two-sided p-value of McNemar's test, which treats images as independent; products_p: p-value of the
    sign-flip permutation test over products;
    smallest_detectable_difference: the difference detected with 80 % power at the 5 % level if images were independent;
    smallest_detectable_difference_products: the same for images clustered in products.
    """

    n: int
    n_products: int
    accuracy_before: float
    accuracy_after: float
    difference: float
    difference_low: float
    difference_high: float
    f1_macro_before: float
    f1_macro_after: float
    f1_macro_difference: float
    f1_macro_difference_low: float
    f1_macro_difference_high: float
    n_only_before_right: int
    n_only_after_right: int
    mcnemar_p: float
    products_p: float
    smallest_detectable_difference: float
    smallest_detectable_difference_products: float


def compare(
    before: Sequence[LabelledPrediction], after: Sequence[LabelledPrediction], *, seed: int = 0, n_resamples: int = 2000
) -> Comparison:
    """Compare two models on the same images; raises StageError if the images or their truths differ."""
    pairs = _paired(before, after)
    was_right = np.array([one.category == one.truth for one, _ in pairs])
    is_right = np.array([other.category == other.truth for _, other in pairs])
    gained, lost = int((is_right & ~was_right).sum()), int((was_right & ~is_right).sum())
    names = sorted({name for pair in pairs for one in pair for name in (one.truth, one.category) if name is not None})
    first, second = (metrics.confusion_by_product([pair[i] for pair in pairs], names) for i in (0, 1))
    draws = intervals.draw_products(len(first), seed, n_resamples)
    # Both models are resampled together, so that the difference is paired.
    changes = np.trace(second - first, axis1=1, axis2=2)
    low, high = intervals.difference_interval((draws @ changes) / (draws @ first.sum(axis=(1, 2))), len(first))
    f1_drawn = [metrics.macro_f1(np.tensordot(draws, counts, axes=1)) for counts in (first, second)]
    f1_low, f1_high = intervals.difference_interval(f1_drawn[1] - f1_drawn[0], len(first))
    f1_before, f1_after = (float(metrics.macro_f1(counts.sum(axis=0))) for counts in (first, second))
    detectable = intervals.smallest_detectable_difference(len(pairs), (gained + lost) / len(pairs))
    return Comparison(
        n=len(pairs),
        n_products=len(first),
        accuracy_before=float(was_right.mean()),
        accuracy_after=float(is_right.mean()),
        difference=(gained - lost) / len(pairs),
        difference_low=low,
        difference_high=high,
        f1_macro_before=f1_before,
        f1_macro_after=f1_after,
        f1_macro_difference=f1_after - f1_before,
        f1_macro_difference_low=f1_low,
        f1_macro_difference_high=f1_high,
        n_only_before_right=lost,
        n_only_after_right=gained,
        mcnemar_p=intervals.exact_mcnemar(lost, gained),
        products_p=intervals.sign_flip_p(changes, seed, n_resamples),
        smallest_detectable_difference=detectable,
        smallest_detectable_difference_products=max(
            detectable, intervals.smallest_detectable_difference_of_products(changes, len(pairs))
        ),
    )


def have_same_images(before: Sequence[LabelledPrediction], after: Sequence[LabelledPrediction]) -> bool:
    """Return whether two sets of predictions are of the same images with the same truths."""
    first, second = ({(one.image_id, one.product_id, one.truth) for one in part} for part in (before, after))
    return first == second


def compare_with_baselines(layout: Layout, run_log: Path) -> None:
    """Write <run_log>/baselines.json: baseline name -> Comparison on test (before: baseline, after: trained model).

    Baselines of other images are omitted. A run without test predictions is skipped.
    """
    file = run_log / "test_predictions.jsonl"
    if not file.is_file():
        return
    labels = labels_of(layout)
    trained = predictions.read_jsonl(file, labels)
    found = {path.stem: predictions.read_jsonl(path, labels) for path in sorted(layout.baselines.glob("*.jsonl"))}
    compared = {
        name: metrics.to_json(compare(baseline, trained))
        for name, baseline in found.items()
        if have_same_images(baseline, trained)
    }
    # If the baselines are of a later dataset, an older run keeps its comparison.
    if compared or not (run_log / "baselines.json").is_file():
        write_json(run_log / "baselines.json", compared)


def _paired(
    before: Sequence[LabelledPrediction], after: Sequence[LabelledPrediction]
) -> list[tuple[LabelledPrediction, LabelledPrediction]]:
    """Return both predictions of each image, sorted by image id."""
    first, second = ({one.image_id: one for one in part} for part in (before, after))
    if (len(first), len(second)) != (len(before), len(after)):
        raise StageError("An image has several predictions; a comparison needs one per image and model")
    if not first or not have_same_images(before, after):
        raise StageError("Only predictions of the same images can be compared; run zero_shot.py and finetune.py again")
    return [(first[i], second[i]) for i in sorted(first)]

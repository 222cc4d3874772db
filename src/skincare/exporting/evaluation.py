"""Accuracy, speed and size of a checkpoint on val, and the paired comparison of an export with its training run."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import torch

from skincare.dataset.chat import Example
from skincare.errors import StageError
from skincare.evaluation import calibration, comparison
from skincare.evaluation.product_metrics import PairedField
from skincare.inference.classifier import Classifier
from skincare.inference.predictions import Prediction
from skincare.labels import Labels
from skincare.modeling.settings import DecoderName

# Batches whose time is taken, after a warm-up.
_N_TIMED_BATCHES: Final = 4

Verdict = Literal["not evaluated", "worse", "no significant difference", "better"]


@dataclass(frozen=True)
class Evaluation:
    """What a checkpoint does on val.

    predictions: of the decoder that `predict.py` uses. ranked: with probabilities, empty for structured answers.
    images_per_second: image decoding, vision tower and language model, without caches. weight_bytes: of the tensors in
    memory.
    """

    predictions: list[Prediction]
    ranked: list[Prediction]
    images_per_second: float
    weight_bytes: int

    @property
    def accuracy(self) -> float:
        """Return the share of images that are correctly classified."""
        return sum(one.category == one.truth for one in self.predictions) / len(self.predictions)


def evaluate(classifier: Classifier, examples: Sequence[Example], title: str, batch_size: int) -> Evaluation:
    """Predict val with the decoder that `predict.py` uses, then with probabilities; take the time without caches."""
    decoder = default_decoder(classifier)
    predicted = classifier.predict(examples, title, classifier.decoder(decoder))
    ranked = predicted if decoder == "head" else _ranked(classifier, examples, title)
    return Evaluation(
        predictions=predicted,
        ranked=ranked,
        images_per_second=images_per_second(classifier, examples, batch_size),
        weight_bytes=weight_bytes(classifier.network.model),
    )


def _ranked(classifier: Classifier, examples: Sequence[Example], title: str) -> list[Prediction]:
    """Return predictions with probabilities; none for a model of structured answers, which cannot rank labels."""
    try:
        decoder = classifier.decoder("rank")
    except StageError:
        return []
    return classifier.predict(examples, title, decoder)


def default_decoder(classifier: Classifier) -> DecoderName:
    """Return the decoder of `predict.py`: the classification head if the model has one, else free text."""
    return "generate" if classifier.network.head is None else "head"


def images_per_second(classifier: Classifier, examples: Sequence[Example], batch_size: int) -> float:
    """Return the speed from image file to label: the median of a few batches, after one that is not counted."""
    # A new object without a source has neither cached features nor cached predictions.
    fresh = Classifier(classifier.network, classifier.encoder, classifier.features.files, batch_size=batch_size)
    decoder = fresh.decoder(default_decoder(classifier))
    warm_up, timed = examples[:batch_size], examples[batch_size : (1 + _N_TIMED_BATCHES) * batch_size]
    found = [fresh.predict(part, "val", decoder, show_progress=False) for part in (warm_up, timed)]
    return 1 / statistics.median(one.latency_s for one in found[-1] or found[0])


def weight_bytes(model: torch.nn.Module) -> int:
    """Return the bytes of all weights in memory, quantised ones with their scales."""
    tensors = {tensor.data_ptr(): tensor for tensor in model.state_dict().values()}
    return sum(tensor.nbytes for tensor in tensors.values())


def compare(before: Evaluation, after: Evaluation, documents: PairedField | None = None) -> dict[str, Any]:
    """Return the paired comparison of two checkpoints on val, with the verdict and the number of changed answers.

    documents: of structured answers, the difference of their ANLS*, which then decides instead of the category.
    """
    found = comparison.compare(before.predictions, after.predictions)
    texts = {one.image_id: one.text for one in before.predictions}
    interval = (documents.low, documents.high) if documents else (found.difference_low, found.difference_high)
    return {
        **asdict(found),
        "n_other_answers": sum(one.text != texts[one.image_id] for one in after.predictions),
        "documents": documents and asdict(documents),
        "verdict": verdict(*interval),
    }


def verdict(low: float, high: float) -> Verdict:
    """Return whether the 95 % interval of a difference excludes zero, and on which side."""
    if high < 0:
        return "worse"
    return "better" if low > 0 else "no significant difference"


def describe(found: dict[str, Any] | None) -> str:
    """Return the comparison in one sentence; None: val was not evaluated."""
    if not found:
        return "not evaluated: nothing is known about the accuracy of these weights"
    if found["documents"]:
        return _describe_documents(found)
    points = _points(found["difference"], found["difference_low"], found["difference_high"])
    measured = f"{points} on {found['n']} val images of {found['n_products']} products"
    if found["verdict"] == "worse":
        return f"LOWER ACCURACY than the training run: {measured}; the interval excludes zero"
    if found["verdict"] == "better":
        return f"higher accuracy than the training run: {measured}"
    detectable = 100 * found["smallest_detectable_difference_products"]
    return (
        f"no significant change of accuracy: {measured}, {found['n_other_answers']} answers differ; "
        f"a val of this size shows changes from {detectable:.1f} points on (80 % power)"
    )


def _points(difference: float, low: float, high: float) -> str:
    """Return a difference of shares with its interval, in points."""
    return f"{100 * difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}) points"


def _describe_documents(found: dict[str, Any]) -> str:
    """Return the comparison of structured answers in one sentence."""
    points = _points(*(found["documents"][key] for key in ("difference", "low", "high")))
    scored = f"{points} of the ANLS* of whole answers on {found['n']} val images of {found['n_products']} products"
    if found["verdict"] == "worse":
        return f"LOWER SCORE than the training run: {scored}; the interval excludes zero"
    if found["verdict"] == "better":
        return f"higher score than the training run: {scored}"
    return f"no significant change: {scored}, {found['n_other_answers']} answers differ"


def thresholds(evaluation: Evaluation, labels: Labels) -> dict[str, Any]:
    """Return the contents of confidence.json: the temperature and the thresholds that val gives for these weights.

    wanted: for each accepted error rate the threshold with its coverage, risk and bound on val, null where none
    qualifies. Test is not used.
    """
    table, truths = calibration.as_arrays(evaluation.ranked, labels)
    temperature = calibration.fit_temperature(table, truths)
    confidence, is_right = calibration.top1(calibration.apply_temperature(table, temperature), truths)
    rows = []
    for risk in calibration.ERROR_RATES:
        chosen = calibration.threshold_for_risk(confidence, is_right, risk)
        rows.append(
            {
                "wanted_risk": risk,
                "threshold": chosen.threshold if chosen else None,
                "val_coverage": chosen.coverage if chosen else 0.0,
                "val_risk": chosen.risk if chosen else None,
                "val_bound": chosen.bound if chosen else None,
            }
        )
    return {"n_val": len(truths), "decoder": evaluation.ranked[0].decoder, "temperature": temperature, "wanted": rows}

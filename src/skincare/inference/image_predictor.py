"""The object that predicts images, loaded once: the core of predict.py and serve.py. Imports torch only for a model.

    predictor = load_predictor(PredictorSettings(), layout)      # once: chooses who answers, loads reader and/or model
    rows = predictor.predict([input_image(name, content), ...])  # one ImagePrediction per image, in order
    predictor.name, predictor.labels, predictor.threshold        # for logs, pages and metrics

`predict` does not raise for a single bad image: that image's row has the status `unreadable` or `failed` and a reason.
A predictor that needs the text of a pack (`reads_text`) reads it in this process if `InputImage.pack` is None; to read
many images on all cores, pass `pack` from `predictor.packs.stream`. If `needs_pixels` is False, `pack` alone is enough.
The rows do not depend on how images are batched. Not thread-safe for a model: call `predict` from one thread at a time.
See `skincare.inference.image_predictions` for inputs and rows.
"""

import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

from skincare.errors import MissingInputError, StageError
from skincare.inference.image_predictions import ImagePrediction, InputImage
from skincare.labels import Labels, check_same_labels, labels_of, labels_of_model
from skincare.modeling.settings import DecoderName, Dtype
from skincare.paths import TINY_MODEL, Layout
from skincare.prompts import Target, labels_for, target_of
from skincare.text_reading import extraction
from skincare.text_reading.ocr import EngineName

if TYPE_CHECKING:
    from skincare.inference.classifier import Classifier

logger = logging.getLogger(__name__)

# In the folder of a model of products that fuse.py has fused with the reader; product_fusion.py imports scipy.
PRODUCT_FUSION: Final = "product_fusion.json"
PredictorName = Literal["auto", "reader", "model", "fused"]
# The decoders that give probabilities.
_WITH_PROBABILITIES: Final[tuple[DecoderName, ...]] = ("rank", "head")


class ImagePredictor(Protocol):
    """Predicts images; `name` describes it, `threshold` is the probability below which it abstains, if any."""

    name: str
    labels: Labels
    threshold: float | None
    reads_text: bool
    needs_pixels: bool

    @property
    def packs(self) -> extraction.PackReader | None:
        """Return what reads the text of packs, if that is needed."""
        ...

    def predict(self, images: Sequence[InputImage]) -> list[ImagePrediction]:
        """Return one prediction per image, in order."""
        ...


@dataclass(frozen=True, kw_only=True)
class PredictorSettings:
    """Who predicts and how; the fields are those of predict.py's command line."""

    by: PredictorName = "auto"
    # A model folder or hub name; empty: the newest run.
    model: str = ""
    target: Target = "category"
    # None: the threshold of the run's confidence.json for `max_error`, or the reader's own.
    min_confidence: float | None = None
    # Accepted error rate; None: 0.1, or the next larger one for which confidence.json has a threshold.
    max_error: float | None = None
    decoder: DecoderName | None = None
    # None: that of the run's confidence.json, or else 1.
    temperature: float | None = None
    ocr: EngineName = "rapidocr"
    dtype: Dtype = "auto"
    batch_size: int = 16
    top_k: int = 3

    def check(self) -> None:
        """Raise StageError for numbers out of range and for options that contradict each other."""
        for is_wrong, message in (*self._out_of_range(), *self._contradictions()):
            if is_wrong:
                raise StageError(message)

    def _out_of_range(self) -> Iterator[tuple[bool, str]]:
        heat, error, confidence = self.temperature, self.max_error, self.min_confidence
        yield heat is not None and not 0 < heat < math.inf, f"--temperature {_number(heat)} is not a number above 0"
        yield self.batch_size < 1, f"--batch-size {self.batch_size} is below 1"
        yield self.top_k < 0, f"--top-k {self.top_k} is below 0"
        yield error is not None and not 0 < error < 1, f"--max-error {_number(error)} is not a share between 0 and 1"
        is_wrong = confidence is not None and not 0 <= confidence <= 1
        yield is_wrong, f"--min-confidence {_number(confidence)} is not a probability between 0 and 1"

    def _contradictions(self) -> Iterator[tuple[bool, str]]:
        uses_model = bool(self.model or self.decoder)
        yield self.by == "reader" and uses_model, "--by reader uses no model: leave --model and --decoder out"
        yield (
            self.by == "fused" and (self.decoder is not None or self.temperature not in (None, 1)),
            ("--by fused has a decoder and a temperature of its own: leave those out"),
        )
        has_confidence = self.min_confidence is not None
        yield (
            self.target == "product" and self.temperature is not None,
            "--temperature is for the probabilities of labels: leave it out with --target product",
        )
        yield (
            has_confidence and self.target == "category" and self.decoder not in (None, *_WITH_PROBABILITIES),
            (
                f"--min-confidence: the decoder {self.decoder} gives no probabilities; "
                f"name {' or '.join(_WITH_PROBABILITIES)}"
            ),
        )
        yield has_confidence and self.max_error is not None, "--min-confidence excludes --max-error"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def load_predictor(settings: PredictorSettings, layout: Layout) -> ImagePredictor:
    """Return what predicts; only a model's imports torch.

    Raises MissingInputError without a model or an OCR engine that is needed, StageError for contradicting settings.
    """
    settings.check()
    if settings.target == "product":
        return _load_product_predictor(settings, layout)
    if is_by_reader(settings, layout):
        from skincare.inference.text_predictor import TextPredictor
        from skincare.text_reading.reader_store import stored_reader

        reader = stored_reader(layout, threshold=settings.min_confidence)
        return TextPredictor(reader, extraction.PackReader(settings.ocr, layout.ocr_cache), settings.top_k)
    return _load_model_predictor(settings, layout)


def _load_product_predictor(settings: PredictorSettings, layout: Layout) -> ImagePredictor:
    """Return what predicts products: the reader, unless a model is chosen or the newest run has a fusion of them."""
    source = _source_of_products(settings, layout)
    if source:
        return _load_product_model(settings, layout, source)
    from skincare.evaluation.field_policy import FieldPolicy
    from skincare.inference.product_predictor import ProductPredictor
    from skincare.product.schema import FIELDS
    from skincare.text_reading.pack_products import PackProducts, product_reader
    from skincare.text_reading.reader_store import stored_reader

    reader = stored_reader(layout, threshold=settings.min_confidence)
    packs = extraction.PackReader(settings.ocr, layout.ocr_cache)
    products = PackProducts(reader, product_reader(layout, labels_of(layout)))
    if settings.min_confidence is None:
        return ProductPredictor(products, packs, settings.top_k)
    policy = FieldPolicy(thresholds=dict.fromkeys(FIELDS, settings.min_confidence))
    return ProductPredictor(products, packs, settings.top_k, policy)


def _source_of_products(settings: PredictorSettings, layout: Layout) -> str:
    """Return the model that answers with products, alone or fused; empty for the reader alone."""
    if settings.by == "reader":
        return ""
    if settings.by in ("model", "fused") or settings.model or settings.decoder:
        return settings.model or str(newest_model(layout))
    found = newest_model(layout, is_needed=False)
    return str(found) if found and (found / PRODUCT_FUSION).is_file() and not is_drawings_only(found) else ""


def _load_product_model(settings: PredictorSettings, layout: Layout, source: str) -> ImagePredictor:
    from skincare.inference import run_confidence
    from skincare.inference.fused_product_predictor import FusedProductPredictor
    from skincare.inference.model_predictor import ModelPredictor

    is_fused = _is_fused(settings, Path(source) / PRODUCT_FUSION)
    classifier, packs = _load_classifier(settings, layout, source, needs_text=is_fused)
    min_confidence, max_error = settings.min_confidence, settings.max_error
    if is_fused and packs is not None:
        return FusedProductPredictor(classifier, packs, min_confidence=min_confidence, max_error=max_error)
    policy = run_confidence.field_policy_of(layout, Path(source), settings.decoder, min_confidence, max_error)
    return ModelPredictor(classifier, settings.decoder, packs=packs, gives_product=True, policy=policy)


def _load_model_predictor(settings: PredictorSettings, layout: Layout) -> ImagePredictor:
    from skincare.evaluation import fusion
    from skincare.inference import run_confidence
    from skincare.inference.fused_predictor import FusedPredictor
    from skincare.inference.model_predictor import ModelPredictor

    source = settings.model or str(newest_model(layout))
    is_fused = _is_fused(settings, Path(source) / fusion.FILE)
    classifier, packs = _load_classifier(settings, layout, source, needs_text=is_fused)
    if is_fused and packs is not None:
        threshold = run_confidence.fused_threshold(Path(source), settings.min_confidence, settings.max_error)
        return FusedPredictor(classifier, packs, threshold=threshold, top_k=settings.top_k)
    chosen = run_confidence.choose(
        layout, Path(source), settings.decoder, settings.temperature, settings.min_confidence, settings.max_error
    )
    return ModelPredictor(
        classifier, settings.decoder, chosen.temperature, needs_probabilities=chosen.needs_probabilities,
        packs=packs, threshold=chosen.threshold, top_k=settings.top_k,
    )  # fmt: skip


def _load_classifier(
    settings: PredictorSettings, layout: Layout, source: str, *, needs_text: bool
) -> "tuple[Classifier, extraction.PackReader | None]":
    """Return the model, and what reads the text of packs if that is needed or if the model was trained with it."""
    from skincare.inference.classifier import Classifier

    labels = _labels_of_source(settings, Path(source), layout)
    if is_drawings_only(Path(source)):
        logger.warning("%s has the embedded stand-in's size: it knows drawings of packs, not photos", source)
    classifier = Classifier.load(
        source, labels, layout.root, dtype=settings.dtype, n_uncached_blocks=0, batch_size=settings.batch_size
    )  # fmt: skip
    reads_text = needs_text or classifier.hint_settings.kind == "text"
    return classifier, extraction.PackReader(settings.ocr, layout.ocr_cache) if reads_text else None


def _labels_of_source(settings: PredictorSettings, source: Path, layout: Layout) -> Labels:
    """Return the labels of a model, for a base model with the prompt of the target.

    Raises StageError for a model of other labels than those of --labels, and for products by a model of categories.
    """
    labels = labels_of_model(source, labels_for(settings.target, labels_of(layout)))
    if layout.labels:
        check_same_labels(source, labels_for(target_of(labels), labels_of(layout)))
    if settings.target == "product" and target_of(labels) != "product":
        raise StageError(
            f"{source} was trained to answer with categories: train a model on `python src/build_dataset.py --target "
            "product`, name one with --model, or take --by reader"
        )
    return labels


def _is_fused(settings: PredictorSettings, fusion_file: Path) -> bool:
    """Return whether model and reader are fused; --decoder and --temperature are options of the model alone."""
    if settings.by != "auto":
        return settings.by == "fused"
    return settings.decoder is None and settings.temperature in (None, 1) and fusion_file.is_file()


def is_by_reader(settings: PredictorSettings, layout: Layout) -> bool:
    """Return whether the reader alone predicts: chosen, or by default where no model knows photos."""
    if settings.target == "product":
        return not _source_of_products(settings, layout)
    if settings.by != "auto":
        return settings.by == "reader"
    if settings.model or settings.decoder:
        return False
    found = newest_model(layout, is_needed=False)
    if found and is_drawings_only(found):
        logger.info("%s knows drawings of packs only; the reader predicts (--by model uses it)", found)
        return True
    return found is None


def is_drawings_only(source: Path) -> bool:
    """Return whether a model folder holds the embedded stand-in or a model trained from it."""
    try:
        widths = [json.loads((one / "config.json").read_text())["text_config"] for one in (source, TINY_MODEL)]
        return bool(widths[0]["hidden_size"] == widths[1]["hidden_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def newest_model(layout: Layout, *, is_needed: bool = True) -> Path | None:
    """Return the folder of the newest fine-tuned model; without one None, or MissingInputError if it is needed."""
    models = list(layout.finetuned_model("").glob("*/config.json"))
    if models:
        return max(models, key=lambda config: config.stat().st_mtime).parent
    if is_needed:
        folder = layout.finetuned_model("")
        remedy = "Make one with `python src/finetune.py`, name a --model or take --by reader."
        raise MissingInputError("fine-tuned model", folder, remedy)
    return None

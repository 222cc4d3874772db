"""A model that is asked about images, with all that is to be known about how: zero-shot, after training, ablations.

Answers are kept under the root (`skincare.inference.prediction_cache`), and so is the output of the vision tower but
for its last block: the reference recipe trains no more of the tower, so that training and the trained model find there
what was computed.
"""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from skincare import runlog
from skincare.dataset import hints
from skincare.dataset.chat import Example
from skincare.dataset.image_files import ImageFiles
from skincare.files import write_json
from skincare.inference import asking as evaluation
from skincare.inference import decoders
from skincare.inference.answer_parser import PARSER_VERSION
from skincare.inference.decoders import Decoder, DecoderName, make_decoder
from skincare.inference.prediction_cache import Journal
from skincare.inference.predictions import Prediction
from skincare.labels import check_same_labels, labels_of
from skincare.modeling.batches import PromptEncoder
from skincare.modeling.freezing import count
from skincare.modeling.model import default_device, load_model, load_processor, revision, weight_hash
from skincare.modeling.recogniser import Recogniser
from skincare.modeling.settings import PixelLimits
from skincare.modeling.vision_features import VisionFeatures
from skincare.paths import Layout
from skincare.prompts import CHAT_TEMPLATE_FILE
from skincare.tables import natural_key


class EvaluatedModel:
    """A folder's or the hub's model, loaded as a user would; without limits the images' are its own."""

    def __init__(
        self, source: str | Path, layout: Layout, limits: PixelLimits | None = None, *, cache_images: bool = True,
        cache_answers: bool = True, files: ImageFiles | None = None,
    ) -> None:  # fmt: skip
        labels = labels_of(layout)
        check_same_labels(Path(source), labels)
        self.source = source
        self.encoder = PromptEncoder(load_processor(source, limits), labels)
        self.recogniser = Recogniser(load_model(source, default_device()).requires_grad_(False), n_live_blocks=1)
        self.recogniser.load_head(Path(source), len(labels))
        self.images = VisionFeatures(
            self.recogniser, self.encoder, files or layout.root, layout.vision_cache if cache_images else None
        )
        self._answer_folder = layout.answer_cache if cache_answers else None
        self.description = self._describe()

    def decoder(self, name: DecoderName) -> Decoder:
        """Return a decoder of this model."""
        return make_decoder(name, self.recogniser, self.encoder)

    def listing(self, names: Sequence[str]) -> "EvaluatedModel":
        """Return this model with a prompt that lists the categories in another order."""
        other = copy.copy(self)
        other.encoder = PromptEncoder(self.encoder.processor, self.encoder.labels, names)
        other.description = {**self.description, "prompt_hash": _hash(other.encoder.prompt_text)}
        return other

    def predict(
        self, examples: Sequence[Example], split: str, decoder: Decoder, batch_size: int = 16
    ) -> list[Prediction]:
        """Return an answer about each example, asking only about images without a kept one."""
        identity = {**self.description, "decoder": decoder.name, "decoder_version": decoders.VERSION}
        journal = Journal(identity, self._answer_folder)
        passes = evaluation.inference_passes(batch_size)
        return evaluation.predict(self.images, decoder, examples, split, passes, journal=journal)

    def write_manifest(self, folder: Path, config: Any, predictions: Mapping[str, Sequence[Prediction]]) -> None:
        """Write folder/manifest.json: how the predictions, by the name of their file, were made and of what."""
        write_json(
            folder / "manifest.json",
            {
                **runlog.environment(),
                "config": runlog.to_plain(config),
                "model": {
                    "source": runlog.to_plain(self.source),
                    "revision": revision(self.source),
                    "n_parameters": count(self.recogniser.model.parameters()),
                },
                "evaluation": self.description,
                "prompt": self.encoder.prompt_text,
                "hints": hints.kind_of(one.hint for some in predictions.values() for one in some),
                # Answers are greedy and need no seed; the intervals draw products, the training draws images.
                "seeds": {"bootstrap": 0, "training": getattr(config, "seed", None)},
                "decoder_version": decoders.VERSION,
                "parser_version": PARSER_VERSION,
                "labels": {"source": self.encoder.labels.source, "digest": self.encoder.labels.digest},
                "predictions": {name: _data(some) for name, some in predictions.items()},
            },
        )

    def _describe(self) -> dict[str, Any]:
        """Return all that decides an answer beside image and decoder; what rounds is part of it."""
        processor, model, head = self.encoder.processor.image_processor, self.recogniser.model, self.recogniser.head
        return {
            "weight_hash": weight_hash(model),
            "head_hash": weight_hash(head) if head else "",
            "labels": self.encoder.labels.digest,
            "dtype": str(self.recogniser.dtype),
            "device": self.recogniser.device.type,
            "prompt_hash": _hash(self.encoder.prompt_text),
            "template_hash": _hash(CHAT_TEMPLATE_FILE.read_text(encoding="utf-8")),
            "processor": type(processor).__name__,
            "processor_hash": _hash(processor.to_json_string()),
            "min_pixels": processor.size["shortest_edge"],
            "max_pixels": processor.size["longest_edge"],
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }


def _data(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return what was asked about, and how; the fingerprint is over images' bytes, categories and hints."""
    ordered = sorted(predictions, key=lambda one: natural_key(one.image_id))
    return {
        "split": ordered[0].split,
        "decoder": ordered[0].decoder,
        "n": len(ordered),
        "data_fingerprint": _hash(
            "\n".join(f"{one.image_id} {one.image_sha256} {one.truth} {one.hint}".rstrip() for one in ordered)
        ),
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]

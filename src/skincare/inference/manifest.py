"""The manifest.json next to files of predictions: the model, its prompt and the data that they are about."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from skincare import runlog
from skincare.dataset import hints
from skincare.files import write_json
from skincare.inference import decoders
from skincare.inference.answer_parser import PARSER_VERSION
from skincare.inference.classifier import Classifier
from skincare.inference.model_identity import text_hash
from skincare.inference.predictions import Prediction
from skincare.modeling.freezing import count
from skincare.modeling.loading import revision
from skincare.tables import natural_key


def write_manifest(
    folder: Path, classifier: Classifier, config: Any, predictions: Mapping[str, Sequence[Prediction]]
) -> None:
    """Write folder/manifest.json: the model and the data of predictions, which are given by the name of their file."""
    labels = classifier.labels
    write_json(
        folder / "manifest.json",
        {
            **runlog.environment(),
            "config": runlog.to_plain(config),
            "model": {
                "source": runlog.to_plain(classifier.source),
                "revision": revision(classifier.source),
                "n_parameters": count(classifier.network.model.parameters()),
            },
            "evaluation": classifier.identity,
            "prompt": classifier.encoder.prompt_text,
            "hints": hints.kind_of(one.hint for predicted in predictions.values() for one in predicted),
            # Decoding is greedy and needs no seed; the intervals draw products, the training draws images.
            "seeds": {"bootstrap": 0, "training": getattr(config, "seed", None)},
            "decoder_version": decoders.VERSION,
            "parser_version": PARSER_VERSION,
            "labels": {"source": labels.source, "digest": labels.digest},
            "predictions": {name: _data(predicted) for name, predicted in predictions.items()},
        },
    )


def _data(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return the data of a file; its fingerprint is over the images' bytes, categories and hints."""
    ordered = sorted(predictions, key=lambda one: natural_key(one.image_id))
    return {
        "split": ordered[0].split,
        "decoder": ordered[0].decoder,
        "n": len(ordered),
        "data_fingerprint": text_hash(
            "\n".join(f"{one.image_id} {one.image_sha256} {one.truth} {one.hint}".rstrip() for one in ordered)
        ),
    }

"""Evaluate variants of inference: decoders, rankings, the order of the labels in the prompt, hints.

In: clean_dataset/val.json and its images, a model of the hub or a folder.
Out: log/ablations.json, log/ablations/{<variant>.jsonl,manifest.json}.
Command: python src/ablations.py [--model models/finetuned/reference]
Time: about a second an image with the embedded tiny model on two cores.

For a dataset with hints, rank_no_hint leaves them out and rank_other_hint gives each image the hint of an image of
another category: a model that follows wrong hints as often as right ones does not use the image. Variants are selected
on val; --split test is for analysis only.
"""

import itertools
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from skincare import runlog, stage
from skincare.dataset.chat import Example, read_dataset, target_of_examples
from skincare.errors import StageError
from skincare.inference import predictions
from skincare.inference.predictions import Prediction
from skincare.labels import Labels, labels_of
from skincare.modeling.settings import DEFAULT_MODEL, DecoderName, PixelLimits
from skincare.paths import Layout
from skincare.runlog import Summary

if TYPE_CHECKING:
    from skincare.inference.classifier import Classifier

logger = logging.getLogger(__name__)

_INTERVAL: Final = ("accuracy", "accuracy_low", "accuracy_high")


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """Options of the stage."""

    model: str = DEFAULT_MODEL
    """Model of the Hugging Face hub, or a local folder."""
    split: Literal["train", "val", "test"] = "val"
    """Split of the dataset to evaluate on."""
    min_tokens: int = 64
    """Minimum number of visual tokens of an image (28 x 28 pixels each; Qwen3-VL: 32 x 32)."""
    max_tokens: int = 128
    """Maximum number of visual tokens of an image."""
    n_orders: int = 3
    """Number of shuffled orders of the labels in the prompt, in addition to the standard one."""
    seed: int = 0
    """Seed of these orders."""
    batch_size: int = 8
    """Images per forward pass; it does not change the predictions."""


def run(config: Config, layout: Layout) -> Summary:
    """Predict with every variant, score each and compare it with label ranking."""
    # Importing torch and transformers takes seconds, which --help must not wait for.
    from skincare.inference.classifier import Classifier
    from skincare.inference.manifest import write_manifest

    examples, labels = read_dataset(layout, config.split), labels_of(layout)
    if target_of_examples(examples) == "product":
        raise StageError(
            "The ablations vary decoders and orders of labels, which structured answers do not have. Build the dataset "
            "with `python src/build_dataset.py --target category`, or compare systems: `python src/score_products.py`"
        )
    classifier = Classifier.load(
        config.model, labels, layout.root, limits=PixelLimits(config.min_tokens, config.max_tokens),
        vision_cache=layout.vision_cache, prediction_cache=layout.answer_cache, batch_size=config.batch_size,
    )  # fmt: skip
    exchanged, category_of_hint = _other_hints(examples, config.seed)
    predicted = _predict_all(config, classifier, examples, exchanged)
    runlog.remove_summary("ablations", layout)
    for name, found in predicted.items():
        predictions.write_jsonl(layout.ablations / f"{name}.jsonl", found)
    write_manifest(layout.ablations, classifier, config, {f"{name}.jsonl": found for name, found in predicted.items()})
    rows = [_row(name, found, predicted["rank"], labels) for name, found in predicted.items()]
    for row in rows:
        logger.info("%-16s %6.1f %% (%.1f to %.1f)", row["way"], *(100 * row[key] for key in _INTERVAL))
    orders = [found for name, found in predicted.items() if name == "rank" or name.startswith("rank_order_")]
    best = max(rows, key=lambda row: row["accuracy"])
    return Summary(
        headline=f"{len(rows)} ways on {config.split}: best {best['way']}, {best['accuracy']:.1%}; "
        f"rank {next(row['accuracy'] for row in rows if row['way'] == 'rank'):.1%}",
        counts={"images": len(examples), "ways": len(rows)},
        results={
            "model": config.model,
            "split": config.split,
            "ways": rows,
            "agreement": _agreement({name: predicted[name] for name in _decoders(classifier)}),
            "alike_in_all_orders": _share_alike(orders),
            "followed_other_hint": _followed(predicted.get("rank_other_hint", ()), category_of_hint),
        },
    )


def _predict_all(
    config: Config, classifier: "Classifier", examples: list[Example], exchanged: Mapping[str, list[Example]]
) -> dict[str, Sequence[Prediction]]:
    """Return the predictions of every variant by its name."""
    from skincare.inference import rankings

    split, rng = config.split, random.Random(config.seed)
    found: dict[str, Sequence[Prediction]] = {
        name: classifier.predict(examples, split, classifier.decoder(name)) for name in _decoders(classifier)
    }
    for make in rankings.RANKINGS:
        decoder = make(classifier.network, classifier.encoder)
        found[decoder.name] = classifier.predict(examples, split, decoder)
    for name, changed in exchanged.items():
        found[name] = classifier.predict(changed, split, classifier.decoder("rank"))
    labels = classifier.labels
    for i in range(config.n_orders):
        other = classifier.with_label_order(rng.sample(labels.names, len(labels)))
        found[f"rank_order_{i + 1}"] = other.predict(examples, split, other.decoder("rank"))
    return found


def _other_hints(examples: Sequence[Example], seed: int) -> tuple[dict[str, list[Example]], dict[str, str]]:
    """Return variant -> the examples without hints and with hints of others; empty for a dataset without hints.

    Also image id -> the category of the image that the exchanged hint comes from.
    """
    hinted = [one for one in examples if one.hint]
    if not hinted:
        return {}, {}
    rng = random.Random(seed)
    exchanged, category_of_hint = [], {}
    for one in examples:
        others = [other for other in hinted if other.category != one.category]
        # With a single category there is no wrong hint.
        if one.hint and others:
            giver = rng.choice(others)
            category_of_hint[one.image_id] = giver.category
            exchanged.append(replace(one, hint=giver.hint))
        else:
            exchanged.append(one)
    return {"rank_no_hint": [replace(one, hint="") for one in examples], "rank_other_hint": exchanged}, category_of_hint


def _followed(predicted: Sequence[Prediction], category_of_hint: Mapping[str, str]) -> float | None:
    """Return the fraction of exchanged hints whose category was predicted; None without exchanged hints."""
    misled = [one.category == category_of_hint[one.image_id] for one in predicted if one.image_id in category_of_hint]
    return sum(misled) / len(misled) if misled else None


def _decoders(classifier: "Classifier") -> list[DecoderName]:
    return [name for name in get_args(DecoderName) if name != "head" or classifier.network.head is not None]


def _row(variant: str, predicted: Sequence[Prediction], base: Sequence[Prediction], labels: Labels) -> dict[str, Any]:
    """Return a variant's scores, and their difference to label ranking on the same images."""
    from skincare.evaluation import comparison, metrics

    scores, change = metrics.score(predicted, labels), comparison.compare(base, predicted)
    return {
        "way": variant,
        **{key: getattr(scores, key) for key in (*_INTERVAL, "coverage", "f1_macro", "n", "n_products")},
        **{key: getattr(change, key) for key in ("difference", "difference_low", "difference_high", "mcnemar_p")},
    }


def _agreement(predicted: Mapping[str, Sequence[Prediction]]) -> list[dict[str, Any]]:
    """Return for each two decoders the fraction of images with equal predictions; none counts as a prediction."""
    return [
        {"one": one, "other": other, "share": _share_alike([predicted[one], predicted[other]])}
        for one, other in itertools.combinations(predicted, 2)
    ]


def _share_alike(predicted: Sequence[Sequence[Prediction]]) -> float:
    """Return the fraction of images for which all predict the same category."""
    rows = [{one.image_id: one.category for one in found} for found in predicted]
    return sum(len({row[image_id] for row in rows}) == 1 for image_id in rows[0]) / len(rows[0])


def main() -> None:
    """Run the stage from the command line."""
    stage.main("ablations", Config, run)


if __name__ == "__main__":
    main()

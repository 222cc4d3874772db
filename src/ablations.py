"""Ask in other ways, to see what each choice is worth: decoders, rankings, the order of the labels, hints.

In: clean_dataset/val.json and its images, a model of the hub or a folder.
Out: log/ablations.json, log/ablations/{<way>.jsonl,manifest.json}.
Command: python src/ablations.py [--model models/finetuned/reference]
Time: about a second an image with the embedded tiny model on two cores.

Of a dataset with hints: rank_no_hint leaves them out, rank_other_hint gives each image the hint of one of another
category. A model that follows a wrong hint as readily as a right one does not look. Choices are made on val; --split
test is for a look back.
"""

import itertools
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from skincare import runlog, stage
from skincare.dataset.chat import Example, read_dataset
from skincare.evaluation import comparison, metrics
from skincare.inference import predictions, rankings
from skincare.inference.classifier import Classifier
from skincare.inference.decoders import NAMES
from skincare.inference.manifest import write_manifest
from skincare.inference.predictions import Prediction
from skincare.labels import Labels, labels_of
from skincare.modeling.settings import DEFAULT_MODEL, DecoderName, PixelLimits
from skincare.paths import Layout
from skincare.runlog import Summary

logger = logging.getLogger(__name__)

_INTERVAL: Final = ("accuracy", "accuracy_low", "accuracy_high")


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """What the stage can be told."""

    model: str = DEFAULT_MODEL
    """Model of the Hugging Face hub, or a local folder."""
    split: Literal["train", "val", "test"] = "val"
    """Dataset file to ask about."""
    min_tokens: int = 64
    """Least visual tokens of an image (28 x 28 pixels each)."""
    max_tokens: int = 128
    """Most visual tokens of an image."""
    n_orders: int = 3
    """Shuffled orders of the labels in the prompt, beside the usual one."""
    seed: int = 0
    """Seed of these orders."""
    batch_size: int = 8
    """Images per forward pass; it does not change the answers."""


def run(config: Config, layout: Layout) -> Summary:
    """Ask in every way, score each and set it beside the ranking by likelihood."""
    examples = read_dataset(layout, config.split)
    classifier = Classifier.load(
        config.model, labels_of(layout), layout.root, limits=PixelLimits(config.min_tokens, config.max_tokens),
        vision_cache=layout.vision_cache, prediction_cache=layout.answer_cache, batch_size=config.batch_size,
    )  # fmt: skip
    asked: dict[str, Sequence[Prediction]] = {
        name: classifier.predict(examples, config.split, classifier.decoder(name)) for name in _decoders(classifier)
    }
    for make in rankings.RANKINGS:
        decoder = make(classifier.network, classifier.encoder)
        asked[decoder.name] = classifier.predict(examples, config.split, decoder)
    without_own, spoken_of = _other_hints(examples, config.seed)
    for name, changed in without_own.items():
        asked[name] = classifier.predict(changed, config.split, classifier.decoder("rank"))
    rng, labels = random.Random(config.seed), classifier.labels
    for i in range(config.n_orders):
        other = classifier.with_label_order(rng.sample(labels.names, len(labels)))
        asked[f"rank_order_{i + 1}"] = other.predict(examples, config.split, other.decoder("rank"))
    runlog.take_back_summary("ablations", layout)
    for name, answered in asked.items():
        predictions.write_jsonl(layout.ablations / f"{name}.jsonl", answered)
    write_manifest(layout.ablations, classifier, config, {f"{name}.jsonl": some for name, some in asked.items()})
    rows = [_row(name, answered, asked["rank"], labels) for name, answered in asked.items()]
    for row in rows:
        logger.info("%-16s %6.1f %% (%.1f to %.1f)", row["way"], *(100 * row[key] for key in _INTERVAL))
    orders = [some for name, some in asked.items() if name == "rank" or name.startswith("rank_order_")]
    best = max(rows, key=lambda row: row["accuracy"])
    return Summary(
        headline=f"{len(rows)} ways on {config.split}: best {best['way']}, {best['accuracy']:.1%}; "
        f"rank {next(row['accuracy'] for row in rows if row['way'] == 'rank'):.1%}",
        counts={"images": len(examples), "ways": len(rows)},
        results={
            "model": config.model,
            "split": config.split,
            "ways": rows,
            "agreement": _agreement({name: asked[name] for name in _decoders(classifier)}),
            "alike_in_all_orders": _share_alike(orders),
            "followed_other_hint": _followed(asked.get("rank_other_hint", ()), spoken_of),
        },
    )


def _other_hints(examples: Sequence[Example], seed: int) -> tuple[dict[str, list[Example]], dict[str, str]]:
    """Return way -> the examples without their hints, and with hints of others; empty where there are no hints.

    Also image id -> the category that the exchanged hint speaks of.
    """
    hinted = [one for one in examples if one.hint]
    if not hinted:
        return {}, {}
    rng = random.Random(seed)
    exchanged, spoken_of = [], {}
    for one in examples:
        others = [other for other in hinted if other.category != one.category]
        # Where all are of one category no hint is a wrong one.
        if one.hint and others:
            giver = rng.choice(others)
            spoken_of[one.image_id] = giver.category
            exchanged.append(replace(one, hint=giver.hint))
        else:
            exchanged.append(one)
    return {"rank_no_hint": [replace(one, hint="") for one in examples], "rank_other_hint": exchanged}, spoken_of


def _followed(answered: Sequence[Prediction], spoken_of: Mapping[str, str]) -> float | None:
    """Return the share of exchanged hints whose category was answered; None where none was exchanged."""
    misled = [one.category == spoken_of[one.image_id] for one in answered if one.image_id in spoken_of]
    return sum(misled) / len(misled) if misled else None


def _decoders(classifier: Classifier) -> list[DecoderName]:
    return [name for name in NAMES if name != "head" or classifier.network.head is not None]


def _row(way: str, answered: Sequence[Prediction], base: Sequence[Prediction], labels: Labels) -> dict[str, Any]:
    """Return a way's scores, and their difference to ranking by likelihood on the same images."""
    scores, change = metrics.score(answered, labels), comparison.compare(base, answered)
    return {
        "way": way,
        **{key: getattr(scores, key) for key in (*_INTERVAL, "coverage", "f1_macro", "n", "n_products")},
        **{key: getattr(change, key) for key in ("difference", "difference_low", "difference_high", "mcnemar_p")},
    }


def _agreement(asked: Mapping[str, Sequence[Prediction]]) -> list[dict[str, Any]]:
    """Return for each two decoders the share of images about which they say the same; none is an answer too."""
    return [
        {"one": one, "other": other, "share": _share_alike([asked[one], asked[other]])}
        for one, other in itertools.combinations(asked, 2)
    ]


def _share_alike(answered: Sequence[Sequence[Prediction]]) -> float:
    """Return the share of images to which all give the same category."""
    rows = [{one.image_id: one.category for one in some} for some in answered]
    return sum(len({row[image_id] for row in rows}) == 1 for image_id in rows[0]) / len(rows[0])


def main() -> None:
    """Run the stage from the command line."""
    stage.main("ablations", Config, run)


if __name__ == "__main__":
    main()

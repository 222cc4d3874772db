"""Evaluate the model without training on the test images.

In: clean_dataset/test.json and its images, a model of the hub or a folder.
Out: log/zero_shot/{predictions.jsonl,metrics.json,manifest.json}, plots/cm_before_training.png.
With a dataset of structured answers (build_dataset.py --target product) the texts are JSON; the metrics here are those
of their category, and score_products.py scores all fields.
Command: python src/zero_shot.py [--model Qwen/Qwen2-VL-2B-Instruct]
Time: 4 s for 80 images with the embedded tiny model on two cores.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from skincare import runlog, stage
from skincare.dataset.chat import read_dataset, target_of_examples
from skincare.files import write_json
from skincare.labels import labels_of
from skincare.modeling.settings import DEFAULT_MODEL, DecoderName, PixelLimits
from skincare.paths import Layout
from skincare.prompts import labels_for
from skincare.runlog import Summary


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """Options of the stage."""

    model: str = DEFAULT_MODEL
    """Model of the Hugging Face hub, or a local folder."""
    split: Literal["train", "val", "test"] = "test"
    """Split of the dataset to evaluate on."""
    min_tokens: int = 64
    """Minimum number of visual tokens of an image (28 x 28 pixels each; Qwen3-VL: 32 x 32)."""
    max_tokens: int = 128
    """Maximum number of visual tokens of an image."""
    decoder: DecoderName = "generate"
    """generate: free text; constrained: text limited to the labels; rank: the most likely label; head: the model's
    classification head."""
    batch_size: int = 16
    """Images per forward pass; it does not change the predictions."""
    cache_images: Annotated[bool, tyro.conf.arg(aliases=("--no-cache-pictures",))] = True
    """Cache the output of the frozen vision blocks in .cache/vision; finetune.py and other decoders use it too."""
    cache_predictions: Annotated[bool, tyro.conf.arg(aliases=("--no-cache-answers",))] = True
    """Cache predictions in .cache/answers; an interrupted evaluation continues from there."""


def run(config: Config, layout: Layout) -> Summary:
    """Predict and score the split, and draw the confusion matrix."""
    # Importing torch and transformers takes seconds, which --help must not wait for.
    from skincare.evaluation import confusion_plot, metrics
    from skincare.inference import predictions
    from skincare.inference.classifier import Classifier
    from skincare.inference.manifest import write_manifest
    from skincare.modeling.freezing import count

    examples = read_dataset(layout, config.split)
    labels = labels_for(target_of_examples(examples), labels_of(layout))
    classifier = Classifier.load(
        config.model, labels, layout.root, limits=PixelLimits(config.min_tokens, config.max_tokens),
        vision_cache=layout.vision_cache if config.cache_images else None,
        prediction_cache=layout.answer_cache if config.cache_predictions else None, batch_size=config.batch_size,
    )  # fmt: skip
    predicted = classifier.predict(examples, config.split, classifier.decoder(config.decoder))
    scores = metrics.score(predicted, labels)
    runlog.remove_summary("zero_shot", layout)
    predictions.write_jsonl(layout.zero_shot / "predictions.jsonl", predicted)
    write_manifest(layout.zero_shot, classifier, config, {"predictions.jsonl": predicted})
    write_json(layout.zero_shot / "metrics.json", metrics.to_json(scores))
    confusion_plot.draw_confusion_matrix(scores, "Before training", layout.plot("cm_before_training"))
    return Summary(
        headline=f"{metrics.headline(scores)} on {config.split}",
        counts={"images": scores.n, **{f"answers: {status}": n for status, n in scores.statuses.items()}},
        results={
            "model": config.model,
            "split": config.split,
            "decoder": config.decoder,
            "n_parameters": count(classifier.network.model.parameters()),
            "device": str(classifier.device),
            "prompt": classifier.encoder.prompt_text,
            "token_side_px": classifier.encoder.token_side_px,
        },
    )


def main() -> None:
    """Run the stage from the command line."""
    stage.main("zero_shot", Config, run)


if __name__ == "__main__":
    main()

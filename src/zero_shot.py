"""Ask the model, as it is, about every test image.

In: clean_dataset/test.json and its images, a model of the hub or a folder.
Out: log/zero_shot/{predictions.jsonl,metrics.json,manifest.json}, plots/cm_before_training.png.
Command: python src/zero_shot.py [--model Qwen/Qwen2-VL-2B-Instruct]
Time: 4 s for 80 images with the embedded tiny model on two cores.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from skincare import figures, runlog, stage
from skincare.dataset.chat import read_dataset
from skincare.evaluation import metrics
from skincare.files import write_json
from skincare.inference import predictions
from skincare.inference.decoders import DecoderName
from skincare.inference.evaluated import EvaluatedModel
from skincare.modeling.freezing import count
from skincare.modeling.settings import DEFAULT_MODEL, PixelLimits
from skincare.paths import Layout
from skincare.runlog import Summary


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """What the stage can be told."""

    model: str = DEFAULT_MODEL
    """Model of the Hugging Face hub, or a local folder."""
    split: Literal["train", "val", "test"] = "test"
    """Dataset file to ask about."""
    min_tokens: int = 64
    """Least visual tokens of an image (28 x 28 pixels each)."""
    max_tokens: int = 128
    """Most visual tokens of an image."""
    decoder: DecoderName = "generate"
    """How answers are got: free text, only the 14 names, the likeliest name, or the model's classification head."""
    batch_size: int = 16
    """Images per forward pass; it does not change the answers."""
    cache_images: Annotated[bool, tyro.conf.arg(aliases=("--no-cache-pictures",))] = True
    """Keep the frozen vision prefix's output on disk (.cache/vision); finetune.py and other decoders use it too."""
    cache_answers: bool = True
    """Keep answers as they are given (.cache/answers): what was asked once is not asked again."""


def run(config: Config, layout: Layout) -> Summary:
    """Predict, score and draw."""
    examples = read_dataset(layout, config.split)
    limits = PixelLimits(config.min_tokens, config.max_tokens)
    asked = EvaluatedModel(
        config.model, layout, limits, cache_images=config.cache_images, cache_answers=config.cache_answers
    )
    answered = asked.predict(examples, config.split, asked.decoder(config.decoder), config.batch_size)
    scores = metrics.score(answered, asked.encoder.labels)
    runlog.take_back_summary("zero_shot", layout)
    predictions.write_jsonl(layout.zero_shot / "predictions.jsonl", answered)
    asked.write_manifest(layout.zero_shot, config, {"predictions.jsonl": answered})
    write_json(layout.zero_shot / "metrics.json", metrics.to_json(scores))
    figures.draw_confusion_matrix(scores, "Before training", layout.plot("cm_before_training"))
    return Summary(
        headline=f"{metrics.headline(scores)} on {config.split}",
        counts={"images": scores.n, **{f"answers: {status}": n for status, n in scores.statuses.items()}},
        results={
            "model": config.model,
            "split": config.split,
            "decoder": config.decoder,
            "n_parameters": count(asked.recogniser.model.parameters()),
            "device": str(asked.recogniser.device),
            "prompt": asked.encoder.prompt_text,
        },
    )


def main() -> None:
    """Run the stage from the command line."""
    stage.main("zero_shot", Config, run)


if __name__ == "__main__":
    main()

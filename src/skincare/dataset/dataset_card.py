"""The card of an exported dataset: Markdown with its contents, sources, licences and the code that loads it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from skincare.dataset.chat import Example
from skincare.dataset.hints import kind_of
from skincare.labels import Labels
from skincare.tables import ImageRow

NOT_RECORDED: Final = "not recorded"

_TRL: Final = """\
from datasets import load_dataset
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import SFTConfig, SFTTrainer

model = "Qwen/Qwen2-VL-2B-Instruct"
dataset = load_dataset("imagefolder", data_dir=".")  # this folder
processor = AutoProcessor.from_pretrained(model)
processor.image_processor.size = {"shortest_edge": 64 * 28 * 28, "longest_edge": 128 * 28 * 28}
trainer = SFTTrainer(
    model=AutoModelForImageTextToText.from_pretrained(model),
    args=SFTConfig("trl-output", max_length=None, per_device_train_batch_size=4),  # no cut through the image's tokens
    train_dataset=dataset["train"],
    eval_dataset=dataset["validation"],
    processing_class=processor,
)
trainer.train()"""
_LOADING: Final = {
    "parquet": 'from datasets import load_dataset\n\ndataset = load_dataset("parquet", data_files={files})',
    "webdataset": 'from datasets import load_dataset\n\ndataset = load_dataset("webdataset", data_files={files})',
    "trl": _TRL,
    "llamafactory": "llamafactory-cli train ... --dataset_dir <this folder> --dataset skincare_train",
    "ms-swift": "cd <this folder>\nswift sft --dataset train.jsonl --val_dataset val.jsonl --model ...",
    "imagefolder": 'from datasets import load_dataset\n\ndataset = load_dataset("imagefolder", data_dir=".")',
}
_ENDINGS: Final = {"parquet": "parquet", "webdataset": "tar"}


def dataset_card(
    kind: str,
    parts: Mapping[str, Sequence[Example]],
    images: Mapping[str, ImageRow],
    fingerprint: str,
    labels: Labels,
) -> str:
    """Return the card; `images` are the scraped images by id, where they are known."""
    everything = [one for part in parts.values() for one in part]
    licences = Counter(_licence(images.get(one.image_id)) for one in everything)
    sources = Counter(_source(images.get(one.image_id)) for one in everything)
    header = " | ".join(parts)
    counts = {split: Counter(one.category for one in part) for split, part in parts.items()}
    rows = [f"| {name} | {' | '.join(str(counts[split][name]) for split in parts)} |" for name in labels.names]
    totals = " | ".join(str(len(part)) for part in parts.values())
    products = " | ".join(str(len({one.product_id for one in part})) for part in parts.values())
    data_files = {split: f"{split}-*.{_ENDINGS[kind]}" for split in parts} if kind in _ENDINGS else {}
    lines = [
        "# Product photos with their categories", "",
        f"{len(everything):,} photos of {len({one.product_id for one in everything}):,} products, each with one of "
        f"{len(labels)} categories. Split by product: no product, size of it or shared photo is in two splits, unless "
        "the dataset was built with `--split image`.", "",
        *_about_hints(everything),
        f"Split fingerprint: `{fingerprint}` (SHA-256 over the sorted lines of split, image and category).", "",
        f"| Category | {header} |", f"|---|{'---:|' * len(parts)}", *rows,
        f"| Photos | {totals} |", f"| Products | {products} |", "",
        "## Sources", "", *_counted(sources), "",
        "## Licences", "", *_counted(licences), "",
        "`images.csv` has the source, licence and attribution of each image. Photos without a stated licence belong to "
        "their owners: do not publish them. Every image is an upright RGB JPEG; file names are relative to this "
        "folder.", "",
        "## Loading", "", f"```\n{_LOADING[kind].replace('{files}', repr(data_files))}\n```", "",
    ]  # fmt: skip
    if kind in _ENDINGS:
        lines += ["`python src/finetune.py --dataset <this folder or its URL>` trains from it.", ""]
    return "\n".join(lines)


def _about_hints(examples: Sequence[Example]) -> list[str]:
    n_hints = sum(bool(one.hint) for one in examples)
    if not n_hints:
        return []
    what = {"text": "text that OCR read on the pack", "metadata": "facts of the shop's page"}
    kind = kind_of(one.hint for one in examples)
    return [f"{n_hints:,} of the questions have a hint in a second line: {what[kind]}.", ""]


def _licence(row: ImageRow | None) -> str:
    return (row.licence if row else "") or NOT_RECORDED


def _source(row: ImageRow | None) -> str:
    return (urlsplit(row.product_url).hostname if row else "") or NOT_RECORDED


def _counted(counts: Counter[str]) -> list[str]:
    return [f"- {name}: {n:,} photos" for name, n in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))]

"""The forms of an export in which each image is a file, for other trainers: TRL, LLaMA-Factory, ms-swift, ImageFolder.

    trl            train/metadata.jsonl, train/<image>.jpg      `datasets` loads it with an `images` column
    llamafactory   dataset_info.json, train.json, images/
    ms-swift       train.jsonl, images/
    imagefolder    train/<category>/<image>.jpg                 for torchvision and `datasets`

Every name in them is relative to the export, so that it can be moved. The prompt is the pipeline's own: instruction,
image, question with its hint; the answer is that of the dataset.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

from skincare.dataset.chat import Example
from skincare.labels import Labels
from skincare.prompts import with_hint

FileFormat = Literal["trl", "llamafactory", "ms-swift", "imagefolder"]
# The tag that LLaMA-Factory and ms-swift replace by the image.
_PLACEHOLDER: Final = "<image>"
# File systems allow 255, of which a number takes some.
_MAX_FOLDER_BYTES: Final = 200


@dataclass(frozen=True)
class FileForm:
    """The layout of an export format.

    image_path: of an example of a split of a dataset with these labels, below the export. annotations: the files that
    name the images, by name.
    """

    image_path: Callable[[str, Example, Labels], str]
    annotations: Callable[[Mapping[str, Sequence[Example]], Labels], dict[str, str]]


def _flat_path(_split: str, one: Example, _labels: Labels) -> str:
    return f"images/{_file_name(one)}"


def _split_path(split: str, one: Example, _labels: Labels) -> str:
    return f"{split}/{_file_name(one)}"


def _category_path(split: str, one: Example, labels: Labels) -> str:
    return f"{split}/{category_folders(labels.names)[one.category]}/{_file_name(one)}"


def _file_name(one: Example) -> str:
    return one.image.rpartition("/")[2]


@lru_cache
def category_folders(names: tuple[str, ...]) -> dict[str, str]:
    """Return category -> folder: its name without path separators, with a number where an earlier one has that folder.

    Names that differ in case only count as equal, since file systems of Windows and macOS ignore it.
    """
    folders: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        plain = _folder_name(name)
        numbered = (plain, *(f"{plain} ({n})" for n in range(2, len(names) + 2)))
        folders[name] = next(one for one in numbered if one.casefold() not in taken)
        taken.add(folders[name].casefold())
    return folders


def _folder_name(name: str) -> str:
    plain = name.replace("/", "-").replace("\\", "-").lstrip(".") or "-"
    return plain.encode()[:_MAX_FOLDER_BYTES].decode(errors="ignore")


def _trl(parts: Mapping[str, Sequence[Example]], labels: Labels) -> dict[str, str]:
    """Return metadata files with prompt and completion, since TRL then computes the loss on the answer alone.

    `datasets` makes the column `images` of `images_file_names`; TRL puts the image before the question.
    Source: https://huggingface.co/docs/trl/dataset_formats and https://huggingface.co/docs/datasets/image_dataset
    """
    return {
        f"{split}/metadata.jsonl": _json_lines(
            {
                "images_file_names": [_file_name(one)],
                "prompt": _prompt(one, labels, placeholder=""),
                "completion": _completion(one),
            }
            for one in part
        )
        for split, part in parts.items()
    }


def _llamafactory(parts: Mapping[str, Sequence[Example]], labels: Labels) -> dict[str, str]:
    """Return the files of the `sharegpt` format with OpenAI's roles; images are looked up in `dataset_dir`.

    Source: https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md
    """
    tags = {
        "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
        "system_tag": "system",
    }  # fmt: skip
    described = {
        f"skincare_{split}": {
            "file_name": f"{split}.json",
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "images": "images"},
            "tags": tags,
        }
        for split in parts
    }
    files = {
        f"{split}.json": json.dumps([_conversation(one, labels) for one in part], indent=1, ensure_ascii=False) + "\n"
        for split, part in parts.items()
    }
    return {"dataset_info.json": json.dumps(described, indent=2) + "\n", **files}


def _ms_swift(parts: Mapping[str, Sequence[Example]], labels: Labels) -> dict[str, str]:
    """Return one file of JSON Lines per split.

    Source: https://swift.readthedocs.io/en/latest/Customization/Custom-dataset.html
    """
    return {f"{split}.jsonl": _json_lines(_conversation(one, labels) for one in part) for split, part in parts.items()}


def _imagefolder(_parts: Mapping[str, Sequence[Example]], labels: Labels) -> dict[str, str]:
    """Return the list of all categories: a split that lacks one has no folder of it."""
    return {"categories.txt": "".join(f"{folder}\n" for folder in category_folders(labels.names).values())}


def _conversation(one: Example, labels: Labels) -> dict[str, Any]:
    return {
        "messages": _prompt(one, labels, _PLACEHOLDER) + _completion(one),
        "images": [_flat_path("", one, labels)],
    }


def _prompt(one: Example, labels: Labels, placeholder: str) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": labels.system_prompt()},
        {"role": "user", "content": f"{placeholder}{with_hint(one.question, one.hint)}"},
    ]


def _completion(one: Example) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": one.answer}]


def _json_lines(elements: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(element, ensure_ascii=False) + "\n" for element in elements)


FILE_FORMS: Final[dict[FileFormat, FileForm]] = {
    "trl": FileForm(_split_path, _trl),
    "llamafactory": FileForm(_flat_path, _llamafactory),
    "ms-swift": FileForm(_flat_path, _ms_swift),
    "imagefolder": FileForm(_category_path, _imagefolder),
}

"""All that decides what a run learns: an interrupted run goes on only as the same, a kept result counts only for it.

The weights are hashed from the checkpoint's files: the same whatever device, dtype or quantisation they are loaded to.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from skincare.categories import CATEGORIES
from skincare.dataset.chat import Example
from skincare.dataset.image_files import ImageFiles
from skincare.modeling.batches import PromptEncoder
from skincare.modeling.model import checkpoint_hashes
from skincare.prompts import question
from skincare.runlog import to_plain
from skincare.training.recipes import Recipe

_HASH: Final = re.compile(r"[0-9a-f]{16}")
_LONGEST_SHOWN: Final = 40


def compute(
    model: str, encoder: PromptEncoder, recipe: Recipe, seed: int, train: Sequence[Example], val: Sequence[Example],
    files: ImageFiles,
) -> dict[str, Any]:  # fmt: skip
    """Return what a run is, in JSON's types: by name, from what it starts, what it is asked and what it learns from."""
    processor = encoder.processor.image_processor
    identity = {
        # A better wording is no other recipe.
        "recipe": {key: value for key, value in to_plain(recipe).items() if key != "description"},
        "seed": seed,
        "data": {"train": fingerprint(train, files), "val": fingerprint(val, files)},
        "model": checkpoint_hashes(model),
        "processor": {"class": type(processor).__name__, **json.loads(processor.to_json_string())},
        "template": _hash(encoder.processor.chat_template),
        "prompt": {"text": encoder.prompt_text, "tokens": encoder.prompt_tokens, "hinted": question("hint")},
        "labels": {name: encoder.answer_tokens(name) for name in CATEGORIES},
    }
    as_saved: dict[str, Any] = json.loads(json.dumps(identity))
    return as_saved


def fingerprint(examples: Sequence[Example], files: ImageFiles) -> str:
    """Return 16 hex digits over the examples' names, categories, hints and images, whatever their order."""
    with ThreadPoolExecutor() as pool:
        hashes = pool.map(files.sha256_of, [one.image for one in examples])
        lines = [
            json.dumps([one.image, one.category, one.hint, sha256])
            for one, sha256 in zip(examples, hashes, strict=True)
        ]
    return _hash("\n".join(sorted(lines)))


def digest(identity: Mapping[str, Any]) -> str:
    """Return 16 hex digits over an identity."""
    return _hash(json.dumps(identity, sort_keys=True))


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs, for people: `recipe (max_epochs 3, now 6)`; nothing where it is the same run."""
    absent = [f"{name} (not recorded)" for name in now if name not in saved]
    other = [f"{name}{_detail(saved[name], now[name])}" for name in now if name in saved and saved[name] != now[name]]
    return other + absent


def _detail(old: Any, new: Any) -> str:
    """Return in brackets what of a value has changed, and from what to what where that is short."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        changed = [part for part in dict.fromkeys([*new, *old]) if old.get(part) != new.get(part)]
        return f" ({', '.join(part + _change(old.get(part), new.get(part)) for part in changed)})"
    return _change(old, new)


def _change(old: Any, new: Any) -> str:
    shown = [json.dumps(one, ensure_ascii=False) for one in (old, new)]
    if any(len(one) > _LONGEST_SHOWN or _HASH.search(one) for one in shown):
        return ""
    return " {}, now {}".format(*shown)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]

"""The identity of a run: everything that affects what it learns.

An interrupted run is resumed, and a stored result reused, only for an equal identity. Weights are hashed from the
checkpoint's files, so that the hash does not depend on device, dtype or quantisation.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from skincare.dataset.chat import Example
from skincare.dataset.image_files import ImageFiles
from skincare.modeling.loading import checkpoint_hashes
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.prompts import target_of, with_hint
from skincare.runlog import to_plain
from skincare.training.run_spec import RunSpec

_HASH: Final = re.compile(r"[0-9a-f]{16}")
_LONGEST_SHOWN: Final = 40


def compute(spec: RunSpec, encoder: PromptEncoder) -> dict[str, Any]:
    """Return the identity of a run as JSON types: recipe, seed, data, checkpoint, processor, prompt and labels."""
    processor, data = encoder.processor.image_processor, spec.data
    identity = {
        # Rewording the description does not change the recipe.
        "recipe": {key: value for key, value in to_plain(spec.recipe).items() if key != "description"},
        "seed": spec.seed,
        "data": {split: fingerprint(getattr(data, split), data.files) for split in ("train", "val")},
        "model": checkpoint_hashes(spec.settings.model),
        "processor": {"class": type(processor).__name__, **json.loads(processor.to_json_string())},
        "template": _hash(encoder.processor.chat_template),
        "prompt": {
            "text": encoder.prompt_text,
            "tokens": encoder.prompt_tokens,
            "hinted": with_hint(encoder.labels.question, "hint"),
        },
        "labels": {name: encoder.answer_tokens(name) for name in encoder.labels.names},
        "labels_file": encoder.labels.digest,
    }
    if target_of(encoder.labels) == "product":
        identity["criterion"] = "val_document_anls"
    as_saved: dict[str, Any] = json.loads(json.dumps(identity))
    return as_saved


def fingerprint(examples: Sequence[Example], files: ImageFiles) -> str:
    """Return 16 hex digits over the examples' names, categories, hints and image bytes, independent of their order."""
    with ThreadPoolExecutor() as pool:
        hashes = pool.map(files.sha256_of, [one.image for one in examples])
        lines = [
            json.dumps([one.image, one.answer, one.hint, sha256]) for one, sha256 in zip(examples, hashes, strict=True)
        ]
    return _hash("\n".join(sorted(lines)))


def digest(identity: Mapping[str, Any]) -> str:
    """Return 16 hex digits over an identity."""
    return _hash(json.dumps(identity, sort_keys=True))


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the differences as text, such as `recipe (max_epochs 3, now 6)`; empty for the same run."""
    absent = [f"{name} (not recorded)" for name in now if name not in saved]
    other = [f"{name}{_detail(saved[name], now[name])}" for name in now if name in saved and saved[name] != now[name]]
    return other + absent


def _detail(old: Any, new: Any) -> str:
    """Return the changed parts of a value in brackets, with old and new values where they are short."""
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

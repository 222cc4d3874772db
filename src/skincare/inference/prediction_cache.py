"""The prediction cache: decoder outputs are stored after each batch, so that a killed evaluation continues.

One append-only file per model, prompt, processor and decoder, one JSON line per image. The key of a line is a hash of
everything that an output depends on: the image's bytes, its hint and `identity`. A line torn by a crash is ignored.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from skincare.inference.decoder_output import DecoderOutput

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachedOutput:
    """A decoder output and its share of the batch's seconds."""

    answer: DecoderOutput
    latency_s: float


class PredictionCache:
    """The stored outputs of an `identity`; without a folder nothing is stored and it only gives the keys."""

    def __init__(self, identity: Mapping[str, Any], folder: Path | None) -> None:
        self._identity = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self.path = folder / f"{self._identity[:16]}.jsonl" if folder else None
        self._entries = _read(self.path) if self.path else {}

    def key(self, image_sha256: str, hint: str = "") -> str:
        """Return the key of an image with its hint: 32 hex digits."""
        query = f"{image_sha256} {hint}" if hint else image_sha256
        return hashlib.sha256(f"{self._identity} {query}".encode()).hexdigest()[:32]

    def get(self, key: str) -> CachedOutput | None:
        """Return a stored output."""
        return self._entries.get(key)

    def add(self, entries: Iterable[tuple[str, CachedOutput]]) -> None:
        """Append outputs by their keys, durably."""
        new = dict(entries)
        if not self.path or not new:
            return
        self._entries |= new
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(
            f"{json.dumps({'key': key, **asdict(entry)}, ensure_ascii=False)}\n" for key, entry in new.items()
        )
        with self.path.open("a+b") as file:
            file.write((b"" if _ends_a_line(self.path) else b"\n") + lines.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())


def _ends_a_line(path: Path) -> bool:
    """Return whether a file is empty or ends with a complete line."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        return file.read() in (b"", b"\n")


def _read(path: Path) -> dict[str, CachedOutput]:
    if not path.is_file():
        return {}
    lines = [line for line in path.read_bytes().split(b"\n") if line]
    entries = dict(entry for line in lines if (entry := _entry(line)))
    logger.info("%d predictions are cached in %s", len(entries), path)
    return entries


def _entry(line: bytes) -> tuple[str, CachedOutput] | None:
    """Return key and entry of a line, None for a torn line or another format."""
    try:
        value = json.loads(line)
        given = value["answer"]
        answer = DecoderOutput(
            str(given["text"]),
            int(given["n_new_tokens"]),
            bool(given["is_finished"]),
            tuple(float(one) for one in given["log_probabilities"]),
            tuple((str(name), float(one)) for name, one in given.get("field_log_probabilities", ())),
        )
        return str(value["key"]), CachedOutput(answer, float(value["latency_s"]))
    except (ValueError, KeyError, TypeError):
        return None

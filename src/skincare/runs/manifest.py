"""One manifest for each run of a stage: log/runs/<id>.json.

A manifest holds what a run read and wrote by content hash, its options, labels, seed, versions, results, and its
parents: the earlier runs that wrote what it read. Folders are recorded by the digest of their listing, which is kept
once in log/runs/listings/. Manifests are never changed; `runs.py` lists, compares and verifies them.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from skincare import labels as label_files
from skincare import runlog
from skincare.errors import MissingInputError, StageError
from skincare.files import write_json, write_text
from skincare.paths import REPOSITORY, Layout
from skincare.runlog import Summary
from skincare.runs.artifacts import artifacts_of
from skincare.runs.content import ContentHasher, Listing, is_safe_path, parse_listing, time_id

logger = logging.getLogger(__name__)

FORMAT: Final = 1
_ID: Final = re.compile(r"\d{8}T\d{9}-[a-z_]+-[0-9a-f]{8}")
_PLAIN_FIELDS: Final = ("stage", "run", "started", "seconds", "headline", "config", "results", "context")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Artifact:
    """A recorded file or folder: its content hash, size, and for a folder the number of its files.

    changed: whether it was written to while the run was reading it, so that the hash may be of other content.
    """

    sha256: str
    n_bytes: int
    n_files: int | None = None
    changed: bool = False

    @property
    def is_folder(self) -> bool:
        """Return whether `sha256` is the digest of a listing."""
        return self.n_files is not None


@dataclass(frozen=True)
class Manifest:
    """One finished run; `inputs` and `outputs` by path relative to the root, else as the run was given it."""

    id: str
    stage: str
    run: str
    started: str
    seconds: float
    headline: str
    inputs: Mapping[str, Artifact]
    outputs: Mapping[str, Artifact]
    parents: tuple[str, ...]
    config: Mapping[str, Any]
    results: Mapping[str, Any]
    # Seeds, labels, counts, commit, command, versions, machine.
    context: Mapping[str, Any]

    @property
    def short_id(self) -> str:
        """Return the last part of the id, by which a run can be named."""
        return self.id.rsplit("-", 1)[1]


def record(stage: str, layout: Layout, config: Any, summary: Summary, started: datetime) -> Path:
    """Write the manifest of a run that has just ended; return its path."""
    paths = artifacts_of(stage, layout, config, summary.results)
    with ContentHasher(layout) as hasher:
        inputs = _artifacts(paths.inputs, layout, hasher, started)
        outputs = _artifacts(paths.outputs, layout, hasher)
    value = {
        "format": FORMAT,
        "stage": stage,
        "run": str(summary.results.get("run") or getattr(config, "run", "") or ""),
        "started": started.isoformat(timespec="seconds"),
        "seconds": round((datetime.now(UTC) - started).total_seconds(), 1),
        "headline": summary.headline,
        "inputs": {path: _plain(one) for path, one in inputs.items()},
        "outputs": {path: _plain(one) for path, one in outputs.items()},
        "parents": _parents(inputs, read_all(layout) if inputs else []),
        "config": runlog.to_plain(config),
        "results": runlog.to_plain(summary.results),
        "context": {
            "seed": getattr(config, "seed", None),
            "labels": label_files.labels_of(layout).digest,
            "counts": dict(summary.counts),
            **runlog.environment(),
        },
    }
    digest = hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:8]
    path = layout.run_manifest(f"{time_id(started)}-{stage}-{digest}")
    write_json(path, value)
    return path


def read_all(layout: Layout) -> list[Manifest]:
    """Return the manifests, oldest first; one that cannot be read is logged and left out."""
    found = []
    for path in sorted(layout.runs.glob("*.json")):
        try:
            found.append(read(path))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("%s is left out: it is no manifest (%s)", path, error)
    return found


def read(path: Path) -> Manifest:
    """Return one manifest; raises ValueError, KeyError or TypeError for a file that is none."""
    value = json.loads(path.read_text(encoding="utf-8"))
    if not _ID.fullmatch(path.stem) or value["format"] != FORMAT:
        raise ValueError("name or format is unknown")
    return Manifest(
        id=path.stem,
        inputs={name: _artifact(one) for name, one in value["inputs"].items()},
        outputs={name: _artifact(one) for name, one in value["outputs"].items()},
        parents=tuple(value["parents"]),
        **{name: value[name] for name in _PLAIN_FIELDS},
    )


def find(manifests: Sequence[Manifest], name: str) -> Manifest:
    """Return the run of an id, the end or start of one, a training run's name, or a stage (its newest run).

    Raises MissingInputError for a name without a run and StageError for one of several runs.
    """
    by_id = [one for one in manifests if one.id == name or one.short_id == name or one.id.startswith(name)]
    if len(by_id) > 1:
        raise StageError(f"{name!r} could be any of {', '.join(one.id for one in by_id[:5])}")
    newest = [one for one in manifests if one.run == name and one.stage == "finetune"]
    newest = newest or [one for one in manifests if one.stage == name]
    if not by_id and not newest:
        raise MissingInputError(f"run {name!r}", "log/runs", "`python src/runs.py list` shows the recorded runs.")
    return by_id[0] if by_id else newest[-1]


def listing(layout: Layout, artifact: Artifact) -> Listing:
    """Return the kept listing of a folder; raises StageError when it is absent or not the recorded one."""
    path = layout.run_listing(artifact.sha256)
    try:
        found = parse_listing(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StageError(f"{path}: the listing of a folder cannot be read ({error})") from error
    if found.digest != artifact.sha256 or not all(is_safe_path(one.path) for one in found.entries):
        raise StageError(f"{path}: the listing of a folder was changed")
    return found


def location(layout: Layout, name: str) -> Path:
    """Return the path of a recorded artifact: below the root, or where the run was given it."""
    below = layout.root / name
    return below if below.exists() or not (REPOSITORY / name).exists() else REPOSITORY / name


def _artifacts(
    paths: Iterable[Path], layout: Layout, hasher: ContentHasher, started: datetime | None = None
) -> dict[str, Artifact]:
    """Return the artifacts of the paths that exist; the listings of folders are written."""
    found = {}
    for path in dict.fromkeys(paths):
        if path.is_dir():
            content = hasher.listing(path)
            if not layout.run_listing(content.digest).is_file():
                write_text(layout.run_listing(content.digest), content.text)
            artifact = Artifact(content.digest, content.n_bytes, len(content.entries), _is_newer(path, started))
        elif path.is_file():
            entry = hasher.file(path)
            artifact = Artifact(entry.sha256, entry.n_bytes, changed=_is_newer(path, started))
        else:
            continue
        name = path.relative_to(layout.root).as_posix() if path.is_relative_to(layout.root) else runlog.to_plain(path)
        found[name] = artifact
    return found


def _is_newer(path: Path, started: datetime | None) -> bool:
    return started is not None and path.stat().st_mtime > started.timestamp()


def _parents(inputs: Mapping[str, Artifact], earlier: Sequence[Manifest]) -> list[str]:
    """Return the newest run that wrote each input with this content, oldest first."""
    parents = set()
    for name, artifact in inputs.items():
        made_by = [one.id for one in earlier if name in one.outputs and one.outputs[name].sha256 == artifact.sha256]
        parents.update(made_by[-1:])
    return sorted(parents)


def _plain(artifact: Artifact) -> dict[str, Any]:
    value: dict[str, Any] = {"sha256": artifact.sha256, "n_bytes": artifact.n_bytes}
    if artifact.n_files is not None:
        value["n_files"] = artifact.n_files
    if artifact.changed:
        value["changed_during_the_run"] = True
    return value


def _artifact(value: Mapping[str, Any]) -> Artifact:
    if not _DIGEST.fullmatch(value["sha256"]):
        raise ValueError("a content hash is malformed")
    return Artifact(
        value["sha256"], int(value["n_bytes"]), value.get("n_files"), value.get("changed_during_the_run", False)
    )

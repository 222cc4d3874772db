"""What differs between two runs, and what has changed since a run: manifests in, rows out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from skincare.errors import StageError
from skincare.paths import Layout
from skincare.runs import manifest
from skincare.runs.content import ContentHasher, Listing
from skincare.runs.manifest import Artifact, Manifest

# They differ between any two runs and explain nothing.
_IGNORED: Final = ("context.command", "config.root", "config.overwrite", "config.resume", "config.restart")
_ABSENT: Final = "-"


@dataclass(frozen=True)
class Difference:
    """One value of two runs as text; `change` is the difference of numbers, or what differs between two folders."""

    section: str
    name: str
    before: str
    after: str
    change: str = ""


@dataclass(frozen=True)
class State:
    """An output as it is now; `state` is unchanged, changed or missing."""

    path: str
    run_id: str
    state: str
    detail: str = ""


def differences(layout: Layout, before: Manifest, after: Manifest) -> list[Difference]:
    """Return all differences in inputs, options, context, outputs and results, in this order."""
    rows = list(_artifact_differences(layout, "inputs", before.inputs, after.inputs))
    for section in ("config", "context", "results"):
        if section == "results":
            rows += _artifact_differences(layout, "outputs", before.outputs, after.outputs)
        rows += _value_differences(section, getattr(before, section), getattr(after, section))
    return rows


def states(layout: Layout, manifests: Sequence[Manifest]) -> list[State]:
    """Hash again what the runs wrote; of a path that several of them wrote, the newest run decides."""
    newest = {path: (one.id, artifact) for one in manifests for path, artifact in one.outputs.items()}
    with ContentHasher(layout, use_cache=False) as hasher:
        return [_state(layout, hasher, path, *newest[path]) for path in sorted(newest)]


def flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested values under dotted names; lists stay whole."""
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _state(layout: Layout, hasher: ContentHasher, path: str, run_id: str, artifact: Artifact) -> State:
    place = manifest.location(layout, path)
    if artifact.is_folder and place.is_dir():
        now = hasher.listing(place)
        if now.digest == artifact.sha256:
            return State(path, run_id, "unchanged")
        return State(path, run_id, "changed", _listing_change(layout, artifact, now))
    if not artifact.is_folder and place.is_file():
        is_same = hasher.file(place).sha256 == artifact.sha256
        return State(path, run_id, "unchanged" if is_same else "changed")
    return State(path, run_id, "missing")


def _artifact_differences(
    layout: Layout, section: str, before: Mapping[str, Artifact], after: Mapping[str, Artifact]
) -> Iterator[Difference]:
    for path in sorted({*before, *after}):
        one, other = before.get(path), after.get(path)
        if one is not None and other is not None and one.sha256 == other.sha256:
            continue
        change = ""
        if one is not None and other is not None and one.is_folder and other.is_folder:
            try:
                change = _listing_change(layout, one, manifest.listing(layout, other))
            except StageError as error:
                change = str(error)
        yield Difference(section, path, _shown(one), _shown(other), change)


def _listing_change(layout: Layout, before: Artifact, now: Listing) -> str:
    """Return what was added, removed and changed, with the first names."""
    try:
        old = {one.path: one.sha256 for one in manifest.listing(layout, before).entries}
    except StageError:
        return "its listing is not kept"
    new = {one.path: one.sha256 for one in now.entries}
    kinds = {
        "added": sorted(new.keys() - old.keys()),
        "removed": sorted(old.keys() - new.keys()),
        "changed": sorted(path for path in old.keys() & new.keys() if old[path] != new[path]),
    }
    return "; ".join(
        f"{len(paths)} {kind} ({', '.join(paths[:3])}{', ...' if len(paths) > 3 else ''})"
        for kind, paths in kinds.items()
        if paths
    )


def _value_differences(section: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
    one, other = (dict(flat(value, f"{section}.")) for value in (before, after))
    for name in dict.fromkeys([*one, *other]):
        if name in _IGNORED or (name in one and name in other and one[name] == other[name]):
            continue
        first, second = one.get(name, _ABSENT), other.get(name, _ABSENT)
        yield Difference(section, name.partition(".")[2], _text(first), _text(second), _change(first, second))


def _change(before: Any, after: Any) -> str:
    numbers = [value for value in (before, after) if isinstance(value, int | float) and not isinstance(value, bool)]
    return f"{after - before:+.4g}" if len(numbers) == 2 else ""


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _shown(artifact: Artifact | None) -> str:
    if artifact is None:
        return _ABSENT
    return f"{artifact.sha256[:12]}" + (f" ({artifact.n_files} files)" if artifact.is_folder else "")

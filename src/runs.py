"""The record of runs: list, show, compare, verify; backup and restore of data, models and logs; deletion of old ones.

In: log/runs/, where every stage leaves a manifest of each run: inputs and outputs by content hash, options, labels,
seed, versions, results, parents.
Out: the result on standard output; `backup` writes to LOCATION: a folder, or s3://bucket/prefix, sftp://host/folder or
another fsspec storage, with credentials from its own environment variables; `restore` writes below --root.
Command: python src/runs.py list                        all runs; `list LOCATION` the snapshots of a backup
         python src/runs.py show RUN                    RUN: an id or its end, a training run, a stage (its newest run)
         python src/runs.py compare RUN RUN             what differs in inputs, options, versions, outputs and results
         python src/runs.py verify [RUN ...]            hash outputs again; `verify LOCATION` the stored objects
         python src/runs.py backup LOCATION             uploads only new content, then writes a snapshot
         python src/runs.py restore LOCATION [--snapshot ID]
         python src/runs.py prune [LOCATION] --keep 5   lists old models (old snapshots); --yes deletes them
Time: seconds; backups at the speed of the disk or network. Exit code 1: something was changed, missing or damaged.
"""

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from skincare import stage
from skincare.errors import StageError
from skincare.paths import Layout
from skincare.runlog import Summary
from skincare.runs import backup, differences, manifest, retention
from skincare.runs.backup_store import BackupStore
from skincare.runs.content import sha256_of
from skincare.runs.manifest import Manifest

logger = logging.getLogger(__name__)

Action = Literal["list", "show", "compare", "verify", "backup", "restore", "prune"]
Part = Literal["dataset", "models", "logs"]


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """Options of the stage."""

    action: Annotated[Action, tyro.conf.Positional] = "list"
    """The action."""
    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Runs, or the location of a backup."""
    parts: tuple[Part, ...] = ("dataset", "models", "logs")
    """The parts that `backup` copies."""
    snapshot: str = ""
    """Snapshot to restore or verify; by default the newest."""
    overwrite: bool = False
    """Let `restore` replace files that have other content."""
    keep: int = 5
    """Number of models or snapshots that `prune` keeps."""
    grace_hours: float = 24.0
    """Age below which `prune` keeps stored objects that no snapshot names: a backup may be running."""
    yes: bool = False
    """Let `prune` delete; without it the list is only shown."""
    json: bool = False
    """Print JSON."""

    @property
    def writes_summary(self) -> bool:
        """Return False: this stage is not a run of the pipeline."""
        return False

    def resume_hint(self, layout: Layout) -> str:
        """Return how to continue, without the location, which may contain a password."""
        del layout
        return "the same command resumes"


def run(config: Config, layout: Layout) -> Summary:
    """Run the action of the command line."""
    n_least, n_most = {"show": (1, 1), "compare": (2, 2), "list": (0, 1), "prune": (0, 1), "verify": (0, 1000)}.get(
        config.action, (1, 1)
    )
    if not n_least <= len(config.names) <= n_most:
        expected = {"compare": "two runs", "show": "one run", "backup": "one location", "restore": "one location"}
        raise StageError(f"{config.action} takes {expected.get(config.action, 'at most one location')}; see --help")
    if config.keep < 1:
        raise StageError("--keep must be at least 1")
    return _ACTIONS[config.action](config, layout)


def _list(config: Config, layout: Layout) -> Summary:
    if config.names:
        snapshots = BackupStore(config.names[0]).snapshots()
        _print(config, snapshots, snapshots)
        return Summary(headline=f"{len(snapshots)} snapshots")
    runs = manifest.read_all(layout)
    rows = [(one.short_id, one.started[:19], one.stage, one.run, f"{one.seconds:.0f} s", one.headline) for one in runs]
    _print(config, [asdict(one) for one in runs], _table(("run", "started", "stage", "name", "time", "result"), rows))
    return Summary(headline=f"{len(runs)} runs")


def _show(config: Config, layout: Layout) -> Summary:
    runs = manifest.read_all(layout)
    one = manifest.find(runs, config.names[0])
    lines = [
        one.id,
        f"  {one.headline}",
        f"  started {one.started}, {one.seconds:.1f} s",
        f"  {one.context['command']}",
    ]
    for title, artifacts in (("inputs", one.inputs), ("outputs", one.outputs)):
        lines.append(title)
        for path, artifact in artifacts.items():
            size = f"{artifact.n_files} files, " if artifact.is_folder else ""
            changed = ", changed during the run" if artifact.changed else ""
            lines.append(f"  {artifact.sha256[:12]}  {path} ({size}{artifact.n_bytes:,} bytes{changed})")
    lines += ["made from", *_ancestors(runs, one, "  ")]
    for title, values in (("options", one.config), ("context", one.context), ("results", one.results)):
        lines += [title, *(f"  {name}: {_shortened(value)}" for name, value in differences.flat(values))]
    _print(config, asdict(one), lines)
    return Summary(headline=f"run {one.short_id}")


def _ancestors(runs: list[Manifest], one: Manifest, indent: str) -> list[str]:
    """Return the ancestors of a run, each before its own ancestors."""
    by_id = {run.id: run for run in runs}
    lines = []
    for parent in one.parents:
        found = by_id.get(parent)
        lines.append(f"{indent}{parent}" + (f"  {found.headline}" if found else "  (no longer recorded)"))
        lines += _ancestors(runs, found, indent + "  ") if found else []
    return lines


def _compare(config: Config, layout: Layout) -> Summary:
    runs = manifest.read_all(layout)
    before, after = (manifest.find(runs, name) for name in config.names)
    rows = differences.differences(layout, before, after)
    lines = [f"{before.id} -> {after.id}"]
    for section in ("inputs", "config", "context", "outputs", "results"):
        found = [(one.name, one.before, one.after, one.change) for one in rows if one.section == section]
        lines += ["", *_table((section, before.short_id, after.short_id, "change"), found)] if found else []
    lines += _paired_accuracy(layout, before, after)
    _print(config, [asdict(one) for one in rows], lines)
    return Summary(headline=f"{len(rows)} differences")


def _paired_accuracy(layout: Layout, before: Manifest, after: Manifest) -> list[str]:
    """Return the paired comparison of two training runs on the same test images, unless their predictions changed."""
    if (before.stage, after.stage) != ("finetune", "finetune") or before.run == after.run:
        return []
    # Importing numpy and scipy takes a second, which the other actions must not wait for.
    from skincare.evaluation import comparison
    from skincare.inference import predictions
    from skincare.labels import labels_of

    found = []
    for one in (before, after):
        path = layout.finetune_log(one.run) / "test_predictions.jsonl"
        recorded = one.outputs.get(layout.relative(path))
        if recorded is None or not path.is_file() or sha256_of(path) != recorded.sha256:
            return ["", f"accuracy: not compared, the test predictions of {one.short_id} have changed since"]
        found.append(predictions.read_jsonl(path, labels_of(layout)))
    try:
        result = comparison.compare(*found)
    except StageError as error:
        return ["", f"accuracy: not compared, {error}"]
    return [
        "",
        f"accuracy on {result.n} test images of {result.n_products} products: {result.accuracy_before:.1%} -> "
        f"{result.accuracy_after:.1%}, difference {100 * result.difference:+.1f} points "
        f"({100 * result.difference_low:+.1f} to {100 * result.difference_high:+.1f}), p = {result.products_p:.3f}",
    ]


def _verify(config: Config, layout: Layout) -> Summary:
    if len(config.names) == 1 and _is_location(config.names[0]):
        snapshot, n_files, damaged = backup.damaged_objects(BackupStore(config.names[0]), config.snapshot)
        _print(config, damaged, [f"damaged  {path}" for path in damaged])
        return Summary(
            headline=f"snapshot {snapshot}: {n_files} files, {len(damaged)} damaged", exit_code=1 if damaged else 0
        )
    runs = manifest.read_all(layout)
    chosen = [manifest.find(runs, name) for name in config.names] or runs
    states = differences.states(layout, chosen)
    rows = [(one.state, one.path, one.run_id.rsplit("-", 1)[1], one.detail) for one in states]
    _print(config, [asdict(one) for one in states], _table(("state", "path", "run", "detail"), rows))
    counts = {state: sum(one.state == state for one in states) for state in ("unchanged", "changed", "missing")}
    return Summary(
        headline=", ".join(f"{n} {state}" for state, n in counts.items()),
        counts=counts,
        exit_code=0 if counts["unchanged"] == len(states) else 1,
    )


def _backup(config: Config, layout: Layout) -> Summary:
    store = BackupStore(config.names[0])
    done = backup.backup(layout, store, config.parts)
    if done.failures:
        _log_failures(done.failures)
        raise StageError(f"no snapshot was written: {len(done.failures)} files could not be stored; run it again")
    return Summary(
        headline=f"snapshot {done.snapshot} at {store.name}: {done.n_files} files, {done.n_moved} of them stored "
        f"({done.n_bytes_moved:,} bytes), the rest was there"
    )


def _restore(config: Config, layout: Layout) -> Summary:
    done = backup.restore(layout, BackupStore(config.names[0]), config.snapshot, overwrite=config.overwrite)
    _log_failures(done.failures)
    return Summary(
        headline=f"snapshot {done.snapshot}: {done.n_files} files, {done.n_moved} restored ({done.n_bytes_moved:,} "
        f"bytes), {done.n_present} there already, {len(done.failures)} failed",
        exit_code=1 if done.failures else 0,
    )


def _prune(config: Config, layout: Layout) -> Summary:
    ending = "deleted" if config.yes else "would be deleted; --yes deletes them"
    if config.names:
        grace = timedelta(hours=config.grace_hours)
        old, n_objects = backup.prune(BackupStore(config.names[0]), config.keep, grace, is_dry=not config.yes)
        _print(config, old, old)
        return Summary(headline=f"{len(old)} snapshots and {n_objects} objects {ending}")
    models = retention.old_models(layout, manifest.read_all(layout), config.keep)
    if config.yes:
        for model in models:
            retention.delete_model(layout, model)
    rows = [(one.run, one.run_id.rsplit("-", 1)[1], f"{one.n_bytes / 1e9:.2f} GB") for one in models]
    _print(config, [asdict(one) for one in models], _table(("model", "run", "size"), rows))
    return Summary(headline=f"{len(models)} models {ending}")


_ACTIONS = {
    "list": _list, "show": _show, "compare": _compare, "verify": _verify, "backup": _backup, "restore": _restore,
    "prune": _prune,
}  # fmt: skip


def _is_location(name: str) -> bool:
    return "://" in name or Path(name, "snapshots").is_dir()


def _log_failures(failures: dict[str, str]) -> None:
    for path, reason in list(failures.items())[:20]:
        logger.warning("%s: %s", path, reason)


def _shortened(value: Any) -> str:
    """Return a value as one line of JSON, possibly truncated; `--json` prints all of it."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return aligned lines under a header; none without rows."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    ]


def _print(config: Config, value: Any, lines: list[str]) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False) if config.json else "\n".join(lines)
    if text:
        sys.stdout.write(text + "\n")


def main() -> None:
    """Run the stage from the command line."""
    stage.main("runs", Config, run)


if __name__ == "__main__":
    main()

"""The finished training run that is exported: a name in, its checked folder and records out."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from skincare import runlog
from skincare.errors import MissingInputError, StageError
from skincare.exporting.labels_toml import FILE as LABELS_FILE
from skincare.labels import Labels, labels_of, labels_of_model
from skincare.paths import Layout
from skincare.training import run_folders

# Files of pickled objects, which run code when they are loaded.
_PICKLES: Final = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"})


@dataclass(frozen=True)
class SourceRun:
    """A finished run: the folder of its model, its labels, and what its log says about it.

    base_model, recipe: empty for a model folder without a log. test: the scores on test of the trained model, empty
    without a log.
    """

    name: str
    folder: Path
    labels: Labels
    base_model: str
    recipe: str
    test: dict[str, Any]


def find_run(layout: Layout, name: str = "") -> SourceRun:
    """Return a run by its name, or the last finished one.

    Raises MissingInputError if there is none, StageError for an invalid name, an interrupted run, and a checkpoint that
    is not safe to load.
    """
    name = name or runlog.last_training_run(layout)
    run_folders.check_name(name)
    folder = layout.finetuned_model(name)
    if layout.is_interrupted(name):
        raise StageError(f"Run {name!r} was interrupted; complete it with `python src/finetune.py --resume`")
    if not (folder / "config.json").is_file():
        raise MissingInputError(
            "trained model", folder, "Train one with `python src/finetune.py`, or name another --run."
        )
    check_checkpoint(folder)
    manifest = _read(layout.finetune_log(name) / "manifest.json")
    config = manifest.get("config", {})
    return SourceRun(
        name=name,
        folder=folder,
        # The export must not carry a path of this machine.
        labels=replace(labels_of_model(folder, labels_of(layout)), source=LABELS_FILE),
        base_model=_base_model(str(config.get("model", ""))),
        recipe=str(config.get("recipe", "")),
        test=_read(layout.finetune_log(name) / "test_metrics.json"),
    )


def _base_model(name: str) -> str:
    """Return the name of a base model on the hub or in the repository; of any other folder its last part."""
    return Path(name).name if Path(name).is_absolute() else name


def check_checkpoint(folder: Path) -> None:
    """Raise StageError unless a checkpoint consists of safetensors below its folder and brings no code.

    Pickled files and the modules of `auto_map` run code when they are loaded.
    """
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _PICKLES)
    if pickles:
        raise StageError(f"{folder}: {pickles[0]} is a pickled file, which can run code; only safetensors are exported")
    if "auto_map" in _read(folder / "config.json"):
        raise StageError(f"{folder}: config.json names code of its own (auto_map), which is not exported")
    root = folder.resolve()
    shards = _read(folder / "model.safetensors.index.json").get("weight_map", {})
    files = {*shards.values(), *(path.name for path in folder.glob("*.safetensors"))}
    if outside := [name for name in files if not (folder / str(name)).resolve().is_relative_to(root)]:
        raise StageError(f"{folder}: its file {sorted(outside)[0]} lies outside of the folder")


def _read(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file; empty if the file is absent. Raises StageError for anything else."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StageError(f"{path}: cannot be read ({error})") from error
    if not isinstance(found, dict):
        raise StageError(f"{path}: holds no JSON object")
    return found

"""Names and folders of training runs, and the replacement of a finished run by a new one.

A run has two folders under one name: its model and its log. A run that replaces a finished one writes to
`Layout.replacement(name)` until it has been tested; then the folders are swapped. A failure before that leaves the
finished run unchanged.
"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Final, Literal

from skincare.errors import StageError
from skincare.paths import Layout

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")

# What to do with an existing run of the same name.
ExistingRunPolicy = Literal["keep", "resume", "restart", "overwrite"]


@dataclass(frozen=True)
class RunFolders:
    """A run's name, and the name of its folders until it is finished."""

    name: str
    working_name: str


def existing_run_policy(*, resume: bool, restart: bool, overwrite: bool) -> ExistingRunPolicy:
    """Return the policy for the given option; raise StageError for more than one option."""
    given: list[ExistingRunPolicy] = []
    given += ["resume"] if resume else []
    given += ["restart"] if restart else []
    given += ["overwrite"] if overwrite else []
    if len(given) > 1:
        raise StageError(f"--{given[0]} and --{given[1]} are mutually exclusive")
    return given[0] if given else "keep"


def check_name(name: str) -> None:
    """Raise StageError for a name of a run that could not name a folder."""
    if not _NAME.fullmatch(name):
        raise StageError(f"--run {name!r}: a run's name may hold letters, digits and ._+-, since it names folders")


def choose_name(layout: Layout, name: str, recipe: str, seed: int, policy: ExistingRunPolicy) -> str:
    """Return the name of a run; raise StageError for one that cannot name a folder.

    The default name is the recipe's, with the seed unless it is 0, and a number if that name is taken.
    """
    if name:
        check_name(name)
    return name or _default_name(layout, recipe, seed, policy)


def choose(layout: Layout, name: str, recipe: str, seed: int, policy: ExistingRunPolicy) -> RunFolders:
    """Return the folders of a run; removes nothing.

    Raises StageError if the policy does not allow to continue or replace an existing run of that name.
    """
    name = choose_name(layout, name, recipe, seed, policy)
    complete_replacement(layout, name)
    unfinished = _interrupted(layout, name)
    if unfinished:
        if policy in ("resume", "restart"):
            return RunFolders(name, unfinished)
        raise StageError(
            f"Run {name!r} was interrupted. Continue it with --resume, discard it with --restart, "
            "or choose another name with --run."
        )
    if not layout.is_finished(name):
        return RunFolders(name, name)
    if policy == "overwrite":
        return RunFolders(name, layout.replacement(name))
    if policy == "resume" and layout.training_state(name).is_dir():
        return RunFolders(name, name)
    raise StageError(
        f"Run {name!r} is finished. Choose another name with --run, or replace the finished run with --overwrite: "
        "it is kept until the new one is trained and tested."
    )


def is_resumable(layout: Layout, name: str, recipe: str, seed: int) -> bool:
    """Return whether --resume completes a run: a checkpoint exists, or a tested model lacks its place or summary."""
    name = name or _default_name(layout, recipe, seed, "resume")
    is_unrecorded = layout.training_state(name).is_dir() and not layout.summary("finetune").exists()
    return bool(_interrupted(layout, name)) or layout.is_finished(layout.replacement(name)) or is_unrecorded


def clear(layout: Layout, run: RunFolders) -> None:
    """Remove the files of an unfinished run; a finished run is kept."""
    if layout.is_finished(run.working_name):
        return
    for folder in (layout.finetuned_model(run.working_name), layout.finetune_log(run.working_name)):
        shutil.rmtree(folder, ignore_errors=True)


def publish(layout: Layout, run: RunFolders) -> None:
    """Move a finished run to its name, and copy its plots to the folder of the latest run's plots."""
    complete_replacement(layout, run.name)
    drawn = sorted(layout.run_plots(run.name).glob("*.png"))
    if not drawn:
        return
    for stale in layout.plot("").parent.glob("cm_epoch_*.png"):
        stale.unlink()
    for file in drawn:
        target = layout.plot(file.stem)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def complete_replacement(layout: Layout, name: str) -> None:
    """Replace a finished run by its tested replacement; also completes a swap that was interrupted.

    The log is moved last: until then the replacement counts as tested and the swap as incomplete.
    """
    new, old = layout.replacement(name), layout.replaced(name)
    if layout.is_finished(new):
        for folder in (layout.finetuned_model, layout.finetune_log):
            if not folder(new).exists():
                continue
            if folder(name).exists():
                shutil.rmtree(folder(old), ignore_errors=True)
                folder(old).parent.mkdir(parents=True, exist_ok=True)
                folder(name).rename(folder(old))
            folder(new).rename(folder(name))
    for folder in (layout.finetuned_model, layout.finetune_log):
        shutil.rmtree(folder(old), ignore_errors=True)
        for emptied in (folder(new).parent, folder(old).parent):
            if emptied.is_dir() and not any(emptied.iterdir()):
                emptied.rmdir()


def _default_name(layout: Layout, recipe: str, seed: int, policy: ExistingRunPolicy) -> str:
    """Return the last default name in use if the policy refers to that run, else the first free one."""
    taken = list(takewhile(lambda name: _is_taken(layout, name), _default_names(recipe, seed)))
    if taken and (policy != "keep" or _interrupted(layout, taken[-1])):
        return taken[-1]
    return next(name for i, name in enumerate(_default_names(recipe, seed)) if i == len(taken))


def _default_names(recipe: str, seed: int) -> Iterator[str]:
    base = f"{recipe}-seed{seed}" if seed else recipe
    yield base
    yield from (f"{base}-{n}" for n in count(2))


def _is_taken(layout: Layout, name: str) -> bool:
    return layout.finetuned_model(name).exists() or layout.finetune_log(name).exists()


def _interrupted(layout: Layout, name: str) -> str:
    """Return the folder name of the unfinished run of this name, or an empty string."""
    return next((one for one in (layout.replacement(name), name) if layout.is_interrupted(one)), "")

"""What a training run is called, where it works, and how it takes the place of an earlier one.

A run has two folders under one name, of its model and of its log. One that is to replace a finished run works under
`Layout.replacement(name)` until it has been tested; only then do the folders change places. So whatever fails before,
the finished run is as it was.
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

# What is to happen to a run of this name that is there already.
ExistingRunPolicy = Literal["keep", "resume", "restart", "overwrite"]


@dataclass(frozen=True)
class RunFolders:
    """A run's name, and the name under which its folders are until it is finished."""

    name: str
    working_name: str


def existing_run_policy(*, resume: bool, restart: bool, overwrite: bool) -> ExistingRunPolicy:
    """Return which of the options was given; StageError for more than one."""
    given: list[ExistingRunPolicy] = []
    given += ["resume"] if resume else []
    given += ["restart"] if restart else []
    given += ["overwrite"] if overwrite else []
    if len(given) > 1:
        raise StageError(f"--{given[0]} and --{given[1]} exclude each other")
    return given[0] if given else "keep"


def choose(layout: Layout, name: str, recipe: str, seed: int, what: ExistingRunPolicy) -> RunFolders:
    """Return where a run works; nothing is removed.

    Without a `name` the run is called after its recipe, after its seed too unless that is 0, and gets a number where
    that name is taken. Raises StageError where an earlier run of the name is in the way.
    """
    if name and not _NAME.fullmatch(name):
        raise StageError(f"--run {name!r}: a run's name is letters, digits and ._+-, for it names folders")
    name = name or _default_name(layout, recipe, seed, what)
    complete_replacement(layout, name)
    open_run = _interrupted(layout, name)
    if open_run:
        if what in ("resume", "restart"):
            return RunFolders(name, open_run)
        raise StageError(
            f"Run {name!r} was interrupted. Go on with it by --resume, throw it away by --restart, "
            "or give this one another name by --run."
        )
    if not layout.is_finished(name):
        return RunFolders(name, name)
    if what == "overwrite":
        return RunFolders(name, layout.replacement(name))
    if what == "resume" and layout.training_state(name).is_dir():
        return RunFolders(name, name)
    raise StageError(
        f"Run {name!r} is finished. Give this one another name by --run, or let it take the place of the finished one "
        "by --overwrite: that stays until the new one is trained and tested."
    )


def is_resumable(layout: Layout, name: str, recipe: str, seed: int) -> bool:
    """Tell whether --resume finds something of this run that is not finished."""
    name = name or _default_name(layout, recipe, seed, "resume")
    return bool(_interrupted(layout, name)) or layout.is_finished(layout.replacement(name))


def clear(layout: Layout, run: RunFolders) -> None:
    """Throw away what an unfinished run has left at the working_name; a finished one stays."""
    if layout.is_finished(run.working_name):
        return
    for folder in (layout.finetuned_model(run.working_name), layout.finetune_log(run.working_name)):
        shutil.rmtree(folder, ignore_errors=True)


def publish(layout: Layout, run: RunFolders) -> None:
    """Give a finished run its name, and its plots the places where those of the last run are looked for."""
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
    """Put a tested replacement into the place of the run that it replaces; go on with a swap that was cut off.

    The log comes last: until it has moved, the replacement is known as tested and the swap as not done.
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


def _default_name(layout: Layout, recipe: str, seed: int, what: ExistingRunPolicy) -> str:
    """Return the last default name that is taken where that run is meant, else the first that is free."""
    taken = list(takewhile(lambda name: _is_taken(layout, name), _default_names(recipe, seed)))
    if taken and (what != "keep" or _interrupted(layout, taken[-1])):
        return taken[-1]
    return next(name for i, name in enumerate(_default_names(recipe, seed)) if i == len(taken))


def _default_names(recipe: str, seed: int) -> Iterator[str]:
    base = f"{recipe}-seed{seed}" if seed else recipe
    yield base
    yield from (f"{base}-{n}" for n in count(2))


def _is_taken(layout: Layout, name: str) -> bool:
    return layout.finetuned_model(name).exists() or layout.finetune_log(name).exists()


def _interrupted(layout: Layout, name: str) -> str:
    """Return under which name an unfinished run of this name lies; nothing where there is none."""
    return next((one for one in (layout.replacement(name), name) if layout.is_interrupted(one)), "")

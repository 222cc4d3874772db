"""Which models of finished training runs may be deleted, and their deletion; the manifests and logs stay."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from skincare.paths import Layout
from skincare.runs.manifest import Manifest


@dataclass(frozen=True)
class OldModel:
    """The model folder of a training run, as its manifest records it."""

    run: str
    run_id: str
    n_bytes: int


def old_models(layout: Layout, manifests: Sequence[Manifest], keep: int) -> list[OldModel]:
    """Return the models beyond the newest `keep`, oldest first.

    Never among them: the newest training run, which the report shows, a run with checkpoints to resume from, and a
    model that a kept run was trained from.
    """
    newest = {one.run: one for one in manifests if one.stage == "finetune" and one.run}
    present = [one for one in newest.values() if layout.finetuned_model(one.run).is_dir()]
    ordered = sorted(present, key=lambda one: one.id)
    first_kept = max(0, len(ordered) - max(1, keep))
    used = {path for one in ordered[first_kept:] for path in one.inputs}
    found = []
    for one in ordered[:first_kept]:
        path = layout.finetuned_model(one.run).relative_to(layout.root).as_posix()
        if path not in used and not layout.training_state(one.run).exists():
            found.append(OldModel(one.run, one.id, one.outputs[path].n_bytes if path in one.outputs else 0))
    return found


def delete_model(layout: Layout, model: OldModel) -> None:
    """Delete a model's folder; a kill leaves the whole folder or none under its name."""
    folder = layout.finetuned_model(model.run)
    doomed = folder.parent / f".{uuid4().hex}.part"
    folder.rename(doomed)
    shutil.rmtree(doomed)

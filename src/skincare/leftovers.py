"""Temporary files and folders that killed runs leave next to what they would have replaced, see `skincare.files`.

After an export they are as large as a model.
"""

import logging
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from skincare.paths import Layout

logger = logging.getLogger(__name__)

_NAME: Final = re.compile(r"\.[0-9a-f]{32}\.part")
# Younger ones may be of a run that is still writing.
_MIN_AGE_S: Final = 24 * 3600


def remove(layout: Layout) -> int:
    """Remove the leftovers that are older than a day from the folders of tables, results and models; return how many.

    What cannot be removed stays: another process may have renamed it, or it may belong to another user.
    """
    # Any name: all files of a kind are in one folder.
    files = (
        layout.report_html, layout.images_table, layout.clean_table, layout.dataset("train"), layout.summary("any"),
        layout.zero_shot / "any", layout.baselines / "any", layout.plot("any"), layout.overlay("any"),
        layout.finetuned_model("any"), layout.exported_model("any"), layout.export("any"), layout.run_manifest("any"),
    )  # fmt: skip
    folders = sorted({file.parent for file in files})
    latest = time.time() - _MIN_AGE_S
    removed: list[Path] = []
    for one in (found for folder in folders for found in folder.glob(".*.part") if _NAME.fullmatch(found.name)):
        with suppress(OSError):
            if one.lstat().st_mtime < latest:
                shutil.rmtree(one) if one.is_dir() else one.unlink()
                removed.append(one)
    if removed:
        logger.info("removed %d temporary files or folders of killed runs, such as %s", len(removed), removed[0])
    return len(removed)

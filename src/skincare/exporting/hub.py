"""Upload of an exported folder to the Hugging Face hub; the token comes from HF_TOKEN and is never logged."""

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from requests import RequestException

from skincare.errors import MissingInputError, StageError

logger = logging.getLogger(__name__)

_REPOSITORY: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def check_upload(repository: str) -> None:
    """Raise StageError for an invalid repository name, MissingInputError without a token."""
    if not _REPOSITORY.fullmatch(repository):
        raise StageError(f"--push-to-hub {repository!r}: a repository is named OWNER/NAME")
    if not os.environ.get("HF_TOKEN"):
        raise MissingInputError("access token of the hub", "HF_TOKEN", "Set it to a token with write permission.")


def upload(folder: Path, files: Iterable[str], repository: str) -> str:
    """Upload the named files of a folder to a repository, which is created as a private one; return its address.

    Raises StageError if the hub refuses or cannot be reached; the exported folder stays as it is.
    """
    check_upload(repository)
    api = HfApi(token=os.environ["HF_TOKEN"])
    try:
        address = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(
            folder_path=folder, repo_id=repository, allow_patterns=sorted(files),
            commit_message=f"Upload {folder.name}",
        )  # fmt: skip
    except (HfHubHTTPError, OSError, RequestException, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].replace(os.environ["HF_TOKEN"], "***")
        raise StageError(f"{repository}: the upload failed ({reason}); {folder} is complete") from error
    logger.info("uploaded to %s", address)
    return str(address)

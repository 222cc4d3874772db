"""The errors that stages report as one message; any other exception is a bug and keeps its traceback."""

from pathlib import Path


class StageError(Exception):
    """The stage cannot continue; the message states the cause and the remedy."""

    exit_code = 1


class MissingInputError(StageError):
    """Something that another stage or the user must provide is absent."""

    exit_code = 2

    def __init__(self, what: str, where: Path | str, remedy: str) -> None:
        # Pickling recreates the error from these, when a worker process raises it.
        super().__init__(what, where, remedy)

    def __str__(self) -> str:
        what, where, remedy = self.args
        return f"{what} not found: {where}\n{remedy}"

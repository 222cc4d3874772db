"""A worker process that holds the predictor, and the handle with which the service uses it.

The model runs in a process of its own: a crash, a hang or an out-of-memory kill ends the worker and not the service.
Worker and service exchange pickled messages over a pipe. A worker ends when the pipe closes, so none outlives the
service.
"""

import logging
import multiprocessing
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final, Literal, Protocol

from skincare.errors import StageError
from skincare.serving.answers import ImageAnswer, failed_answer

logger = logging.getLogger(__name__)

FailureReason = Literal["worker_crashed", "worker_timeout"]

_STOP_TIMEOUT_S: Final = 5.0
# None of them starts threads when it is imported.
_PRELOADED: Final = ("numpy", "cv2", "PIL.Image", "simplejpeg", "pydantic")


@dataclass(frozen=True)
class Job:
    """One image to predict. `detail`: also return the text with its place and the attribution overlay."""

    content: bytes = field(repr=False)
    name: str = ""
    detail: bool = False
    top: int = 3


class ServedPredictor(Protocol):
    """What a worker holds. `name` is shown to clients and contains no path of the machine."""

    name: str

    def predict(self, jobs: Sequence[Job]) -> list[ImageAnswer]:
        """Return one answer per job, in order; for bytes that are no image with the reason."""
        ...


LoadPredictor = Callable[[], ServedPredictor]
"""Loads the predictor inside the worker; must be picklable."""


class WorkerError(Exception):
    """The worker did not answer a batch and was killed."""

    def __init__(self, reason: FailureReason) -> None:
        super().__init__(reason)
        self.reason: FailureReason = reason


class WorkerLoadError(Exception):
    """The worker could not load its predictor; the message is for the log, `exit_code` that of the stage."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Worker:
    """The handle of one worker process; its methods block and are called from one thread at a time."""

    def __init__(self, load: LoadPredictor) -> None:
        context = _context()
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, load), daemon=True, name="predictor")
        self._theirs = theirs
        self._is_ended = False
        self.name = ""

    @property
    def pid(self) -> int | None:
        """Return the process id; None before the start."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Return whether the process runs."""
        return self._process.is_alive()

    def start(self, timeout_s: float) -> None:
        """Start the process and wait until it has loaded its predictor; raises WorkerLoadError."""
        self._process.start()
        self._theirs.close()
        if self._is_ended:
            self.kill()
            raise WorkerLoadError("the service ends")
        try:
            kind, value = self._receive(timeout_s)
        except WorkerError as error:
            raise WorkerLoadError(error.reason) from error
        if kind != "ready":
            self.kill()
            raise WorkerLoadError(*value)
        self.name = value

    def predict(self, jobs: Sequence[Job], timeout_s: float) -> list[ImageAnswer]:
        """Return one answer per job; raises WorkerError if the worker died or was killed for taking too long."""
        try:
            self._connection.send(list(jobs))
        except OSError as error:
            self.kill()
            raise WorkerError("worker_crashed") from error
        answers: list[ImageAnswer] = self._receive(timeout_s)
        return answers

    def _receive(self, timeout_s: float) -> Any:
        try:
            if self._connection.poll(timeout_s):
                return self._connection.recv()
        except (OSError, EOFError) as error:
            self.kill()
            raise WorkerError("worker_crashed") from error
        self.kill()
        raise WorkerError("worker_timeout")

    def kill(self) -> None:
        """Kill the process and wait for its end."""
        if self._process.pid is not None:
            self._process.kill()
            self._process.join(_STOP_TIMEOUT_S)
        self._connection.close()

    def end(self) -> None:
        """Kill the process while another thread waits for it; that thread gets WorkerError."""
        self._is_ended = True
        if self._process.pid is not None:
            self._process.kill()

    def stop(self) -> None:
        """Let the process end by itself; kill it if it does not."""
        self._connection.close()
        if self._process.pid is not None:
            self._process.join(_STOP_TIMEOUT_S)
            if self._process.is_alive():
                self._process.kill()
                self._process.join(_STOP_TIMEOUT_S)


def _context() -> Any:
    """Return a context that forks neither the service's threads nor a CUDA context.

    The fork server has the large libraries imported, which makes a worker start three times as fast as with spawn.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    return context


def _work(connection: Connection, load: LoadPredictor) -> None:
    """Load the predictor, then answer batches until the pipe closes."""
    # Only the service decides when a worker ends, also where a signal goes to the whole group of processes.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="worker: %(message)s")
    try:
        predictor = load()
    except Exception as error:
        # Anything may be wrong with a model folder; the service logs the reason and keeps the old worker.
        is_expected = isinstance(error, StageError)
        message = str(error) if is_expected else f"{type(error).__name__}: {error}"
        connection.send(("failed", (message, error.exit_code if isinstance(error, StageError) else 1)))
        return
    connection.send(("ready", predictor.name))
    while True:
        try:
            jobs = connection.recv()
            connection.send(_answers(predictor, jobs))
        except (EOFError, OSError):
            return


def _answers(predictor: ServedPredictor, jobs: Sequence[Job]) -> list[ImageAnswer]:
    """Return the answers; an image that makes the predictor raise gets status `failed`, the others their answer."""
    try:
        return predictor.predict(jobs)
    except Exception:
        logger.exception("a batch of %d images failed", len(jobs))
    if len(jobs) == 1:
        return [failed_answer(jobs[0].name, "prediction_failed")]
    return [answer for job in jobs for answer in _answers(predictor, [job])]

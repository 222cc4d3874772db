"""Recovery from running out of memory: a pass is retried with half as many images; with one, it is an error.

Results of earlier passes are kept. This covers the memory of a GPU and of the CPU's allocator.
"""

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

import torch

from skincare.errors import StageError

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

# Messages of plain RuntimeErrors: of the CPU allocator, of cuBLAS without a workspace, of CUDA outside the allocator.
_MESSAGES: Final = (
    "can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED"
)  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception means that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


def halving(
    work: Callable[[int], Result], size: int, where: str, advice: str, unit: str = "image"
) -> tuple[Result, int]:  # fmt: skip
    """Return the result of `work(size)` and the size that fitted; the size is halved while memory runs out.

    `work` must be repeatable. Raises StageError with the advice if a size of 1 does not fit.
    """
    while True:
        try:
            return work(size), size
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise StageError(f"Out of memory in {where} with a single {unit} at a time: {advice}") from None
        # Outside the handler: its traceback would hold the tensors of the failed pass.
        size = -(-size // 2)
        _free()
        logger.warning("out of memory in %s: going on with %d %s(s) at a time", where, size, unit)


class Passes:
    """Passes over `size` images each; after one ran out of memory, it and all later ones take fewer."""

    def __init__(self, size: int, where: str, advice: str) -> None:
        self.size = size
        self.where = where
        self.advice = advice

    def over(self, items: Sequence[Item], work: Callable[[Sequence[Item]], Result]) -> Iterator[Result]:
        """Yield the result of `work` for each pass over the items, in order."""
        start = 0
        while start < len(items):
            first, size = start, min(self.size, len(items) - start)
            result, fitted = halving(lambda n: work(items[first : first + n]), size, self.where, self.advice)  # noqa: B023
            if fitted < size:
                self.size = fitted
            start += fitted
            yield result


@contextmanager
def explained(where: str, advice: str) -> Iterator[None]:
    """Turn running out of memory, where nothing can be halved, into a StageError with the advice."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise StageError(f"Out of memory in {where}: {advice}") from None


def _free() -> None:
    gc.collect()  # autograd graphs may hold reference cycles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

"""One rule for all passes: where memory runs out, half as many at a time, and say so; where one is too many, say why.

What a pass has given before is kept. The rule holds for a GPU's memory and for what a CPU's allocator refuses.
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

# What torch raises as a plain RuntimeError: its CPU allocator, cuBLAS without a workspace, CUDA outside its allocator.
_MESSAGES: Final = (
    "can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED"
)  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception says that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


def halving(
    work: Callable[[int], Result], size: int, where: str, advice: str, unit: str = "image"
) -> tuple[Result, int]:  # fmt: skip
    """Return what `work(size)` does, and the size that fitted: half as much is tried for as long as memory runs out.

    `work` must be able to begin anew. Raises StageError with the advice where a size of 1 does not fit.
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
    """Passes over images, `size` each; where one ran out of memory, that and all later ones take fewer."""

    def __init__(self, size: int, where: str, advice: str) -> None:
        self.size = size
        self.where = where
        self.advice = advice

    def over(self, items: Sequence[Item], work: Callable[[Sequence[Item]], Result]) -> Iterator[Result]:
        """Yield what `work` gives for the items, a pass at a time, in order."""
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
    """Turn running out of memory where nothing can be halved into a StageError that says what to change."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise StageError(f"Out of memory in {where}: {advice}") from None


def _free() -> None:
    gc.collect()  # graphs may hold themselves in circles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

"""The limits of the service: sizes, counts, times and the queue."""

import math
from dataclasses import dataclass, fields
from typing import Final

from skincare import images
from skincare.errors import StageError

_MB: Final = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request, one image and the service as a whole may use."""

    max_body_mb: float = 25.0
    """Size of one request's body."""
    max_images: int = 32
    """Images in one request."""
    max_megapixels: float = images.MAX_PIXELS / 1e6
    """Pixels of one image, read from its header before it is decoded."""
    max_queue: int = 64
    """Images that wait for a worker; requests beyond it get 503 with Retry-After."""
    max_buffered_mb: float = 256.0
    """Bodies held in memory at the same time, over all requests; requests beyond it get 503 with Retry-After."""
    header_timeout_s: float = 10.0
    """Time to send the headers of a request; also the longest idle time of a connection without one."""
    body_timeout_s: float = 20.0
    """Time to send the body of a request."""
    answer_timeout_s: float = 60.0
    """Time from a request's acceptance to its answer; 503 after it."""
    batch_timeout_s: float = 45.0
    """Time for one batch in a worker; a worker that takes longer is killed and replaced."""
    load_timeout_s: float = 600.0
    """Time for a worker to load its model."""

    def check(self) -> None:
        """Raise StageError for a limit that is no positive number."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value < math.inf:
                raise StageError(f"--limits.{field.name.replace('_', '-')} {value:g} is not a number above 0")

    @property
    def max_body_bytes(self) -> int:
        """Return the size limit of one body in bytes."""
        return int(self.max_body_mb * _MB)

    @property
    def max_buffered_bytes(self) -> int:
        """Return the limit of all bodies in memory in bytes."""
        return int(self.max_buffered_mb * _MB)

    @property
    def max_pixels(self) -> int:
        """Return the pixel limit of one image."""
        return int(self.max_megapixels * 1e6)

"""The bytes of an image in an export: every loader shows them as our decoder does.

Loaders differ: most ignore the EXIF orientation and colour profiles, turn what is transparent black, or go by the
file's ending. A JPEG that is upright RGB without a profile that changes a colour is safe and keeps its bytes; anything
else becomes a JPEG of what `skincare.images.decode` gives.
"""

from skincare import images
from skincare.errors import StageError
from skincare.images import BrokenImageError


def exported_bytes(content: bytes, image: str) -> bytes:
    """Return a plain upright RGB JPEG of an image file; raises StageError for one that cannot be decoded."""
    try:
        return content if images.is_plain_jpeg(content) else images.encode_jpeg(images.decode(content))
    except BrokenImageError as error:
        raise StageError(f"{image}: {error}\nRun `python src/clean.py` again.") from error

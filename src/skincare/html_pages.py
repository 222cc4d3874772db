"""What the pages of the pipeline share: one template environment, and images embedded as data URIs."""

import base64
import io
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL.Image import Image

_TEMPLATES: Final = Path(__file__).with_name("templates")


def template_environment(*, autoescape: bool = True) -> Environment:
    """Return the environment of `templates/`; an undefined name is an error. Only Markdown goes without escaping."""
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=autoescape,  # noqa: S701  Markdown has a filter of its own
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def data_uri(content: bytes, kind: str) -> str:
    """Return the bytes of an image as a data URI; kind: `jpeg` or `png`."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def jpeg_data_uri(image: Image, quality: int) -> str:
    """Return an image as a JPEG in a data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return data_uri(buffer.getvalue(), "jpeg")

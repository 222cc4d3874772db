"""The body of a request: received within limits of size, time and memory, then parsed into images.

Three forms: multipart/form-data with files in `images` and URLs in `urls`; a JSON object
`{"images": [{"data": "<base64>", "name": "a.jpg"}, {"url": "https://..."}]}`; the bytes of one image as they are.
"""

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from skincare.serving.limits import Limits
from skincare.serving.service_errors import ServiceError

_MAX_NAME: Final = 200
# A rejected body is received up to this multiple of the limit, so that the client reads the answer and no reset.
_DRAIN_FACTOR: Final = 2


@dataclass(frozen=True)
class ImageSource:
    """One image of a request: its bytes, or the URL to fetch it from."""

    name: str
    content: bytes = b""
    url: str = ""


class BodyBudget:
    """Counts the bytes of all bodies in memory against a common limit."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.n_bytes = 0

    def take(self, n_bytes: int) -> bool:
        """Count bytes; return False, counting nothing, if they do not fit."""
        if self.n_bytes + n_bytes > self._max_bytes:
            return False
        self.n_bytes += n_bytes
        return True

    def give_back(self, n_bytes: int) -> None:
        """Return bytes to the budget."""
        self.n_bytes -= n_bytes


async def receive(request: Request, limits: Limits, budget: BodyBudget, counted: list[int]) -> bytes:
    """Return the body. `counted[0]` is what the caller gives back to the budget.

    Raises ServiceError: 413 too large, 408 too slow, 503 no memory left; the rest of such a body is discarded first.
    """
    content = bytearray()
    rejection: ServiceError | None = _declared_too_large(request, limits)
    n_received = 0
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            async for chunk in request.stream():
                n_received += len(chunk)
                if rejection is None and n_received > limits.max_body_bytes:
                    rejection = _too_large(limits)
                if rejection is None and not budget.take(len(chunk)):
                    rejection = ServiceError(503, "overloaded", "too many bodies in memory", retry_after_s=1)
                if rejection is None:
                    counted[0] += len(chunk)
                    content += chunk
                else:
                    content.clear()
                    if n_received > _DRAIN_FACTOR * limits.max_body_bytes:
                        break
    except TimeoutError as error:
        late = ServiceError(408, "body_timeout", f"the body took more than {limits.body_timeout_s:g} s")
        raise (rejection or late) from error
    except ClientDisconnect as error:
        raise ServiceError(400, "disconnected", "the client closed the connection") from error
    if rejection is not None:
        raise rejection
    return bytes(content)


def _declared_too_large(request: Request, limits: Limits) -> ServiceError | None:
    length = request.headers.get("content-length", "")
    return _too_large(limits) if length.isdecimal() and int(length[:20]) > limits.max_body_bytes else None


def _too_large(limits: Limits) -> ServiceError:
    return ServiceError(413, "body_too_large", f"a body may have {limits.max_body_mb:g} MB")


async def parse(request: Request, content: bytes, limits: Limits) -> list[ImageSource]:
    """Return the images of a body; raises ServiceError: 415 for another type, 400 for a malformed or empty body."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        found = await _parse_multipart(request, content, limits)
    elif kind == "application/json":
        found = _parse_json(content, limits)
    elif kind.startswith("image/") or kind == "application/octet-stream":
        found = [ImageSource("image", content)] if content else []
    else:
        raise ServiceError(415, "unsupported_media_type", "send multipart/form-data, application/json or an image")
    if not found:
        raise ServiceError(400, "no_images", "the request has no image")
    _check_count(found, limits)
    return found


def _check_count(images: Sequence[object], limits: Limits) -> None:
    if len(images) > limits.max_images:
        raise ServiceError(413, "too_many_images", f"a request may have {limits.max_images} images")


async def _parse_multipart(request: Request, content: bytes, limits: Limits) -> list[ImageSource]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield content

    parser = MultiPartParser(request.headers, stream(), max_files=limits.max_images, max_fields=limits.max_images)
    # The body is in memory and limited already; nothing is written to the disk.
    parser.spool_max_size = limits.max_body_bytes
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError, UnicodeDecodeError) as error:
        raise ServiceError(400, "malformed_multipart", "the multipart body cannot be parsed") from error
    try:
        return [source for name, value in form.multi_items() if (source := await _form_item(name, value))]
    finally:
        await _close(form)


async def _form_item(name: str, value: UploadFile | str) -> ImageSource | None:
    if isinstance(value, UploadFile):
        content = await value.read()
        # A browser sends an empty part for a file input without a file.
        return ImageSource(_short(value.filename or "image"), content) if content or value.filename else None
    if name in ("urls", "url") and value.strip():
        return ImageSource(_short(value.strip()), url=value.strip())
    return None


async def _close(form: FormData) -> None:
    await form.close()


def _parse_json(content: bytes, limits: Limits) -> list[ImageSource]:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ServiceError(400, "malformed_json", "the body is no JSON") from error
    items = body.get("images") if isinstance(body, dict) else None
    if not isinstance(items, list):
        raise ServiceError(400, "malformed_json", 'expected an object with a list in "images"')
    _check_count(items, limits)  # before the images are decoded
    return [_json_item(item, number) for number, item in enumerate(items, start=1)]


def _json_item(item: Any, number: int) -> ImageSource:
    if isinstance(item, dict):
        url, data, name = item.get("url"), item.get("data"), item.get("name")
        if isinstance(url, str) and data is None and url.strip():
            return ImageSource(_short(url.strip()), url=url.strip())
        if isinstance(data, str) and url is None:
            return ImageSource(_short(name) if isinstance(name, str) else f"image {number}", _base64(data, number))
    raise ServiceError(400, "malformed_json", f'image {number}: expected an object with either "data" or "url"')


def _base64(text: str, number: int) -> bytes:
    _, is_data_uri, encoded = text.partition(";base64,")
    try:
        return base64.b64decode(encoded if is_data_uri else text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ServiceError(400, "malformed_json", f"image {number}: the data is no base64") from error


def _short(name: str) -> str:
    """Return a name that is safe in JSON, logs and a page: no control characters, no lone surrogates, limited."""
    text = name.encode("utf-8", "replace").decode("utf-8")
    return "".join(letter if letter.isprintable() else " " for letter in text)[:_MAX_NAME]

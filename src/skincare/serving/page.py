"""The page of the service and its documentation page: static files without anything from another host."""

from pathlib import Path
from typing import Final

from fastapi import FastAPI
from fastapi.responses import Response

_TEMPLATES: Final = Path(__file__).parents[1] / "templates"
_FILES: Final = {
    "/": ("serve.html", "text/html; charset=utf-8"),
    "/serve.css": ("serve.css", "text/css; charset=utf-8"),
    "/serve.js": ("serve.js", "text/javascript; charset=utf-8"),
    "/docs": ("serve_docs.html", "text/html; charset=utf-8"),
    "/serve_docs.js": ("serve_docs.js", "text/javascript; charset=utf-8"),
}
# Images are previews of uploads (blob:) and overlays (data:); everything else comes from the service itself.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


def add_routes(app: FastAPI) -> None:
    """Serve the files of the page; they are read once."""
    for address, (name, kind) in _FILES.items():
        content = (_TEMPLATES / name).read_bytes()
        app.add_api_route(address, _reply(content, kind), methods=["GET", "HEAD"], include_in_schema=False)


def _reply(content: bytes, kind: str):  # type: ignore[no-untyped-def]
    async def reply() -> Response:
        return Response(content, media_type=kind)

    return reply

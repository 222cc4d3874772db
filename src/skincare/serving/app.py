"""The FastAPI application: /predict, /healthz, /readyz, /metrics, /openapi.json, and the page.

app = create_app(Service(batcher, limits, metrics, ...))
"""

import hashlib
import hmac
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from skincare.prompts import Target
from skincare.serving import page
from skincare.serving.answers import ErrorResponse, PredictResponse, ReadyResponse, plain_answer
from skincare.serving.service import MAX_TOP, Service
from skincare.serving.service_errors import ServiceError

logger = logging.getLogger(__name__)

_REASONS: Final = {404: "not_found", 405: "method_not_allowed"}
_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": ErrorResponse, "description": "The body is malformed or has no image"},
    401: {"model": ErrorResponse, "description": "The API key is missing or wrong"},
    408: {"model": ErrorResponse, "description": "The body took too long"},
    413: {"model": ErrorResponse, "description": "The body is too large or has too many images"},
    415: {"model": ErrorResponse, "description": "The type of the body is not supported"},
    422: {"model": PredictResponse, "description": "None of the images could be read"},
    500: {"model": PredictResponse, "description": "The worker failed on every image"},
    503: {"model": ErrorResponse, "description": "Overloaded; see Retry-After"},
}
_FILES: Final = {"type": "array", "items": {"type": "string", "format": "binary"}}
_REQUEST_BODY: Final = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"images": _FILES, "urls": {"type": "array", "items": {"type": "string"}}},
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["images"],
                "properties": {
                    "images": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {
                                "data": {"type": "string", "description": "base64, or a data URI"},
                                "name": {"type": "string"},
                                "url": {"type": "string", "description": "instead of data, where URLs are allowed"},
                            },
                        },
                    }
                },
            }
        },
        "image/*": {"schema": {"type": "string", "format": "binary"}},
    },
}


def create_app(service: Service) -> FastAPI:
    """Return the application of a service."""
    app = FastAPI(
        title="Skincare product recognition", version="1", docs_url=None, redoc_url=None,
        description="The category or the fields of a product on a photo, by the text on the pack or "
        "a model, with probabilities.",
    )  # fmt: skip
    app.add_middleware(SecurityHeaders)
    _handle_errors(app)
    _add_predict(app, service)
    _add_probes(app, service)
    page.add_routes(app)
    return app


def _add_predict(app: FastAPI, service: Service) -> None:
    @app.post(
        "/predict", response_model=PredictResponse, responses=_ERRORS, summary="Predict one or many images",
        openapi_extra={"requestBody": _REQUEST_BODY},
    )  # fmt: skip
    async def predict(
        request: Request,
        detail: Annotated[bool, Query(description="Also return the text with its place and the overlay")] = False,
        top: Annotated[int, Query(ge=0, le=MAX_TOP, description="Number of labels in `top`")] = 3,
        target: Annotated[
            Target | None, Query(description="category, or product: also the structured answer; that of the service")
        ] = None,
    ) -> Response:
        started = time.perf_counter()
        status = 500
        try:
            check_key(request, service.api_key)
            chosen = service.check_target(target)
            answers = await service.predict(request, detail=detail, top=top)
            status = _status(answers)
            found = [plain_answer(one, chosen) for one in answers.predictions]
            return JSONResponse({"predictions": found, **answers.model_dump(exclude={"predictions"})}, status)
        except ServiceError as error:
            status = error.status
            service.metrics.rejected.labels(error.reason).inc()
            raise
        finally:
            service.metrics.request_seconds.labels(str(status)).observe(time.perf_counter() - started)


def _status(answers: PredictResponse) -> int:
    """Return 200 if an image could be read, else 422, or 500 if the worker failed on all images."""
    statuses = {one.status for one in answers.predictions}
    if statuses <= {"failed"}:
        return 500
    return 422 if statuses <= {"failed", "unreadable"} else 200


def _add_probes(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", summary="Whether the process runs")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", response_model=ReadyResponse, summary="Whether a worker can answer")
    async def readyz() -> Response:
        state = service.state()
        return JSONResponse(state.model_dump(), 200 if state.status == "ready" else 503)

    @app.get("/metrics", summary="Metrics for Prometheus")
    async def metrics(request: Request) -> Response:
        check_key(request, service.api_key)
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def check_key(request: Request, api_key: str) -> None:
    """Raise ServiceError 401 unless the request carries the key; the comparison takes the same time for any key."""
    if not api_key:
        return
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    given = token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    digests = [hashlib.sha256(one.encode("utf-8", "replace")).digest() for one in (given, api_key)]
    if not hmac.compare_digest(*digests):
        raise ServiceError(401, "unauthorized", "send the API key as `Authorization: Bearer KEY` or `X-API-Key: KEY`")


def _handle_errors(app: FastAPI) -> None:
    """Answer every error as JSON without details of the machine."""

    @app.exception_handler(ServiceError)
    async def service_error(_: Request, error: ServiceError) -> Response:
        return _error(error.status, error.reason, error.detail, error.headers)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        return _error(error.status_code, _REASONS.get(error.status_code, "http_error"), "", dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def validation_error(_: Request, error: RequestValidationError) -> Response:
        names = ", ".join(sorted({str(one["loc"][-1]) for one in error.errors()}))
        return _error(400, "bad_parameter", f"not valid: {names}"[:200])

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Response:
        logger.error("a request failed", exc_info=error)
        return _error(500, "internal_error")


def _error(status: int, reason: str, detail: str = "", headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(ErrorResponse(error=reason, detail=detail).model_dump(), status, headers)


class SecurityHeaders:
    """ASGI middleware: headers that keep a browser from running or framing anything foreign."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Add the headers to every response."""

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *page.SECURITY_HEADERS]
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)

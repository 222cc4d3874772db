"""One request from its body to its answers: received within limits, URLs fetched, images predicted by the workers."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from starlette.requests import Request

from skincare.inference.image_predictions import failed
from skincare.prompts import Target
from skincare.serving import request_body
from skincare.serving.answers import ImageAnswer, PredictResponse, ReadyResponse, image_answer
from skincare.serving.batcher import Batcher, OverloadedError
from skincare.serving.image_urls import ImageUrlError, ImageUrls
from skincare.serving.limits import Limits
from skincare.serving.metrics import Metrics
from skincare.serving.request_body import BodyBudget, ImageSource
from skincare.serving.service_errors import ServiceError
from skincare.serving.worker import Job

# Labels in `top` that a client can get.
MAX_TOP: Final = 20


@dataclass
class Service:
    """The parts of the service. `urls`: None where images by URL are not allowed; `api_key`: empty for none."""

    batcher: Batcher
    limits: Limits
    metrics: Metrics
    urls: ImageUrls | None = None
    api_key: str = field(default="", repr=False)
    on_answers: Callable[[Sequence[ImageAnswer]], None] | None = None
    # A service of products answers with categories, too.
    target: Target = "category"
    is_draining: bool = False

    def __post_init__(self) -> None:
        """Create the budget of all bodies in memory."""
        self._budget = BodyBudget(self.limits.max_buffered_bytes)
        self._n_fetching = 0

    async def start(self) -> None:
        """Load the predictor; raises WorkerLoadError."""
        await self.batcher.start()

    async def stop(self) -> None:
        """Stop the workers once what they were given is done."""
        await self.batcher.stop()

    def start_draining(self) -> None:
        """Report that the service ends; what was accepted is still answered."""
        self.is_draining = True

    def state(self) -> ReadyResponse:
        """Return whether a worker can answer."""
        status = "draining" if self.is_draining else "ready" if self.batcher.n_live else "starting"
        return ReadyResponse(
            status=status, predictor=self.batcher.name, workers=self.batcher.n_live, queue=self.batcher.n_waiting
        )

    def check_target(self, target: Target | None) -> Target:
        """Return the target of a request, by default that of the service; ServiceError 400 for one that it lacks."""
        if target == "product" and self.target != "product":
            raise ServiceError(400, "target_not_served", "start the service with --target product")
        return target or self.target

    async def predict(self, request: Request, *, detail: bool, top: int) -> PredictResponse:
        """Return the answers to a request; raises ServiceError."""
        started = time.perf_counter()
        counted = [0]
        try:
            content = await request_body.receive(request, self.limits, self._budget, counted)
            sources = await request_body.parse(request, content, self.limits)
            answers = await self._answers(sources, counted, detail=detail, top=top)
        finally:
            self._budget.give_back(counted[0])
        self.metrics.count(answers)
        if self.on_answers:
            self.on_answers(answers)
        seconds = round(time.perf_counter() - started, 4)
        return PredictResponse(predictions=answers, predictor=self.batcher.name, seconds=seconds)

    async def _answers(
        self, sources: Sequence[ImageSource], counted: list[int], *, detail: bool, top: int
    ) -> list[ImageAnswer]:
        if self.urls is None and any(one.url for one in sources):
            raise ServiceError(400, "urls_not_allowed", "this service fetches no URLs; upload the image")
        self._check_room(len(sources))
        contents = await self._contents(sources, counted)
        fetched = [
            image_answer(failed(one.name, content)) if isinstance(content, str) else Job(content, one.name, detail, top)
            for one, content in zip(sources, contents, strict=True)
        ]
        jobs = [one for one in fetched if isinstance(one, Job)]
        try:
            found = iter(await self.batcher.predict(jobs) if jobs else [])
        except OverloadedError as error:
            raise _overloaded(error.retry_after_s) from error
        except TimeoutError as error:
            raise self._late("the workers are busy or restarting") from error
        return [next(found) if isinstance(one, Job) else one for one in fetched]

    def _check_room(self, n_images: int) -> None:
        """Raise ServiceError where the queue is full, before URLs are fetched for it."""
        if n_images > self.limits.max_queue:
            raise ServiceError(413, "too_many_images", f"the queue holds {self.limits.max_queue} images")
        try:
            self.batcher.check_room(n_images)
        except OverloadedError as error:
            raise _overloaded(error.retry_after_s) from error

    async def _contents(self, sources: Sequence[ImageSource], counted: list[int]) -> list[bytes | str]:
        """Return the bytes of each image, or the reason why its URL gave none.

        URLs of all requests together are limited like the queue, those of one request by the time for its answer.
        """
        n_urls = sum(bool(one.url) for one in sources)
        if self._n_fetching + n_urls > self.limits.max_queue:
            raise _overloaded(self.batcher.retry_after_s)
        self._n_fetching += n_urls
        try:
            async with asyncio.timeout(self.limits.answer_timeout_s):
                return await asyncio.gather(*(self._content(one, counted) for one in sources))
        except TimeoutError as error:
            raise self._late("the URLs are slow") from error
        finally:
            self._n_fetching -= n_urls

    async def _content(self, source: ImageSource, counted: list[int]) -> bytes | str:
        if not source.url or self.urls is None:
            return source.content
        try:
            content = await self.urls.fetch(source.url)
        except ImageUrlError as error:
            return error.reason
        if not self._budget.take(len(content)):
            return "overloaded: too many images in memory"
        counted[0] += len(content)
        return content

    def _late(self, why: str) -> ServiceError:
        return ServiceError(503, "not_answered_in_time", why, retry_after_s=self.batcher.retry_after_s)


def _overloaded(retry_after_s: int) -> ServiceError:
    return ServiceError(503, "overloaded", "the queue is full", retry_after_s=retry_after_s)

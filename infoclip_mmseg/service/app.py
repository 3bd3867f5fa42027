"""The web service: images and prompts in, masks out."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI, File, Form, HTTPException, Request, Response, UploadFile
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import ValidationError

from infoclip_mmseg.apis.inferencer import OpenVocabInferencer
from infoclip_mmseg.apis.prediction import Prediction
from infoclip_mmseg.service import schema
from infoclip_mmseg.service.batching import Batcher, OverloadError
from infoclip_mmseg.service.limits import BodyLimit
from infoclip_mmseg.utils.images import ImageError, read_image
from infoclip_mmseg.version import __version__


@dataclass(frozen=True)
class Settings:
    """Limits of the service.

    Attributes:
        max_batch, max_queue, max_wait: See :class:`Batcher`; images and seconds.
        timeout: Seconds after which a request is given up.
        max_body: Bytes of a request.
        max_pixels: Of an image.
        token: What `Authorization: Bearer` must hold; None: anyone may ask.
    """

    max_batch: int = 8
    max_queue: int = 64
    max_wait: float = 0.01
    timeout: float = 60.0
    max_body: int = 32 << 20
    max_pixels: int = 40_000_000
    token: str | None = None


class Metrics:
    """Prometheus figures of one service."""

    def __init__(self, batcher: Batcher) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            'infoclip_requests',
            'Requests by path and status',
            ['path', 'status'],
            registry=registry,
        )
        self.seconds = Histogram(
            'infoclip_request_seconds', 'Time of a request', ['path'], registry=registry
        )
        self.images = Counter('infoclip_images', 'Images segmented', registry=registry)
        queue = Gauge('infoclip_queue', 'Images that wait', registry=registry)
        queue.set_function(lambda: len(batcher.waiting))


class Service:
    """A model behind a queue."""

    def __init__(self, inferencer: OpenVocabInferencer, settings: Settings) -> None:
        self.inferencer, self.settings = inferencer, settings
        limits = (settings.max_batch, settings.max_queue, settings.max_wait)
        self.batcher = Batcher(self._run, *limits)
        self.metrics = Metrics(self.batcher)

    def _run(self, key: Any, images: Sequence[Any]) -> list[Prediction]:
        classes, background = key
        arrays = [image[..., ::-1] for image in images]
        words = list(classes), list(background) or None
        return self.inferencer(arrays, *words, batch_size=len(arrays))

    def _plan(self, key: Any) -> None:
        classes, background = key
        self.inferencer.plan(list(classes), list(background) or None)

    async def ask(
        self, question: schema.Question, contents: Sequence[bytes], names: Sequence[str]
    ) -> list[Prediction]:
        """Predictions for the bytes of images.

        Raises:
            HTTPException: 422 for what is no image or no words, 503 where the queue is full, 504
                after the time limit.
        """
        try:
            await asyncio.to_thread(self._plan, question.key())
            images = await asyncio.to_thread(self._decode, contents, names)
            work = self.batcher.submit(question.key(), images)
            found = await asyncio.wait_for(work, self.settings.timeout)
        except OverloadError as error:
            headers = {'Retry-After': str(error.retry_after)}
            raise HTTPException(503, str(error), headers) from error
        except TimeoutError as error:
            text = f'no answer within {self.settings.timeout:g} s'
            raise HTTPException(504, text) from error
        except (ImageError, ValueError, TypeError) as error:
            raise HTTPException(422, str(error)) from error
        self.metrics.images.inc(len(found))
        return found

    def _decode(self, contents: Sequence[bytes], names: Sequence[str]) -> list[Any]:
        limit = self.settings.max_pixels
        return [read_image(content, limit, name) for content, name in zip(contents, names)]


def create_app(inferencer: OpenVocabInferencer, settings: Settings | None = None) -> FastAPI:
    """The application; its page /docs describes every address."""
    settings = settings or Settings()
    service = Service(inferencer, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.batcher.start()
        yield
        await service.batcher.stop()

    app = FastAPI(title='infoclip_mmseg', version=__version__, lifespan=lifespan)
    app.state.service = service
    app.add_middleware(BodyLimit, limit=settings.max_body)
    _count_requests(app, service.metrics)
    _add_state(app, service)
    _add_questions(app, service, Depends(_token_check(settings.token)))
    return app


def _token_check(token: str | None) -> Callable[[Request], None]:
    def check(request: Request) -> None:
        if token is None:
            return
        scheme, _, given = request.headers.get('authorization', '').partition(' ')
        right = hmac.compare_digest(given.encode(), token.encode())
        if scheme.lower() != 'bearer' or not right:
            raise HTTPException(401, 'a token is needed', {'WWW-Authenticate': 'Bearer'})

    return check


def _count_requests(app: FastAPI, metrics: Metrics) -> None:
    @app.middleware('http')
    async def count(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        """Count a request and its seconds by route."""
        began = time.monotonic()
        response = await call_next(request)
        route = request.scope.get('route')
        path = getattr(route, 'path', 'unknown')
        metrics.requests.labels(path, response.status_code).inc()
        metrics.seconds.labels(path).observe(time.monotonic() - began)
        return response


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get('/health')
    async def health() -> dict[str, Any]:
        """Whether the service runs, and how many images wait."""
        waiting, limit = len(service.batcher.waiting), service.settings.max_queue
        return dict(status='ok', version=__version__, waiting=waiting, max_queue=limit)

    @app.get('/metrics')
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(generate_latest(service.metrics.registry), media_type='text/plain')


def _add_questions(app: FastAPI, service: Service, allowed: Any) -> None:
    @app.post('/concept_segment', dependencies=[allowed])
    async def concept_segment(body: schema.Request) -> schema.Answer:
        """Masks of each prompt in one image."""
        began = time.monotonic()
        content = decode(body.image, 'image')
        [found] = await service.ask(body, [content], ['image'])
        return await asyncio.to_thread(schema.make_answer, found, body, time.monotonic() - began)

    @app.post('/batch', dependencies=[allowed])
    async def batch(body: schema.BatchRequest) -> schema.BatchAnswer:
        """Masks of each prompt in several images."""
        began = time.monotonic()
        names = [f'images[{index}]' for index in range(len(body.images))]
        contents = [decode(image, name) for image, name in zip(body.images, names)]
        found = await service.ask(body, contents, names)
        seconds = time.monotonic() - began
        answers = [schema.make_answer(one, body, seconds) for one in found]
        return schema.BatchAnswer(results=answers, time=round(seconds, 4))

    @app.post('/segment', dependencies=[allowed], response_class=Response)
    async def segment(
        image: Annotated[UploadFile, File()],
        prompts: Annotated[list[str], Form()],
        background: Annotated[list[str] | None, Form()] = None,
    ) -> Response:
        """The label map as a PNG; header X-Names holds the names by label, as JSON."""
        try:
            words = [prompt.text for prompt in schema.parse_prompts(background or [])]
            question = schema.Question(prompts=schema.parse_prompts(prompts), background=words)
        except ValidationError as error:
            raise HTTPException(422, error.errors(include_url=False)) from error
        [found] = await service.ask(question, [await image.read()], ['image'])
        names = JSONResponse(found.names).body.decode('utf-8')
        header = names.encode('ascii', 'backslashreplace').decode('ascii')
        content = await asyncio.to_thread(schema.label_png, found)
        return Response(content, media_type='image/png', headers={'X-Names': header})

    def decode(image: schema.ImageBody, name: str) -> bytes:
        try:
            return schema.decode_base64(image, name)
        except ImageError as error:
            raise HTTPException(422, str(error)) from error

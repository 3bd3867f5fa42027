"""What a browser may ask of the server: an ASGI middleware in front of Gradio."""

from __future__ import annotations

import re
from typing import Any

MAX_JSON_BYTES = 2 << 20
_OVERHEAD = 1 << 20
"""Bytes of an upload beside the file."""
_READ = re.compile(
    r'/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/(assets|static|svelte)/.*'
    r'|/gradio_api/(theme\.css|startup-events|app_id/?|upload_progress|queue/data'
    r'|heartbeat/[\w.-]+|file=.*)'
)
_WRITE = re.compile(r'/gradio_api/(queue/join/?|upload/?|cancel/?|reset/?)')
_HEADERS = (
    (
        b'content-security-policy',
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
        b"style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        b"media-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; "
        b"base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    ),
    (b'x-content-type-options', b'nosniff'),
    (b'referrer-policy', b'no-referrer'),
)


class Guard:
    """Lets through what the page needs and refuses everything else.

    Gradio has many more endpoints: it describes its functions, forwards requests to other servers,
    fetches files from addresses. Here they do not exist. Bodies are limited before they are
    stored, and a page can load nothing from other servers.

    Args:
        app: The application behind it.
        max_bytes: Largest uploaded file.
    """

    def __init__(self, app: Any, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer or pass on a request; see ASGI."""
        if scope['type'] == 'lifespan':
            await self.app(scope, receive, send)
            return
        if scope['type'] != 'http':
            return
        problem = self._check(scope)
        if problem is not None:
            await _refuse(send, *problem)
            return
        limit = self._limit(scope['path'])
        counted = _Counted(receive, limit)
        try:
            await self.app(scope, counted, _with_headers(send, counted))
        except Exception:
            if not counted.exceeded:
                raise
        if counted.exceeded:
            await _refuse(send, 413, f'the request is larger than {limit} bytes')

    def _limit(self, path: str) -> int:
        return self.max_bytes + _OVERHEAD if '/upload' in path else MAX_JSON_BYTES

    def _check(self, scope: Any) -> tuple[int, str] | None:
        """Status and text of a refusal."""
        allowed = {'GET': _READ, 'HEAD': _READ, 'POST': _WRITE}.get(scope['method'])
        if allowed is None or not allowed.fullmatch(scope['path']):
            return 404, 'there is no such page'
        headers = {key.lower(): value for key, value in scope['headers']}
        length = headers.get(b'content-length', b'0')
        limit = self._limit(scope['path'])
        if not length.isdigit() or int(length) > limit:
            return 413, f'the request is larger than {limit} bytes'
        return None


class _Counted:
    """``receive`` that hangs up at a limit, for bodies that do not tell their length."""

    def __init__(self, receive: Any, limit: int) -> None:
        self.receive, self.left = receive, limit
        self.exceeded = False

    async def __call__(self) -> Any:
        message = await self.receive()
        self.left -= len(message.get('body', b''))
        if self.left >= 0:
            return message
        self.exceeded = True
        return {'type': 'http.disconnect'}


def _with_headers(send: Any, counted: _Counted) -> Any:
    replaced = {key for key, _ in _HEADERS}

    async def wrapped(message: Any) -> None:
        if counted.exceeded:
            return
        if message['type'] == 'http.response.start':
            kept = [h for h in message.get('headers', []) if h[0].lower() not in replaced]
            message = {**message, 'headers': [*kept, *_HEADERS]}
        await send(message)

    return wrapped


async def _refuse(send: Any, status: int, text: str) -> None:
    headers = [(b'content-type', b'text/plain; charset=utf-8'), *_HEADERS]
    await send({'type': 'http.response.start', 'status': status, 'headers': headers})
    await send({'type': 'http.response.body', 'body': text.encode()})

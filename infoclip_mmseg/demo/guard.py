"""What a browser may ask of the server: an ASGI middleware in front of Gradio."""

from __future__ import annotations

import re
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

MAX_JSON_BYTES = 2 << 20
_OVERHEAD = 1 << 20
"""Bytes of an upload beside the file."""
_READ = re.compile(
    r'/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/(assets|static|svelte)/.*'
    r'|/gradio_api/(theme\.css|startup-events|app_id/?|upload_progress|queue/data'
    r'|heartbeat/[\w.-]+|file=.*)'
)
_WRITE = re.compile(r'/gradio_api/(queue/join/?|upload/?|cancel/?|reset/?)')
_HEADERS = {
    'content-security-policy': (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "media-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; "
        "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    ),
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
}


class Guard:
    """Lets through what the page needs and refuses everything else.

    Gradio has many more endpoints: it describes its functions, forwards requests to other servers,
    fetches files from addresses. Here they do not exist. Bodies are limited before they are stored
    (uploaded files to ``max_bytes``), and a page can load nothing from other servers.
    """

    def __init__(self, app: Any, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer or pass on a request; see ASGI."""
        if scope['type'] == 'lifespan':
            await self.app(scope, receive, send)
        elif scope['type'] == 'http':
            limit = self.max_bytes + _OVERHEAD if '/upload' in scope['path'] else MAX_JSON_BYTES
            problem = _check(scope, limit) or await self._pass_on(scope, receive, send, limit)
            if problem is not None:
                await PlainTextResponse(*problem, _HEADERS)(scope, receive, send)

    async def _pass_on(
        self, scope: Any, receive: Any, send: Any, limit: int
    ) -> tuple[str, int] | None:
        """Pass on a request; its body may not tell its length, and is cut off at the limit."""
        left = limit

        async def receive_counted() -> Any:
            nonlocal left
            message = await receive()
            left -= len(message.get('body', b''))
            return message if left >= 0 else {'type': 'http.disconnect'}

        async def send_with_headers(message: Any) -> None:
            if left < 0:
                return
            if message['type'] == 'http.response.start':
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        try:
            await self.app(scope, receive_counted, send_with_headers)
        except Exception:
            if left >= 0:
                raise
        return None if left >= 0 else _too_large(limit)


def _check(scope: Any, limit: int) -> tuple[str, int] | None:
    """Text and status of a refusal."""
    allowed = {'GET': _READ, 'HEAD': _READ, 'POST': _WRITE}.get(scope['method'])
    if allowed is None or not allowed.fullmatch(scope['path']):
        return 'there is no such page', 404
    length = Headers(scope=scope).get('content-length', '0')
    return None if length.isdigit() and int(length) <= limit else _too_large(limit)


def _too_large(limit: int) -> tuple[str, int]:
    return f'the request is larger than {limit} bytes', 413

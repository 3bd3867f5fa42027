"""Requests that are too large are refused before they are read."""

from __future__ import annotations

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """Middleware: 413 for bodies above a limit in bytes, by their header or as they come."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope['headers'])
        told = headers.get(b'content-length', b'0')
        if not told.isdigit() or int(told) > self.limit:
            await self._refuse(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get('body', b''))
            return message if received <= self.limit else {'type': 'http.disconnect'}

        refused = False

        async def watched(message: Message) -> None:
            nonlocal refused
            if received <= self.limit:
                await send(message)
            elif not refused:
                refused = True
                await self._refuse(scope, receive, send)

        await self.app(scope, counted, watched)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        text = f'a request has {self.limit} bytes at most; send a smaller image'
        await JSONResponse(dict(detail=text), 413)(scope, receive, send)

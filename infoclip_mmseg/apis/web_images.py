"""Images from the web, with a limit on their size."""

from __future__ import annotations

import urllib.error
import urllib.request
from http.client import HTTPException
from urllib.parse import urlsplit

from infoclip_mmseg.apis.images import ImageError

SCHEMES = ('http', 'https')
MAX_BYTES = 32 << 20
_CHUNK = 1 << 16


def is_url(text: str) -> bool:
    """Whether a string is an address ('https://...', also 'ftp://...') and not a path."""
    return '://' in text


def fetch(url: str, max_bytes: int = MAX_BYTES, timeout: float = 20.0) -> bytes:
    """Bytes of a file on the web.

    Args:
        url: An http or https address; redirections stay within these two.
        max_bytes: Largest file that is read.
        timeout: Seconds that the server may be silent.

    Raises:
        ImageError: Another scheme, a file over the limit, or no answer.
    """
    check_scheme(url)
    opener = urllib.request.OpenerDirector()
    handlers = (
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.ProxyHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.HTTPRedirectHandler,
        urllib.request.UnknownHandler,
    )
    for handler in handlers:
        opener.add_handler(handler())
    request = urllib.request.Request(url, headers={'User-Agent': 'infoclip_mmseg'})
    parts, total = [], 0
    try:
        with opener.open(request, timeout=timeout) as answer:
            while part := answer.read(_CHUNK):
                parts.append(part)
                total += len(part)
                if total > max_bytes:
                    raise ImageError(
                        f'{url}: the file is larger than the limit of {max_bytes} bytes; download '
                        'it yourself, or raise max_bytes'
                    )
    except (urllib.error.URLError, HTTPException, OSError, UnicodeError) as error:
        reason = getattr(error, 'reason', None) or error
        raise ImageError(f'{url}: cannot be fetched ({reason})') from error
    return b''.join(parts)


def check_scheme(url: str) -> None:
    """Raise an ImageError for an address that is neither http nor https."""
    scheme = urlsplit(url).scheme.lower()
    if scheme not in SCHEMES:
        raise ImageError(
            f'{url}: addresses of scheme {scheme!r} are not opened, only http and https; pass '
            'local files as paths'
        )

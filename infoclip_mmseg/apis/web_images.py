"""Pictures from the web."""

from __future__ import annotations

from urllib.parse import urlsplit

import requests

from infoclip_mmseg.utils.images import ImageError

MAX_BYTES = 32 << 20
HEADERS = {'User-Agent': 'infoclip_mmseg', 'Accept-Encoding': 'identity'}


def fetch(url: str, max_bytes: int = MAX_BYTES, timeout: float = 20.0) -> bytes:
    """Bytes of a file at an http or https address; redirections stay within these two.

    The server may be silent for ``timeout`` seconds. Another scheme, a larger file than
    ``max_bytes``, or no answer is an ImageError.
    """
    check_scheme(url)
    content = bytearray()
    try:
        with requests.get(url, headers=HEADERS, stream=True, timeout=timeout) as answer:
            answer.raise_for_status()
            for chunk in answer.iter_content(1 << 16):
                content += chunk
                if len(content) > max_bytes:
                    raise ImageError(
                        f'{url}: the file is larger than the limit of {max_bytes} bytes; download '
                        'it yourself, or raise max_bytes'
                    )
    except (requests.RequestException, UnicodeError) as error:
        raise ImageError(f'{url}: cannot be fetched ({error})') from error
    return bytes(content)


def check_scheme(url: str) -> None:
    """Raise an ImageError for an address that is neither http nor https."""
    scheme = urlsplit(url).scheme.lower()
    if scheme not in ('http', 'https'):
        raise ImageError(
            f'{url}: addresses of scheme {scheme!r} are not opened, only http and https; pass '
            'local files as paths'
        )

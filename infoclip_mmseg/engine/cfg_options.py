"""KEY=VALUE options of a command line, as mmengine's DictAction reads them, with their spaces."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import DictAction

_OPENING, _CLOSING, _QUOTES = '([', ')]', '\'"'


class CfgOptions(DictAction):
    """``--cfg-options``: values may hold spaces, which mmengine's DictAction takes out.

    ``"model.templates=a picture of {}"`` is one string. Commas part the elements of a list; within
    quotes (``"key='one, two'"``) they do not.
    """

    @staticmethod
    def _parse_iterable(val: str) -> Any:
        return parse_value(val)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Parse the options; one that can't be parsed ends the program with an error line."""
        for value in values or ():
            if '=' not in value:
                parser.error(
                    f'{option_string} takes KEY=VALUE, got {value!r}; quote what has spaces: '
                    '"KEY=two words"'
                )
        try:
            super().__call__(parser, namespace, values, option_string)
        except ValueError as error:
            parser.error(f'{option_string}: {error}')


def parse_value(text: str) -> Any:
    """Value of an option: number, truth value, None, string, or a list or tuple of these.

    Such as '1', 'true', 'two words', 'a,b', '[a, b]', '(1, [2, 3])', "'a, b'"; a list whose
    brackets do not match is a ValueError.
    """
    text = text.strip()
    if _is_quoted(text):
        inner = text[1:-1].strip()
        return parse_value(inner) if inner[:1] in _OPENING and inner else _scalar(text[1:-1])
    if _is_bracketed(text):
        values = [parse_value(part) for part in _split(text[1:-1])]
        return tuple(values) if text[0] == '(' else values
    return [parse_value(part) for part in _split(text)] if ',' in text else _scalar(text)


def _scalar(text: str) -> Any:
    value = DictAction._parse_int_float_bool(text.strip())
    return text if isinstance(value, str) else value


def _is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] in _QUOTES and text.find(text[0], 1) == len(text) - 1


def _is_bracketed(text: str) -> bool:
    """Whether the first bracket is closed by the last character."""
    depths = _depths(text)
    return text[:1] in tuple(_OPENING) and depths[-1] == 0 and depths.index(0) == len(text) - 1


def _depths(text: str) -> list[int]:
    """How many brackets are open behind each character; those within quotes do not count."""
    depth, quote, depths = 0, '', []
    for character in text:
        if quote:
            quote = '' if character == quote else quote
        elif character in _QUOTES:
            quote = character
        else:
            depth += (character in _OPENING) - (character in _CLOSING)
        depths.append(depth + bool(quote))
    return depths


def _split(text: str) -> Iterator[str]:
    """Parts between commas outside of brackets and quotes; none behind the last comma."""
    depths = _depths(text)
    if text and depths[-1]:
        raise ValueError(f'brackets or quotes do not match in {text!r}')
    start = 0
    for index, character in enumerate(text):
        if character == ',' and not depths[index]:
            yield text[start:index]
            start = index + 1
    if text[start:].strip():
        yield text[start:]

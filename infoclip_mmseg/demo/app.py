"""The page as a Gradio app."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from mmengine.logging import print_log
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from infoclip_mmseg.demo.engine import DemoEngine, Example, PageError
from infoclip_mmseg.demo.guard import Guard
from infoclip_mmseg.demo.result import escape, render_error, render_labels
from infoclip_mmseg.demo.segment_result import render_segments
from infoclip_mmseg.utils.images import ImageError

ASSETS = Path(__file__).parent / 'assets'
TITLE = 'Open-vocabulary segmentation'
HINT = (
    '<div class="ic-empty">Drop an image, type what to look for, press <b>Segment</b>. '
    'Or take an example.</div>'
)
QUEUE_LENGTH = 64
LOOPBACK = ('127.0.0.1', 'localhost', '::1')
FONT, MONOSPACE = ['system-ui', 'sans-serif'], ['ui-monospace', 'monospace']


def uploaded_image(**options: Any) -> Any:
    """A Gradio image that the server has as an uploaded file, and from nowhere else.

    Gradio itself would decode the file before limits are checked, and fetch addresses. (Methods of
    this one object are replaced: for a subclass Gradio writes a .pyi file beside the source.)
    """
    image = gr.Image(type='filepath', image_mode=None, **options)
    folder = Path(image.GRADIO_CACHE).resolve()
    keep = image.async_move_resource_to_block_cache

    def path_of(payload: Any) -> Path | None:
        if payload is None or payload.path is None:
            return None
        path = Path(payload.path).resolve()
        if not path.is_relative_to(folder) or not path.is_file():
            raise PageError('This file is not known to the server: upload it again.')
        return path

    async def keep_file(place: Any) -> str | None:
        if '://' in str(place) or str(place).startswith('data:'):
            raise PageError('Addresses are not fetched: save the image and upload it.')
        return await keep(place)

    image.preprocess, image.async_move_resource_to_block_cache = path_of, keep_file
    return image


def answer(
    engine: DemoEngine,
    path: Path | None,
    words: str | None,
    background: str | None,
    task: str = 'semantic',
    things: str | None = None,
) -> str:
    """HTML of a request's result or error; a failure of the program goes to the log only."""
    try:
        if task == 'semantic':
            return render_labels(engine.segment(path, words or '', background or ''))
        return render_segments(engine.find(path, words or '', things or '', task))
    except (PageError, ImageError) as error:
        return render_error(str(error))
    except Exception:
        print_log(traceback.format_exc(), logger='current', level=logging.ERROR)
        return render_error('The server failed at this request; its log says why.')


def build_page(engine: DemoEngine, examples: Sequence[Example]) -> gr.Blocks:
    """The page; :func:`launch` serves it."""
    page = gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600))
    with page:
        gr.HTML(_header(engine), js_on_load=None)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300, elem_classes='ic-inputs'):
                image = uploaded_image(
                    label='Image', sources=['upload', 'clipboard'], height=190, elem_id='ic-image'
                )
                with gr.Row(elem_id='ic-examples'):
                    pictures = [gr.Button('', icon=str(e.path), min_width=72) for e in examples]
                texts, choices = _questions(engine)
                button = gr.Button('Segment', variant='primary', elem_id='ic-segment')
            with gr.Column(scale=3, min_width=300, elem_classes='ic-outputs'):
                result = gr.HTML(HINT, elem_id='ic-result', js_on_load=None)
        inputs = [image, *texts, *choices]
        private = dict(api_visibility='private', show_progress='minimal')
        segment = partial(answer, engine)
        gr.on([button.click, texts[0].submit], segment, inputs, result, **private)
        for picture, example in zip(pictures, examples):
            values = (str(example.path), example.words, '')
            picture.click(partial(tuple, values), None, [image, *texts], **private).then(
                segment, inputs, result, **private
            )
    return page


def _questions(engine: DemoEngine) -> tuple[list[Any], list[Any]]:
    """Fields of words and background, and of task and things where the model finds masks.

    ``assets/page.css`` shows those that the task has a use for.
    """
    limit = engine.limits.max_characters
    words = gr.Textbox(
        label="Words, one a line or separated by ';'",
        info="Synonyms after commas: 'car, automobile'",
        placeholder='cat\nred car, automobile\nroad',
        lines=5,
        max_lines=6,
        max_length=limit,
        elem_id='ic-words',
    )
    choices = []
    short = dict(lines=1, max_lines=3, max_length=limit)
    if len(engine.tasks) > 1:
        choices = [
            gr.Radio(list(engine.tasks), value='semantic', label='Task', elem_id='ic-task'),
            gr.Textbox(
                label='Things, if not all words',
                placeholder='cat; red car, automobile: their objects are told apart',
                elem_id='ic-things',
                **short,
            ),
        ]
    background = gr.Textbox(
        label='Background words, if any',
        placeholder='wall; floor: what they win stays without a label',
        elem_id='ic-background',
        **short,
    )
    return [words, background], choices


def launch(page: gr.Blocks, engine: DemoEngine, host: str, port: int) -> str:
    """Serve the page of :func:`build_page`; returns the address. OSError: the port is taken."""
    page.queue(max_size=QUEUE_LENGTH, default_concurrency_limit=1, api_open=False)
    middleware = [Middleware(Guard, max_bytes=engine.limits.max_bytes)]
    if host in LOOPBACK:  # no other site can point a name of its own here
        names = dict(allowed_hosts=LOOPBACK, www_redirect=False)
        middleware.insert(0, Middleware(TrustedHostMiddleware, **names))
    off = ('share', 'inbrowser', 'show_error', 'enable_monitoring', 'ssr_mode', 'pwa', 'mcp_server')
    script = (ASSETS / 'page.js').read_text('utf-8').strip().removesuffix(';')
    _, url, _ = page.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        allowed_paths=[],
        max_file_size=engine.limits.max_bytes,
        footer_links=[],
        **dict.fromkeys(off, False),
        app_kwargs=dict(middleware=middleware, docs_url=None, redoc_url=None, openapi_url=None),
        theme=gr.themes.Default(font=FONT, font_mono=MONOSPACE),
        css=(ASSETS / 'page.css').read_text('utf-8'),
        head=f'<script>({script})();</script>',
    )
    return url


def _header(engine: DemoEngine) -> str:
    drawn = 'world' in Path(engine.inferencer.cfg.filename or '').parts
    note = ' · a small CLIP that knows drawn scenes only' if drawn else ''
    return (
        f'<div class="ic-header"><h1>{TITLE}</h1>'
        f'<p>{escape(engine.title)} on {engine.inferencer.device.type}{note}</p></div>'
    )

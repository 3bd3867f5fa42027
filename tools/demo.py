#!/usr/bin/env python
"""A web page for segmenting images with words of one's own.

Usage: pip install -e ".[demo]"
       python tools/demo.py [--config CONFIG --weights CHECKPOINT] [--port 7860]

Without --config the small CLIP of the composed world is used: nothing is downloaded, and it knows
nothing but drawn scenes, of which the page has examples. The page is served to this machine only,
unless --host says otherwise; there is no login.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from infoclip_mmseg.apis.inferencer import DEFAULT_CONFIG
from infoclip_mmseg.demo.engine import DemoEngine, PageLimits, draw_examples
from infoclip_mmseg.engine.launch import keep_freed_memory
from infoclip_mmseg.utils.checkpoint_files import CheckpointError


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description='Serve a web page for segmenting images.')
    parser.add_argument('--config', default=DEFAULT_CONFIG, help='name or path of a config')
    parser.add_argument('--weights', help='checkpoint (.pth or .safetensors)')
    parser.add_argument('--device', help='cpu, cuda, cuda:1; default: CUDA where there is one')
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument('--host', default='127.0.0.1', help='0.0.0.0 serves the network')
    parser.add_argument('--port', type=int, default=7860, help='0: any free one')
    parser.add_argument('--max-upload', type=int, default=16, metavar='MIB', help='of a file')
    parser.add_argument(
        '--max-pixels', type=int, default=PageLimits.max_pixels, help='of an uploaded image'
    )
    parser.add_argument('--max-words', type=int, default=PageLimits.max_words, help='of a request')
    return parser


def set_environment(folder: Path) -> None:
    """Make the command line decide alone: Gradio also reads the environment."""
    for key in [key for key in os.environ if key.startswith('GRADIO_')]:
        del os.environ[key]
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
    os.environ['GRADIO_TEMP_DIR'] = str(folder)
    os.environ['HF_HUB_DISABLE_TELEMETRY'] = '1'


def pick_port(host: str, port: int) -> int:
    """The port, or with 0 a free one.

    Raises:
        OSError: The port is taken, or the host is not this machine.
    """
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise OSError(
                f'{host} port {port}: {error}; choose another --port or --host'
            ) from error
        return int(probe.getsockname()[1])


def serve(args: argparse.Namespace, folder: Path) -> None:
    """Load the model, build the page and serve it until it is stopped."""
    uploads = folder / 'uploads'
    uploads.mkdir()
    set_environment(uploads)
    from infoclip_mmseg.demo.app import build_page, launch  # Gradio reads the environment

    port = pick_port(args.host, args.port)
    limits = PageLimits(args.max_upload << 20, args.max_pixels, args.max_words)
    engine = DemoEngine(args.config, args.weights, args.device, args.amp, limits)
    page = build_page(engine, draw_examples(folder))
    url = launch(page, engine, args.host, port)
    print(f'serving at {url} (Ctrl+C stops)', flush=True)
    page.block_thread()


def main(argv: Sequence[str] | None = None) -> int:
    """Serve; returns the exit status."""
    parser = build_parser()
    args = parser.parse_args(argv)
    keep_freed_memory()
    try:
        with tempfile.TemporaryDirectory(prefix='infoclip_demo_') as folder:
            serve(args, Path(folder).resolve())
    except ModuleNotFoundError as error:
        if (error.name or '').split('.')[0] != 'gradio':
            raise
        parser.exit(2, f'{parser.prog}: error: Gradio is missing: pip install -e ".[demo]"\n')
    except (CheckpointError, OSError, ValueError) as error:
        parser.exit(2, f'{parser.prog}: error: {error}\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())

#!/usr/bin/env python
"""Serve a segmentation model over HTTP: images and prompts in, masks out.

Usage: python tools/serve.py [--model NAME|FOLDER] [--weights CHECKPOINT] [--port 8000] [--token T]

    curl -F image=@photo.jpg -F 'prompts=cat; dog' http://127.0.0.1:8000/segment > labels.png

The page /docs describes all addresses, /health and /metrics are for machines. Without --host only
this computer can ask. A token is better given by the environment variable INFOCLIP_TOKEN. On TERM
what has begun is finished. Needs: pip install "infoclip_mmseg[serve]".
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from infoclip_mmseg.apis.inferencer import DEFAULT_CONFIG
from infoclip_mmseg.engine.launch import keep_freed_memory
from infoclip_mmseg.integrations.loading import load_inferencer
from infoclip_mmseg.utils.checkpoint_files import CheckpointError

GRACE_SECONDS = 120


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description='Serve a segmentation model over HTTP.')
    parser.add_argument(
        '--model', default=DEFAULT_CONFIG, help='config by name or path, or a saved folder'
    )
    parser.add_argument('--weights', help='checkpoint of a config')
    parser.add_argument('--device', help='cpu, cuda, cuda:1; default: CUDA where there is one')
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument('--host', default='127.0.0.1', help='0.0.0.0: every network')
    parser.add_argument('--port', type=int, default=8000)
    parser.add_argument(
        '--token', default=os.environ.get('INFOCLIP_TOKEN'), help='asked of clients'
    )
    parser.add_argument('--max-batch', type=int, default=8, help='images at a time')
    parser.add_argument('--max-queue', type=int, default=64, help='images that may wait')
    parser.add_argument('--max-wait', type=float, default=0.01, help='seconds for a batch to fill')
    parser.add_argument('--timeout', type=float, default=60.0, help='seconds of a request')
    parser.add_argument('--max-body', type=int, default=32 << 20, help='bytes of a request')
    parser.add_argument('--max-pixels', type=int, default=40_000_000, help='of an image')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Load the model, then serve until a signal comes."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        import uvicorn

        from infoclip_mmseg.service.app import Settings, create_app
    except ImportError as error:
        text = f'{error}; pip install "infoclip_mmseg[serve]"'
        parser.exit(2, f'{parser.prog}: error: {text}\n')
    keep_freed_memory()
    try:
        inferencer = load_inferencer(args.model, args.weights, device=args.device, amp=args.amp)
        names = ('max_batch', 'max_queue', 'max_wait', 'timeout', 'max_body', 'max_pixels', 'token')
        app = create_app(inferencer, Settings(**{name: getattr(args, name) for name in names}))
    except (CheckpointError, OSError, ValueError) as error:
        parser.exit(2, f'{parser.prog}: error: {error}\n')
    if args.token is None and args.host not in ('127.0.0.1', 'localhost', '::1'):
        print('anyone who reaches this computer can ask: set a token', file=sys.stderr)
    uvicorn.run(app, host=args.host, port=args.port, timeout_graceful_shutdown=GRACE_SECONDS)


if __name__ == '__main__':
    main()

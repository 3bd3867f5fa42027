#!/usr/bin/env bash
# The whole test suite on the upstream stack (mmsegmentation 1.2.2, mmengine 0.10.7, mmcv 2.1.0):
#   tests/upstream/run.sh path/to/mmcv-2.1.0-cp311-cp311-linux_x86_64.whl [options of pytest]
# The wheel must have been compiled against torch 2.1; MMCV_WHEEL may name it instead. PYTHON is the
# interpreter that fits the wheel (default python3.11). VENV is a folder for the environment, made
# if it is not there and kept; without it a temporary one is used.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
wheel=${MMCV_WHEEL:-}
if [ -z "$wheel" ]; then
    wheel=${1:-}
    shift || true
fi
if [ ! -f "$wheel" ]; then
    echo "usage: $0 MMCV_WHEEL [options of pytest]   (got '$wheel', which is not a file)" >&2
    exit 2
fi
wheel=$(realpath "$wheel")
venv=${VENV:-}
if [ -z "$venv" ]; then
    venv=$(mktemp -d)
    trap 'rm -rf "$venv"' EXIT
fi
if [ ! -x "$venv/bin/python" ]; then
    "${PYTHON:-python3.11}" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet -r "$here/requirements-upstream.txt" "$wheel"
fi
cd "$here/../.."
"$venv/bin/python" -m pytest -q -m '' "$@"

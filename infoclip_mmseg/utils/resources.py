"""The files that come with the package: configs, tools, the small CLIP."""

from __future__ import annotations

import difflib
import os
from pathlib import Path


def resources() -> Path:
    """The folder that holds ``configs/``, ``tools/`` and ``data/clip/``.

    It is the root of a checkout, and of an installed package its folder ``.mim``, as for
    MMSegmentation.
    """
    package = Path(__file__).resolve().parents[1]
    installed = package / '.mim'
    return installed if installed.is_dir() else package.parent


def find_file(name: str | os.PathLike[str]) -> Path:
    """A file by its path from the working directory, or else from :func:`resources`.

    Configs name files such as 'data/clip/composed_world.safetensors' from the root; so they are
    found wherever a program runs. A path that leads to neither is given back as it is.
    """
    path = Path(name).expanduser()
    shipped = resources() / path
    return shipped if not path.exists() and shipped.is_file() else path


def find_config(name: str | os.PathLike[str]) -> Path:
    """A config file, by path or by name.

    A name is that of a config of this repository, with or without its folder:
    'infoclip_vitb16_coco-stuff', 'world/zero_shot', 'configs/world/zero_shot.py'.

    Raises:
        FileNotFoundError: It is neither.
        ValueError: Configs in several folders have the name.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    folder = resources() / 'configs'
    known = {
        p.relative_to(folder).with_suffix('').as_posix(): p
        for p in sorted(folder.rglob('*.py'))
        if '_base_' not in p.parts
    }
    wanted = Path(name).as_posix().removesuffix('.py').removeprefix('configs/')
    matches = [p for key, p in known.items() if key == wanted or key.split('/')[-1] == wanted]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ValueError(f'{name!r} fits several configs: {", ".join(map(str, matches))}')
    close = difflib.get_close_matches(wanted, [*known, *(k.split('/')[-1] for k in known)], n=3)
    hint = f'; did you mean {" or ".join(close)}?' if close else ''
    where = f'in {folder}' if known else 'as this installation has no configs: pass a path'
    raise FileNotFoundError(
        f'config {str(name)!r} is neither a file (working directory {Path.cwd()}) nor found by '
        f'name {where}{hint}'
    )

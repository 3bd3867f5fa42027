"""A model as a folder of data: safetensors and JSON, on a disk or on the Hugging Face Hub.

The folder holds ``config.json`` (what is built, the vocabulary, the digest of the weights),
``model.safetensors`` and ``README.md``, the model card. Nothing in it is run.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.registry import Registry
from mmseg.registry import MODELS, TRANSFORMS
from safetensors.torch import save_model

from infoclip_mmseg.apis.loading import pipeline_steps
from infoclip_mmseg.apis.model_card import write_card
from infoclip_mmseg.models.segmentors.open_vocab import OpenVocabSegmentor
from infoclip_mmseg.utils.checkpoint_files import CheckpointError
from infoclip_mmseg.utils.files import file_digest, write_text, write_whole
from infoclip_mmseg.version import __version__

CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = 'config.json', 'model.safetensors', 'README.md'
FORMAT, FORMAT_VERSION = 'infoclip_mmseg', 1
MAX_CONFIG_BYTES = 8 << 20
TRUSTED = ('infoclip_mmseg', 'mmseg', 'mmcv', 'mmengine')
"""Packages whose registered classes a folder may name."""


class HubError(ValueError):
    """A folder that holds no model of this package, or not the one that it says it holds."""


class Packed(NamedTuple):
    """What a folder holds."""

    cfg: Config
    weights: Path
    classes: list[str] | None


def pack(
    cfg: Config, model: OpenVocabSegmentor, folder: Path, classes: Sequence[str] | None
) -> Path:
    """Write a model that was built from a config, and the names that it is meant for, as a folder.

    Each file appears whole, ``config.json`` last.
    """
    weights = folder / WEIGHTS_FILE
    with write_whole(weights) as draft:
        save_model(model, str(draft))
    content = dict(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        version=__version__,
        name=Path(cfg.filename or 'model').stem,
        model=_plain(inference_config(cfg, model)),
        pipeline=_plain(pipeline_steps(cfg)),
        vocabulary=None if classes is None else list(classes),
        weights=dict(sha256=file_digest(weights), bytes=weights.stat().st_size),
    )
    write_card(folder / CARD_FILE, content)
    write_text(folder / CONFIG_FILE, json.dumps(content, indent=1, ensure_ascii=False) + '\n')
    return folder


def inference_config(cfg: Config, model: OpenVocabSegmentor) -> dict[str, Any]:
    """The config of a segmentor without what only training needs, and without names of files."""
    parts = {k: v for k, v in cfg.model.items() if k not in OpenVocabSegmentor.TRAINING_KEYS}
    parts = copy.deepcopy(parts)
    parts['backbone'].update(pretrained=None)
    parts['backbone'].pop('text_cache_dir', None)
    ensemble = getattr(model.decode_head, 'ensemble', None)
    if ensemble:
        parts['decode_head']['ensemble'] = dict(ensemble)
    return parts


def unpack(folder: Path) -> Packed:
    """Read and check a folder of :func:`pack`.

    Raises:
        FileNotFoundError: A file is missing.
        HubError: It is of another kind, names classes that are not ours, or is not valid JSON.
        CheckpointError: The weights are not those that it was written with.
    """
    content = _read_config(folder / CONFIG_FILE)
    for registry, key in ((MODELS, 'model'), (TRANSFORMS, 'pipeline')):
        for place, value in _entries(content[key], key):
            _check_entry(place, value, registry)
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        raise FileNotFoundError(f'{folder} has no {WEIGHTS_FILE}')
    expected, digest = content['weights']['sha256'], file_digest(weights)
    if digest != expected:
        raise CheckpointError(
            f'{weights} has the SHA-256 {digest}, {CONFIG_FILE} says {expected}: the file is '
            'damaged or of another model; fetch the folder again'
        )
    dataset = dict(pipeline=content['pipeline'])
    cfg = Config(dict(model=content['model'], test_dataloader=dict(dataset=dataset)))
    return Packed(cfg, weights, content['vocabulary'])


def fetch(name: str | os.PathLike[str], revision: str | None, token: str | None) -> Path:
    """The folder of a name: a folder that is there, or a download from the Hub ('org/name').

    Raises:
        FileNotFoundError: It is neither.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        files = [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE]
        path = snapshot_download(str(name), revision=revision, token=token, allow_patterns=files)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f'{str(name)!r} is no folder (working directory {Path.cwd()}) and could not be fetched '
            f"from the Hugging Face Hub as 'organisation/name': {error}"
        ) from error
    return Path(path)


def push(
    cfg: Config,
    model: OpenVocabSegmentor,
    repo_id: str,
    classes: Sequence[str] | None,
    private: bool | None,
    token: str | None,
) -> str:
    """Upload :func:`pack`'s folder to the Hub; returns the address of the commit."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with TemporaryDirectory() as folder:
        pack(cfg, model, Path(folder), classes)
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder))


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f'{path.parent} has no {CONFIG_FILE}; expected a folder that save_pretrained wrote'
        )
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise HubError(f'{path} has more than {MAX_CONFIG_BYTES >> 20} MiB')
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise HubError(f'{path} is no valid JSON: {error}') from error
    kind = content.get('format') if isinstance(content, dict) else type(content).__name__
    if kind != FORMAT:
        raise HubError(f'{path} says format={kind!r}, expected {FORMAT!r}')
    if content.get('format_version') != FORMAT_VERSION:
        raise HubError(
            f'{path} has format_version={content.get("format_version")!r}, this package '
            f'({__version__}) reads {FORMAT_VERSION}; update the package'
        )
    shapes: dict[str, Any] = dict(
        model=dict, pipeline=list, vocabulary=(list, type(None)), weights=dict
    )
    wrong = [key for key, shape in shapes.items() if not isinstance(content.get(key, 0), shape)]
    names = content.get('vocabulary') or []
    if wrong or 'sha256' not in content['weights'] or not all(isinstance(n, str) for n in names):
        raise HubError(f'{path}: expected {sorted(shapes)} as save_pretrained writes them')
    if content['model'].get('type') != OpenVocabSegmentor.__name__:
        raise HubError(f'{path}: model.type is {content["model"].get("type")!r}')
    return content


def _entries(value: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All dicts of nested values, with where they are."""
    if isinstance(value, Mapping):
        yield place, value
        for key, inner in value.items():
            yield from _entries(inner, f'{place}.{key}')
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _entries(inner, f'{place}[{index}]')


def _check_entry(place: str, entry: Mapping[str, Any], registry: Registry) -> None:
    """Refuse what could build, read or fetch something else than parts of a model."""
    private = [key for key in entry if key.startswith('_')]
    if private:
        raise HubError(f'{place} has the keys {private}, which configs from elsewhere may not have')
    if entry.get('pretrained') is not None or entry.get('init_cfg') is not None:
        raise HubError(f'{place} names weights of its own; expected those of {WEIGHTS_FILE} only')
    if ':' in str(entry.get('model_name', '')) and isinstance(entry['model_name'], str):
        raise HubError(f'{place}.model_name is {entry["model_name"]!r}, which would be fetched')
    if 'type' not in entry:
        return
    kind = entry['type']
    known = registry.get(kind) if isinstance(kind, str) else None
    if known is None or known.__module__.partition('.')[0] not in TRUSTED:
        raise HubError(f'{place}.type is {kind!r}, which is none of the parts of a model')


def _plain(value: Any) -> Any:
    """Nested values as JSON has them; a ValueError for anything else."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f'{value!r} cannot be written to {CONFIG_FILE}')

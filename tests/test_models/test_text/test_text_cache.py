"""Text embeddings on disk: hits, misses, damage."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from infoclip_mmseg.models import CLIPDualEncoder, build_prompts

PROMPTS = build_prompts(['cat', 'dog, hound', 'zebra crossing'])


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / 'made' / 'cache'


@pytest.fixture
def build(toy_cfg, folder):
    """Builder of encoders that count the batches they encode."""

    def builder(seed: int = 0, cache: Path | None = folder, **changes) -> CLIPDualEncoder:
        torch.manual_seed(seed)
        model = {**toy_cfg()['backbone']['model_name'], **changes.pop('model', {})}
        encoder = CLIPDualEncoder(model, text_cache_dir=cache and str(cache), **changes).eval()
        encode, encoder.encoded = encoder.text_encoder.encode, []

        def record(tokens, *run):
            encoder.encoded.append(len(tokens))
            return encode(tokens, *run)

        encoder.text_encoder.encode = record
        return encoder

    return builder


@pytest.fixture
def warnings(monkeypatch):
    lines = []
    monkeypatch.setattr('infoclip_mmseg.models.text.cache._warn', lines.append)
    return lines


def embed(encoder: CLIPDualEncoder, prompts=PROMPTS) -> torch.Tensor:
    with torch.no_grad():
        return encoder.embed_prompts(prompts)


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.exists() else []


def test_a_second_process_reads_what_the_first_wrote(build, folder):
    first = embed(build())
    assert [path.suffix for path in files(folder)] == ['.safetensors']
    second = build()
    assert torch.equal(embed(second), first)
    assert second.encoded == []
    off = build(cache=None)
    torch.testing.assert_close(embed(off), first)
    assert off.encoded == [3]


def test_everything_that_counts_is_in_the_key(build, folder):
    embed(build())
    others = [
        (build(seed=1), PROMPTS),
        (build(), build_prompts(['cat', 'dog, hound', 'zebra'])),
        (build(), build_prompts(['cat', 'zebra crossing', 'dog, hound'])),
        (build(), build_prompts(['cat', 'dog, hound', 'zebra crossing'], synonyms='average')),
        (build(), build_prompts(['cat', 'dog, hound', 'zebra crossing'], ['a {}', 'the {}'])),
        (build(model=dict(quick_gelu=False)), PROMPTS),
    ]
    tokenizer = build()
    tokenizer.tokenizer = lambda texts: CLIPDualEncoder.tokenizer.fget(build())(texts[::-1])
    others.append((tokenizer, PROMPTS))
    for count, (encoder, prompts) in enumerate(others, 2):
        embed(encoder, prompts)
        assert encoder.encoded and len(files(folder)) == count
    # What the embeddings do not depend on is not in the key; they are float32 under autocast too.
    encoder = build()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        embed(encoder)
    assert encoder.encoded == []
    encoder = build(finetune='frozen', text_batch_size=2)
    encoder.clip.visual.proj.data += 1
    embed(encoder)
    assert encoder.encoded == []


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b'')


def without_key(path: Path) -> None:
    save_file({'embeddings': load_file(str(path))['embeddings'] + 1}, str(path))


@pytest.mark.parametrize('damage', [flip_a_byte, cut, empty, without_key])
def test_damaged_files_are_said_and_made_again(build, folder, warnings, damage):
    first = embed(build())
    (path,) = files(folder)
    damage(path)
    encoder = build()
    assert torch.equal(embed(encoder), first)
    assert encoder.encoded == [3]
    assert len(warnings) == 1 and path.name in warnings[0] and 'made again' in warnings[0]
    assert files(folder) == [path]
    last = build()
    assert torch.equal(embed(last), first) and last.encoded == []


def test_file_of_other_weights_under_the_name(build, folder, warnings):
    first = embed(build())
    (path,) = files(folder)
    embed(build(seed=1))
    (other,) = set(files(folder)) - {path}
    shutil.copy(other, path)
    assert torch.equal(embed(build()), first)
    assert 'belongs to other weights or prompts' in warnings[0]


def test_folder_that_cannot_be_written_is_a_warning(build, tmp_path, warnings):
    (tmp_path / 'file').write_text('not a folder')
    encoder = build(cache=tmp_path / 'file')
    expected = embed(build(cache=None))
    torch.testing.assert_close(embed(encoder), expected)
    assert 'cannot be written' in warnings[0]


def test_interrupted_writing_leaves_no_file(build, folder, monkeypatch, warnings):
    def fail(*args, **kwargs):
        raise OSError('disk full')

    monkeypatch.setattr(os, 'replace', fail)
    embed(build())
    assert files(folder) == [] and 'disk full' in warnings[0]


def test_training_reads_no_file(build, folder):
    embed(build())
    encoder = build().train()
    embedded = encoder.embed_prompts(PROMPTS)
    assert embedded.requires_grad and encoder.encoded == [3]
    with torch.no_grad():
        encoder.embed_prompts(PROMPTS)
    assert encoder.encoded == [3, 3] and len(files(folder)) == 1
    frozen = build(finetune='frozen').train()
    frozen.embed_prompts(PROMPTS)
    assert frozen.encoded == []

"""Tokenizers of Hugging Face: read from a folder, and one error where their files are missing."""

from __future__ import annotations

import pytest
import torch
from mmseg.registry import MODELS
from timm_toys import clip_config

from infoclip_mmseg.models.text.tokenizers import build_tokenizer

NAME = 'no-one/SigLIP-of-no-one'


@pytest.fixture
def folder(tmp_path):
    """A tokenizer of seven words, in the files of Hugging Face."""
    transformers = pytest.importorskip('transformers')
    tokenizers = pytest.importorskip('tokenizers')
    words = ['<pad>', '</s>', '<unk>', 'a', 'photo', 'of', 'cat']
    vocabulary = {word: index for index, word in enumerate(words)}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token='<unk>'))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = dict(pad_token='<pad>', eos_token='</s>', unk_token='<unk>')
    transformers.PreTrainedTokenizerFast(tokenizer_object=model, **special).save_pretrained(
        tmp_path
    )
    return str(tmp_path)


def config(name: str = NAME) -> dict:
    model = clip_config('toy_siglip')
    model['text_cfg'].update(hf_tokenizer_name=name, tokenizer_kwargs=dict(clean='canonicalize'))
    return model


def test_a_folder(folder):
    tokens = build_tokenizer(config(), 16, folder)(['A photo of a Cat!', 'dog'])
    assert tokens.shape == (2, 16)
    assert tokens[0].tolist() == [3, 4, 5, 3, 6] + [0] * 11
    assert tokens[1].tolist() == [2] + [0] * 15
    encoder = MODELS.build(
        dict(type='CLIPDualEncoder', model_name=config(), tokenizer_dir=folder)
    ).eval()
    assert torch.equal(encoder.tokenizer(['cat']), build_tokenizer(config(), 16, folder)(['cat']))


@pytest.mark.parametrize('place', ['hub', 'empty folder', 'no folder'])
def test_missing_files_are_one_error(place, tmp_path, monkeypatch):
    # Read when these are imported: the variable would come too late, and the hub be asked again and
    # again where there is no network.
    hub, transformers = pytest.importorskip('huggingface_hub'), pytest.importorskip('transformers')
    monkeypatch.setattr(hub.constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(transformers.utils.hub, '_is_offline_mode', True, raising=False)
    chosen = {'hub': None, 'empty folder': str(tmp_path), 'no folder': str(tmp_path / 'x')}[place]
    with pytest.raises(FileNotFoundError) as error:
        build_tokenizer(config(), 16, chosen)
    said = str(error.value)
    assert NAME in said and 'model.backbone.tokenizer_dir' in said
    assert 'tokenizer.json' in said and f'https://huggingface.co/{NAME}' in said
    assert (repr(chosen) in said) if chosen else ('cache' in said)


def test_clips_own_tokenizer_needs_no_folder():
    assert build_tokenizer('PE-Core-B-16', 32)(['a cat']).shape == (1, 32)
    assert build_tokenizer('ViT-B-16', 77)(['a cat']).shape == (1, 77)
    with pytest.raises(ValueError, match='comes with open_clip: take tokenizer_dir out'):
        build_tokenizer('ViT-B-16', 77, 'data/clip/tokenizer')

"""TextEncoder: what is kept and when it is forgotten, copies, synonyms, batches, progress."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from infoclip_mmseg.models import CLIPDualEncoder, FrozenTeacher, build_prompts
from infoclip_mmseg.models.text.encoder import encode_in_batches

NAMES = ['cat', 'a very long name of a red car', 'dog']
PROMPTS = build_prompts(NAMES)


@pytest.fixture
def build(toy_cfg):
    """Builder of encoders that count the prompts of each batch that they encode."""

    def builder(**changes) -> CLIPDualEncoder:
        torch.manual_seed(1)
        encoder = CLIPDualEncoder(toy_cfg()['backbone']['model_name'], **changes)
        encode, encoder.encoded = encoder.text_encoder.encode, []

        def record(tokens, *run):
            encoder.encoded.append(len(tokens))
            return encode(tokens, *run)

        encoder.text_encoder.encode = record
        return encoder.eval()

    return builder


@torch.no_grad()
def embed(encoder: CLIPDualEncoder, prompts=PROMPTS) -> torch.Tensor:
    return encoder.embed_prompts(prompts)


def test_the_last_two_vocabularies_are_kept_until_weights_change(build):
    encoder = build()
    first = embed(encoder)
    assert embed(encoder) is first and encoder.encoded == [3]
    other = embed(encoder, build_prompts(['tree', 'sky', 'sea']))
    assert not torch.allclose(first, other)
    assert embed(encoder) is first and encoder.encoded == [3, 3]
    embed(encoder, build_prompts(['cat', 'dog', 'cow']))
    assert embed(encoder) is not first and encoder.encoded == [3] * 4  # two vocabularies are kept
    with torch.no_grad():
        encoder.text_tower.positional_embedding.mul_(2)
    assert not torch.allclose(embed(encoder), first)


def test_training_never_uses_the_cache(build):
    encoder = build()
    embed(encoder)
    encoder.train()
    embedded = encoder.embed_prompts(PROMPTS)
    assert embedded.requires_grad
    assert encoder.embed_prompts(PROMPTS) is not embedded
    with torch.no_grad():
        encoder.embed_prompts(PROMPTS)
    assert encoder.encoded == [3] * 4
    encoder.eval()
    assert encoder.embed_prompts(PROMPTS).requires_grad  # gradients are on
    assert encoder.encoded == [3] * 5


def test_a_frozen_tower_serves_training_from_the_cache(build):
    encoder = build(finetune='frozen').train()
    first = encoder.embed_prompts(PROMPTS)
    assert encoder.embed_prompts(PROMPTS) is first and not first.requires_grad


def test_a_change_of_mode_forgets(build):
    encoder = build(finetune='frozen')
    for mode, encoded in ((False, 1), (False, 1), (True, 2), (True, 2), (False, 3)):
        encoder.train(mode)
        encoder.embed_prompts(PROMPTS)
        assert len(encoder.encoded) == encoded


def test_another_tokenizer_forgets(build):
    encoder = build()
    first, tokenizer = embed(encoder), encoder.tokenizer
    encoder.tokenizer = lambda texts: tokenizer(texts[::-1])
    torch.testing.assert_close(embed(encoder), first.flip(0))


def test_tokens_are_kept_while_the_tower_trains(build):
    encoder, calls = build().train(), []
    tokenizer = encoder.tokenizer
    encoder.tokenizer = lambda texts: calls.append(len(texts)) or tokenizer(texts)
    for _ in range(3):
        encoder.embed_prompts(PROMPTS)
    assert calls == [3]


def test_a_copy_reads_its_own_weights(toy_cfg):
    encoder = CLIPDualEncoder(toy_cfg()['backbone']['model_name']).eval()
    first, images = embed(encoder), torch.randn(1, 3, 32, 32)
    dense = encoder.encode_image(images).dense
    teacher = FrozenTeacher.from_student(encoder)
    for twin in (copy.deepcopy(encoder), teacher.encoder):
        assert twin.text_encoder is not encoder.text_encoder
        assert twin.text_encoder.clip is twin.clip is not encoder.clip
        assert twin.image_tower.visual is twin.clip.visual is not encoder.clip.visual
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(1.5)
    assert not torch.allclose(embed(encoder), first)
    assert torch.equal(embed(teacher.encoder), first)
    assert torch.equal(teacher.encoder.encode_image(images).dense, dense)
    assert encoder.state_dict().keys() == {f'clip.{key}' for key in encoder.clip.state_dict()}


def test_sharded_weights_keep_off_the_disk(build, tmp_path):
    encoder = build(text_cache_dir=str(tmp_path))
    weight = encoder.text_tower.token_embedding.weight
    weight.placements = ()  # as a DTensor's
    embed(encoder)
    assert not list(tmp_path.iterdir())
    del weight.placements
    encoder.text_encoder.forget()
    embed(encoder)
    assert len(list(tmp_path.iterdir())) == 1


def test_synonyms_average(build):
    encoder = build()
    parts = embed(encoder, build_prompts(['cat', 'kitten']))[:, 0]
    both = embed(encoder, build_prompts(['cat, kitten'], synonyms='average'))[0, 0]
    first = embed(encoder, build_prompts(['cat, kitten']))[0, 0]
    torch.testing.assert_close(both, F.normalize(parts.mean(0), dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first, parts[0], rtol=1e-4, atol=1e-5)


def test_batches_change_nothing(build):
    words = [*NAMES, 'cat', *(f'thing {i}' for i in range(9))]
    prompts = build_prompts(words)
    batched = build(text_batch_size=3)
    torch.testing.assert_close(
        embed(batched, prompts), embed(build(), prompts), rtol=1e-5, atol=1e-5
    )
    assert batched.encoded == [3, 3, 3, 3]  # 12 different prompts of 13
    batched.encoded.clear()
    batched.train().embed_prompts(prompts)
    assert batched.encoded == [12]  # with gradients in one go
    with pytest.raises(ValueError, match='text_batch_size must be at least 1, got 0'):
        build(text_batch_size=0)


def test_progress_is_reported(monkeypatch):
    lines, now, times = [], [0.0], iter((5.0, 20.0, 25.0, 40.0))
    module = 'infoclip_mmseg.models.text.encoder'
    monkeypatch.setattr(f'{module}.print_log', lambda text, **kwargs: lines.append(text))
    monkeypatch.setattr(f'{module}.time.monotonic', lambda: now[0])
    sizes = []

    def encode(tokens):
        now[0] = next(times, now[0])
        sizes.append(len(tokens))
        return tokens.float()

    tokens = torch.arange(10)[:, None]
    out = encode_in_batches(encode, tokens, [str(i) for i in range(10)], 3)
    assert torch.equal(out, tokens.float()) and sizes == [3, 3, 3, 1]
    assert [line.split(' prompts')[0] for line in lines] == ['text: 6 of 10', 'text: 10 of 10']
    assert lines[0].endswith('0 a second, eta 0:00:13')
    now[0], times = 0.0, iter(())  # what is quick says nothing
    encode_in_batches(encode, tokens, [str(i) for i in range(10)], 3)
    assert len(lines) == 2

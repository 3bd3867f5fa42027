"""The vocabulary of a segmentor, alone and with what follows it."""

from __future__ import annotations

import pytest
import torch

from infoclip_mmseg.models.segmentors.vocabulary import Vocabulary


def test_words_colours_and_the_ignored_value():
    vocabulary = Vocabulary(['a {}', 'the {}'])
    assert (vocabulary.meta, vocabulary.num_classes, vocabulary.ignore_index) == (None, 0, None)
    vocabulary.set(['cat', 'dog'], [[1, 2, 3], [4, 5, 6]], ignore_index=9)
    assert vocabulary.meta == dict(
        classes=('cat', 'dog'), palette=[[1, 2, 3], [4, 5, 6]], ignore_index=9
    )
    assert vocabulary.prompts.texts == ('a cat', 'the cat', 'a dog', 'the dog')
    vocabulary.set(['cat', 'dog', 'sea'], [[1, 2, 3], [4, 5, 6]])
    assert len(vocabulary.meta['palette']) == vocabulary.num_classes == 3
    assert 'ignore_index' not in vocabulary.meta


def test_bad_words_leave_the_present_ones():
    vocabulary = Vocabulary()
    vocabulary.set(['cat'])
    prompts, meta = vocabulary.prompts, vocabulary.meta
    with pytest.raises(ValueError, match='class 1 of the vocabulary has no name'):
        vocabulary.set(['cat', ' '])
    assert vocabulary.prompts is prompts and vocabulary.meta is meta


@pytest.mark.parametrize(('options', 'owner'), [({}, 'model'), (dict(owner='the x'), 'x')])
def test_no_words_is_a_clear_error(options, owner):
    with pytest.raises(RuntimeError, match=rf'the {owner} has no vocabulary yet: .*VocabularyHook'):
        _ = Vocabulary(**options).prompts


def test_bad_templates_are_refused_when_built():
    with pytest.raises(ValueError, match='one {} each'):
        Vocabulary(['a photo'])


def test_other_words_come_and_go_also_in_an_error():
    vocabulary = Vocabulary()
    vocabulary.set(['cat', 'dog'], ignore_index=9)
    before = vocabulary.prompts, vocabulary.meta
    with vocabulary.swapped(None):
        assert (vocabulary.prompts, vocabulary.meta) == before
    with pytest.raises(KeyError), vocabulary.swapped(['sea']):
        assert vocabulary.num_classes == 1 and vocabulary.ignore_index is None
        raise KeyError
    assert (vocabulary.prompts, vocabulary.meta) == before


def state(model):
    head = model.decode_head
    return head.num_classes, head.ignore_index, model.data_preprocessor.seg_pad_val


def test_head_and_preprocessor_follow(toy):
    model = toy(data_preprocessor=dict(seg_pad_val=254)).eval()
    assert model.decode_head.ignore_index == 255
    model.dataset_meta = dict(classes=('a', 'b'), prompt_names=('a', 'x', 'y'), ignore_index=7)
    assert state(model) == (3, 7, 7) and model.dataset_meta['classes'] == ('a', 'x', 'y')
    model.dataset_meta = dict(CLASSES=('a',))  # names no classes
    model.dataset_meta = None
    assert state(model) == (3, 7, 7)

    seen = []
    handle = model.decode_head.register_forward_pre_hook(lambda *_: seen.append(state(model)))
    model.segment(torch.rand(1, 3, 48, 48), ['one', 'two'], mode='whole')
    handle.remove()
    assert seen == [(2, 255, 254)] and state(model) == (3, 7, 7)
    model.set_vocabulary(['a', 'b'])
    assert state(model) == (2, 255, 254) and model.out_channels == 2


def test_segmentors_of_equal_words_are_independent(toy):
    first, second = toy(), toy()
    first.set_vocabulary(['a'])
    assert second.dataset_meta is None and second.out_channels != 1

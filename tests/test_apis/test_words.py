from __future__ import annotations

import pytest

from infoclip_mmseg.apis import words as module
from infoclip_mmseg.apis.words import load_classes, parse_words, plan_words


@pytest.fixture
def warned(monkeypatch):
    """Warnings of the module."""
    messages: list[str] = []
    monkeypatch.setattr(module, 'print_log', lambda message, **_: messages.append(message))
    return messages


def test_words_of_a_line():
    assert parse_words('cat; red car, automobile ;; \n dog;,;') == [
        'cat',
        'red car, automobile',
        'dog',
    ]


def test_classes_in_every_form(tmp_path):
    path = tmp_path / 'names.txt'
    path.write_bytes('\ufeffcat\n\n红色的汽车, car\n'.encode())
    assert load_classes(str(path)) == ['cat', '红色的汽车, car']
    assert len(load_classes('ade847')) == 847
    assert load_classes('cat; dog;') == ['cat', 'dog']
    assert load_classes(('cat', 'dog')) == ['cat', 'dog']


@pytest.mark.parametrize(
    ('classes', 'error', 'message'),
    [
        ('cat', FileNotFoundError, r"Words are passed as a list, \['cat', 'dog'\]"),
        ([], ValueError, 'the vocabulary is empty'),
        ('; ;', ValueError, 'the vocabulary is empty'),
        (['cat', ' , '], ValueError, 'class 1 of the vocabulary has no name'),
        (['cat', 3], TypeError, 'a vocabulary is a list of strings'),
        (None, TypeError, 'classes must be a list of words'),
        (['cat', 'd\udce9j'], ValueError, r"word 1, 'd\\udce9j', is no valid text"),
    ],
)
def test_bad_classes(inferencer, classes, error, message):
    with pytest.raises(error, match=message):
        plan_words(classes, None, inferencer.model)


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / 'names.txt'
    path.write_bytes('Bär\n'.encode('latin-1'))
    with pytest.raises(ValueError, match='names.txt.* is not UTF-8'):
        load_classes(str(path))


@pytest.mark.parametrize(
    ('background', 'error', 'message'),
    [
        (1.5, ValueError, 'a threshold is a probability'),
        (True, TypeError, 'background must be None, a list of words or a probability'),
        ([], ValueError, 'the vocabulary is empty'),
        (['wall', ''], ValueError, 'class 1 of the vocabulary has no name'),
    ],
)
def test_bad_background(inferencer, background, error, message):
    with pytest.raises(error, match=message):
        plan_words(['cat'], background, inferencer.model)


def test_background_comes_last(inferencer):
    model = inferencer.model
    plain = plan_words(['cat', 'dog'], None, model)
    assert plain.names == ('cat', 'dog')
    words = plan_words(['cat', 'dog'], ['wall', 'floor'], model)
    assert words.names == ('cat', 'dog', 'background')
    assert words.model_names == ('cat', 'dog', 'wall', 'floor')
    assert words.slots.tolist() == [0, 1, 2, 2] and words.palette[2] == [0, 0, 0]
    assert plan_words(['cat', 'dog'], 'wall; floor', model).slots.tolist() == [0, 1, 2, 2]
    threshold = plan_words(['cat', 'dog'], 0.5, model)
    assert threshold.threshold == 0.5 and threshold.names == words.names
    alone = plan_words(['cat'], None, model)
    assert alone.threshold == model.decode_head.threshold and alone.names[1:] == ('background',)


def test_equal_words_keep_their_places(inferencer, warned):
    names = ['cat', 'dog', ' CAT', 'cat, kitten', 'bird']
    words = plan_words(names, ['Dog', 'wall'], inferencer.model)
    assert words.names == (*names, 'background')
    assert words.model_names == ('cat', 'dog', 'bird', 'wall')
    assert words.slots.tolist() == [0, 1, 4, 5]
    assert words.owners.tolist() == [0, 1, 0, 0, 2]
    (message,) = warned
    assert message.startswith("' CAT', 'cat, kitten', 'Dog': the same to CLIP")


def test_long_prompts_are_named_once(inferencer, warned):
    fits = ' '.join(['word'] * 68)  # with the template and both ends 77 tokens
    long = ' '.join(['many'] * 300)
    plan_words([fits, 'cat'], None, inferencer.model)
    assert not warned
    plan_words([long, 'cat', 'so ' * 300], None, inferencer.model)
    (message,) = warned
    assert message.startswith('CLIP reads 77 tokens of a prompt')
    assert "'many many" in message and "'so so" in message and 'cat' not in message


def test_ten_thousand_words(inferencer, warned):
    words = plan_words([f'thing {i}' for i in range(10_000)], None, inferencer.model)
    assert len(words.model_names) == len(words.palette) == 10_000 and not warned
    with pytest.raises(ValueError, match='65537 names are more than the 65536'):
        plan_words([f'thing {i}' for i in range(65_537)], None, inferencer.model)


@pytest.mark.parametrize('synonyms', ['first', 'average', 'max'])
def test_synonyms_belong_to_their_class(inferencer, warned, monkeypatch, synonyms):
    """Also where each has its own embedding; a class is told from others by all that is read."""
    monkeypatch.setattr(inferencer.model.vocabulary, 'synonyms', synonyms)
    words = plan_words(
        ['car, automobile', 'tree', 'Car,  Automobile', 'car, bus'], None, inferencer.model
    )
    same = [0, 1, 0, 0] if synonyms == 'first' else [0, 1, 0, 2]
    assert words.owners.tolist() == same
    assert len(warned) == 1 and "'Car,  Automobile'" in warned[0]

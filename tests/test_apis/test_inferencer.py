from __future__ import annotations

import copy
import json
import threading

import numpy as np
import pytest
from mmseg.apis import inference_model
from PIL import Image

from infoclip_mmseg import OpenVocabInferencer
from infoclip_mmseg.apis import ImageError, loading

WORDS = ['red plain object', 'grass', 'water']
OTHERS = ['blue striped object', 'sand', 'snow']


def bgr(image):
    return np.ascontiguousarray(image[..., ::-1])


def accuracy(results, labels) -> float:
    return float(np.mean([(p.labels == t).mean() for p, t in zip(results, labels)]))


def test_scenes_of_the_world(inferencer, world):
    results = inferencer([bgr(i) for i in world['images']], world['classes'], batch_size=4)
    assert accuracy(results, world['labels']) > 0.7
    images = [Image.fromarray(i) for i in world['images']]
    assert accuracy(inferencer(images, world['classes']), world['labels']) > 0.7
    assert [p.name for p in results] == [f'array {i}' for i in range(6)]


def test_equal_to_mmseg(inferencer, world):
    """The same model through mmseg's own function."""
    model, image = inferencer.model, bgr(world['images'][0])
    (result,) = inferencer(image, world['classes'], return_scores=True)
    model.cfg, model.test_cfg['max_dense_classes'] = inferencer.cfg, 1024
    expected = inference_model(model, image)
    assert np.array_equal(result.labels, expected.pred_sem_seg.data[0].numpy())
    np.testing.assert_allclose(result.scores, expected.seg_logits.data.numpy(), atol=1e-6)


def test_what_a_result_holds(inferencer, world):
    (result,) = inferencer(bgr(world['images'][0]), world['classes'], return_scores=True)
    classes = len(world['classes'])
    assert result.labels.shape == world['images'][0].shape[:2] and result.labels.dtype == np.uint8
    assert result.names == tuple(world['classes']) and len(result.palette) == classes
    assert result.scores.shape == (classes, *result.labels.shape)
    assert np.array_equal(result.scores.argmax(0), result.labels)
    assert np.array_equal(result.scores.max(0), result.probability)
    for index in range(classes):
        where = result.labels == index
        assert result.areas[index] == where.sum()
        if where.any():
            mean = result.probability[where].mean()
            assert result.mean_scores[index] == pytest.approx(mean, abs=1e-6)
        else:
            assert np.isnan(result.mean_scores[index])
    assert result.shares.sum() == pytest.approx(1)
    found = result.found()
    assert [f['pixels'] for f in found] == sorted((a for a in result.areas if a), reverse=True)
    (plain,) = inferencer(bgr(world['images'][0]), world['classes'])
    assert plain.scores is None and plain.probability is None and plain.visualization is None


def test_words_change_from_call_to_call(inferencer, world, tmp_path):
    """As many words as before, the same words in another order: nothing of the last call stays."""
    images = [bgr(i) for i in world['images'][:2]]
    for words in (WORDS, OTHERS, WORDS[::-1], WORDS):
        results = inferencer(images, words, return_scores=True)
        fresh = OpenVocabInferencer(device='cpu')(images, words, return_scores=True)
        for result, expected in zip(results, fresh):
            assert result.names == tuple(words)
            assert np.array_equal(result.labels, expected.labels)
            assert np.array_equal(result.scores, expected.scores)
    first, second = (inferencer(images[0], w, return_scores=True)[0] for w in (WORDS, OTHERS))
    assert not np.allclose(first.scores, second.scores, atol=1e-3)
    names = tmp_path / 'names.txt'
    for words in (WORDS, OTHERS):  # a file whose content changes
        names.write_text('\n'.join(words))
        (result,) = inferencer(images[0], str(names))
        assert result.names == tuple(words)


def test_a_plan_is_kept_for_equal_words_only(inferencer):
    plan = inferencer.plan
    assert plan(WORDS) is plan(list(WORDS))
    assert 'background' not in plan(WORDS).names
    assert plan(WORDS, 1).threshold == 1
    for background in ([], True):  # equal to None and to 1 in a careless key
        with pytest.raises((TypeError, ValueError)):
            plan(WORDS)
            plan(WORDS, 1)
            plan(WORDS, background)
    words = list(WORDS)
    assert plan(words).names == tuple(WORDS)
    words[0] = 'sand'
    assert plan(words).names == ('sand', *WORDS[1:])
    with pytest.raises(TypeError, match='classes must be a list of words'):
        plan(1.5)
    with pytest.raises(ValueError, match='no classes: pass names'):
        plan(None)


def test_words_set_by_hand_do_not_stay(inferencer, world):
    image = bgr(world['images'][0])
    (expected,) = inferencer(image, WORDS)
    inferencer.model.set_vocabulary(OTHERS)
    (result,) = inferencer(image, WORDS)
    assert np.array_equal(result.labels, expected.labels)


def test_text_cache_on_disk(inferencer, world, tmp_path):
    image = bgr(world['images'][0])
    cached = OpenVocabInferencer(device='cpu', text_cache_dir=str(tmp_path))
    for words in (WORDS, OTHERS, WORDS):
        (result,) = cached(image, words, return_scores=True)
        (expected,) = inferencer(image, words, return_scores=True)
        np.testing.assert_allclose(result.scores, expected.scores, atol=1e-6)
    assert len(list(tmp_path.glob('*.safetensors'))) == 2


def test_equal_words_do_not_disturb(inferencer, world):
    image = bgr(world['images'][0])
    (expected,) = inferencer(image, WORDS, return_scores=True)
    (result,) = inferencer(image, [*WORDS, 'Grass'], return_scores=True)
    assert np.array_equal(result.labels, expected.labels) and result.areas[3] == 0
    assert np.array_equal(result.scores[3], result.scores[1])


def test_background(inferencer, world):
    image = bgr(world['images'][0])
    (every,) = inferencer(image, world['classes'], return_scores=True)
    assert every.background_index is None
    objects, grounds = world['classes'][6:], world['classes'][:6]
    (words,) = inferencer(image, objects, background=grounds)
    expected = np.where(every.labels < 6, len(objects), every.labels.astype(int) - 6)
    assert np.array_equal(words.labels, expected) and words.names[-1] == 'background'
    assert words.palette[-1] == [0, 0, 0]
    limit = float(np.median(every.probability))
    (below,) = inferencer(image, world['classes'], background=limit)
    assert np.array_equal(below.labels == below.background_index, every.probability <= limit)
    (alone,) = inferencer(image, world['classes'][:1], background=None)
    assert alone.names == (world['classes'][0], 'background')


@pytest.mark.parametrize('size', [(64, 400), (400, 64)])
def test_long_images_are_tiled(inferencer, world, size):
    """A strip of scenes is labelled like the scenes, which the model never sees squeezed."""
    axis = int(size[1] == 400)
    strip = np.concatenate(world['images'], axis=axis)
    truth = np.concatenate(world['labels'], axis=axis)
    (result,) = inferencer(bgr(strip), world['classes'], batch_size=3, return_scores=True)
    assert result.labels.shape == truth.shape
    assert np.array_equal(result.scores.argmax(0), result.labels)
    squeezed = OpenVocabInferencer(device='cpu', max_aspect=100)(bgr(strip), world['classes'])
    tiled, whole = (accuracy([p], [truth]) for p in (result, squeezed[0]))
    assert tiled > 0.65 and tiled > whole + 0.1


def test_large_images_are_labelled_at_their_size(inferencer, world, monkeypatch):
    image = world['images'][0].repeat(4, 0).repeat(4, 1)
    (expected,) = inferencer(bgr(image), world['classes'], return_scores=True)
    monkeypatch.setattr(loading, 'MAX_LABEL_PIXELS', 128 * 128)
    (result,) = inferencer(bgr(image), world['classes'], return_scores=True)
    assert result.labels.shape == expected.labels.shape
    assert result.scores.shape == expected.scores.shape
    assert (result.labels == expected.labels).mean() > 0.97
    assert np.array_equal(result.scores.argmax(0), result.labels)


def test_batches_of_images_of_different_sizes(inferencer, world, photo):
    images = [bgr(world['images'][0]), str(photo), bgr(world['images'][1][:40])]
    together = inferencer(images, WORDS, batch_size=3)
    for image, result in zip(images, together):
        (alone,) = inferencer(image, WORDS)
        assert np.array_equal(alone.labels, result.labels)
    assert together[1].labels.shape == (48, 64)


def test_batches_where_the_config_pads_too(inferencer, world):
    cfg = copy.deepcopy(inferencer.cfg)
    cfg.model.data_preprocessor.test_cfg.size_divisor = 48
    images = [bgr(world['images'][0]), bgr(world['images'][1][:40])]
    results = OpenVocabInferencer(cfg, device='cpu')(images, WORDS, batch_size=2)
    for result, expected in zip(results, inferencer(images, WORDS)):
        assert np.array_equal(result.labels, expected.labels)


def test_orientation_of_photos(inferencer, photo, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = tmp_path / 'turned.png'
    Image.open(photo).save(turned, exif=exif)
    (result,) = inferencer(turned, WORDS, out_dir=tmp_path / 'out')
    assert result.labels.shape == (64, 48)
    assert Image.open(tmp_path / 'out/pred/turned.png').size == (48, 64)


def test_files(inferencer, photo, tmp_path):
    words = ['red plain object', '蓝色的东西', '<b>&"']
    (result,) = inferencer(photo, words, background=['snow'], out_dir=tmp_path / 'out')
    labels = Image.open(tmp_path / 'out/pred/photo.png')
    assert labels.mode == 'P' and np.array_equal(np.array(labels), result.labels)
    colours = np.array(labels.convert('RGB'))
    assert np.array_equal(colours, np.array(result.palette)[result.labels])
    content = json.loads((tmp_path / 'out/pred/photo.json').read_text(encoding='utf-8'))
    assert content['image'] == str(photo) and content['background'] == 3
    assert sum(entry['pixels'] for entry in content['classes']) == 48 * 64
    assert {entry['name'] for entry in content['classes']} <= {*words, 'background'}
    assert Image.open(tmp_path / 'out/vis/photo.jpg').size[0] == 640
    assert result.visualization is None


def test_label_files_of_many_names(inferencer, photo, tmp_path):
    words = [f'thing {i}' for i in range(299)] + ['red plain object']
    (result,) = inferencer(photo, words, out_dir=tmp_path)
    assert result.labels.dtype == np.uint16
    labels = Image.open(tmp_path / 'pred/photo.png')
    assert labels.mode.startswith('I') and np.array_equal(np.array(labels), result.labels)


def test_errors_before_any_work(inferencer, photo, tmp_path):
    out = tmp_path / 'out'
    with pytest.raises(FileNotFoundError, match='no.jpg'):
        inferencer.stream([photo, tmp_path / 'no.jpg'], WORDS, out_dir=out)
    for options in (dict(batch_size=0), dict(opacity=2), dict(on_error='?'), dict(frame_step=0)):
        with pytest.raises(ValueError, match=f'{next(iter(options))} must be'):
            inferencer.stream(photo, WORDS, out_dir=out, **options)
    with pytest.raises(ValueError, match='class 0 of the vocabulary has no name'):
        inferencer.stream(photo, [''], out_dir=out)
    assert not out.exists()


@pytest.fixture
def mixed(photo, tmp_path):
    """A good file, an empty one, a good one."""
    (tmp_path / 'empty.jpg').write_bytes(b'')
    again = tmp_path / 'zebra.png'
    again.write_bytes(photo.read_bytes())
    return [photo, tmp_path / 'empty.jpg', again]


def test_a_bad_file_stops_and_what_was_done_stays(inferencer, mixed, tmp_path):
    with pytest.raises(ImageError, match='empty.jpg: the file is empty') as info:
        inferencer(mixed, WORDS, out_dir=tmp_path / 'out', batch_size=2)
    assert [p.stem for p in info.value.results] == ['photo']
    assert (tmp_path / 'out/pred/photo.json').exists()


def test_a_bad_file_is_skipped(inferencer, mixed):
    assert [p.stem for p in inferencer(mixed, WORDS, on_error='skip')] == ['photo', 'zebra']
    seen = []
    inferencer(mixed, WORDS, on_error=lambda name, error: seen.append((name, str(error))))
    assert [name for name, _ in seen] == [str(mixed[1])]


def test_an_error_of_writing_is_no_bad_image(inferencer, photo, tmp_path):
    (tmp_path / 'out').write_text('a file where the folder should be')
    with pytest.raises(OSError):
        inferencer([photo], WORDS, out_dir=tmp_path / 'out', on_error='skip')


def test_images_that_cannot_be_segmented(inferencer, monkeypatch):
    with pytest.raises(ImageError, match='4 x 40 pixels are less than one patch of 8 x 8'):
        inferencer(np.zeros((40, 4, 3), np.uint8), WORDS)
    monkeypatch.setattr('infoclip_mmseg.apis.prediction.MAX_SCORE_BYTES', 1000)
    with pytest.raises(ImageError, match='scores of 3 words at 40 x 40 pixels need'):
        inferencer(np.zeros((40, 40, 3), np.uint8), WORDS, return_scores=True)


def test_amp(inferencer, world):
    half = OpenVocabInferencer(device='cpu', amp=True)
    images = [bgr(i) for i in world['images']]
    results = half(images, world['classes'])
    assert accuracy(results, world['labels']) > 0.7
    plain = inferencer(images, world['classes'])
    assert any((a.mean_scores != b.mean_scores).any() for a, b in zip(results, plain))


def test_threads_with_different_words(inferencer, world):
    image = bgr(world['images'][0])
    expected = {len(w): inferencer(image, w)[0].labels for w in (WORDS, OTHERS[:2])}
    wrong = []

    def work(words):
        for _ in range(5):
            if not np.array_equal(inferencer(image, words)[0].labels, expected[len(words)]):
                wrong.append(words)

    threads = [threading.Thread(target=work, args=(w,)) for w in (WORDS, OTHERS[:2]) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_memory_does_not_hold_maps_of_all_words(inferencer, photo, monkeypatch):
    results, predict = [], inferencer.model.predict
    monkeypatch.setattr(
        inferencer.model, 'predict', lambda *a, **k: results.extend(predict(*a, **k)) or results
    )
    before = dict(inferencer.model.test_cfg)
    inferencer(photo, [f'thing {i}' for i in range(600)])
    assert 'seg_logits' not in results[-1]
    assert inferencer.model.test_cfg == before

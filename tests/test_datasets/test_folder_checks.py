import pytest
from mmengine.config import Config

from infoclip_mmseg.datasets.checks import check_dataloader_cfg


@pytest.fixture
def root(tmp_path):
    for folder in ('images/training', 'annotations/training', 'lists'):
        (tmp_path / 'ade' / folder).mkdir(parents=True)
    (tmp_path / 'ade/images/training/a.jpg').touch()
    (tmp_path / 'ade/lists/train.txt').touch()
    return tmp_path / 'ade'


def dataset(root, **kwargs):
    prefix = dict(img_path='images/training', seg_map_path='annotations/training')
    return {**dict(type='ADE20KDataset', data_root=str(root), data_prefix=prefix), **kwargs}


def cfg(train, key='train_dataloader'):
    return Config({key: dict(batch_size=4, dataset=train), 'val_dataloader': None})


def error_of(config, **kwargs):
    with pytest.raises(FileNotFoundError) as error:
        check_dataloader_cfg(config, **kwargs)
    return str(error.value)


def test_complete_data_passes(root):
    check_dataloader_cfg(cfg(dataset(root)))
    check_dataloader_cfg(cfg(dataset(root, ann_file='lists/train.txt', img_suffix='.jpg')))
    check_dataloader_cfg(Config({}))


def test_missing_root_names_folder_key_and_readme(root):
    text = error_of(cfg(dataset(root.parent / 'nope')))
    assert f"train_dataloader.dataset.data_root='{root.parent / 'nope'}': no such folder" in text
    assert 'data/README.md' in text and '--cfg-options' in text
    assert 'data_prefix' not in text


@pytest.mark.parametrize('key', ['img_path', 'seg_map_path'])
def test_missing_folder_below_the_root(root, key):
    prefix = {**dataset(root)['data_prefix'], key: 'other'}
    text = error_of(cfg(dataset(root, data_prefix=prefix)))
    assert f"train_dataloader.dataset.data_prefix.{key}='other': no folder {root / 'other'}" in text


def test_missing_list(root):
    text = error_of(cfg(dataset(root, ann_file='lists/val.txt')))
    assert f"dataset.ann_file='lists/val.txt': no file {root / 'lists/val.txt'}" in text


@pytest.mark.parametrize('names', [[], ['.a.jpg'], ['a.png']])
def test_empty_folder(root, names):
    (root / 'images/training/a.jpg').unlink()
    for name in names:
        (root / 'images/training' / name).touch()
    assert 'no image in' in error_of(cfg(dataset(root, img_suffix='.jpg')))


def test_images_in_subfolders_count(root):
    (root / 'images/training/a.jpg').unlink()
    (root / 'images/training/berlin').mkdir()
    (root / 'images/training/berlin/b.jpg').touch()
    check_dataloader_cfg(cfg(dataset(root, img_suffix='.jpg')))


def test_wrappers_are_looked_into(root):
    repeat = dict(type='RepeatDataset', times=4, dataset=dataset(root / 'x'))
    concat = dict(type='ConcatDataset', datasets=[dataset(root), repeat])
    text = error_of(cfg(concat))
    assert 'train_dataloader.dataset.datasets.1.dataset.data_root=' in text
    assert 'datasets.0' not in text


def test_all_loaders_are_named_in_one_error(root):
    config = Config(
        {key: dict(dataset=dataset(root / key)) for key in ('train_dataloader', 'test_dataloader')}
    )
    text = error_of(config)
    assert 'train_dataloader.dataset.data_root' in text
    assert 'test_dataloader.dataset.data_root' in text
    assert 'train_dataloader' not in error_of(config, keys=('test_dataloader',))


def test_no_root(root):
    prefix = dict(img_path=str(root / 'images/training'), seg_map_path='')
    check_dataloader_cfg(cfg(dict(type='BaseSegDataset', data_prefix=prefix)))
    text = error_of(cfg(dict(type='BaseSegDataset', data_prefix=dict(img_path='no/such'))))
    assert "data_prefix.img_path='no/such': no folder no/such" in text
    check_dataloader_cfg(cfg(dict(type='BaseSegDataset', data_root='gone', data_prefix=prefix)))


def test_remote_data_is_not_looked_at(root):
    check_dataloader_cfg(cfg(dataset('s3://bucket/ade')))
    check_dataloader_cfg(cfg(dataset('gone', backend_args=dict(backend='petrel'))))
    prefix = dict(img_path='s3://bucket/images')
    check_dataloader_cfg(cfg(dict(type='BaseSegDataset', data_prefix=prefix)))


def test_suffixes_in_another_case_are_named(root):
    (root / 'images/training/b.JPG').touch()
    text = error_of(cfg(dataset(root)))
    assert "img_suffix='.jpg': 1 files in" in text and 'would be left out' in text
    assert error_of(cfg(dataset(root, img_suffix='.jpg'))) == text
    own = dict(type='VocabularyDataset', vocabulary='ade150')
    for suffix in ({}, dict(img_suffix='.jpg'), dict(img_suffix=['.JPG', '.png'])):
        check_dataloader_cfg(cfg({**dataset(root), **own, **suffix}))
    (root / 'images/training/a.jpg').unlink()
    assert 'no image in' in error_of(cfg(dataset(root)))
    check_dataloader_cfg(cfg({**dataset(root), **own, 'img_suffix': '.jpg'}))


def test_a_byte_order_mark_is_named_where_it_does_harm(root):
    (root / 'lists/train.txt').write_text('\ufeffa\n', encoding='utf-8')
    config = dataset(root, ann_file='lists/train.txt')
    assert 'begins with a byte order mark' in error_of(cfg(config))
    check_dataloader_cfg(cfg({**config, 'type': 'VocabularyDataset', 'vocabulary': 'ade150'}))

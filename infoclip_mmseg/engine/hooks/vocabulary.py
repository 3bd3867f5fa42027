"""VocabularyHook: the vocabulary belongs to the data set being run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from mmengine.dist import all_reduce, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from infoclip_mmseg.datasets.label_maps import IGNORED_8, numberings_of
from infoclip_mmseg.datasets.vocabularies import (
    check_several_classes,
    load_vocabulary,
    read_seen_classes,
)
from infoclip_mmseg.engine.hooks.census import LabelCensus
from infoclip_mmseg.engine.launch import unwrap_segmentor
from infoclip_mmseg.utils.files import first_few

LOOPS = ('train', 'val', 'test')
COUNTED = 100
"""Training images of a process whose labels are counted."""


@HOOKS.register_module()
class VocabularyHook(Hook):
    """Give the model the class names of the data set before training, validation and test.

    Where the data set's metainfo names an `ignore_index`, the model gets that as well. After a
    validation or test in the middle of training the training vocabulary comes back. The visualizer
    gets the same names and colours, so that what is drawn is what was predicted; metrics are told
    how the data set's files number the classes, so that what they write can be read as those are.

    The log says after the first 100 training images of a process, and after each validation and
    test, which classes had no pixel and how many pixels no label.

    Args:
        vocabularies: Vocabulary files, or names of shipped lists, that replace the data set's own
            names, by loop: for example ``dict(val='data/names.txt', test='pc59')``; see
            :func:`~infoclip_mmseg.datasets.vocabularies.load_vocabulary`. The names must be in
            label order, one for each class. A data set whose metainfo has `prompt_names`, such as
            that of a benchmark, is asked for these.
    """

    priority = 'VERY_HIGH'

    def __init__(self, vocabularies: dict[str, str] | None = None) -> None:
        self.vocabularies = dict(vocabularies or {})
        unknown = self.vocabularies.keys() - set(LOOPS)
        if unknown:
            raise ValueError(f'vocabularies takes the keys {LOOPS}, got {sorted(unknown)}')
        self._training_meta: dict | None = None
        self._census: dict[str, LabelCensus] = {}

    def before_train(self, runner: Runner) -> None:
        """Set the training vocabulary, and check the guard words beside it."""
        self._training_meta = self._apply(runner, 'train')
        _read_guard_words(runner)

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
        mode: str = 'train',
    ) -> None:
        """Count the labels: of the first images of a training, of all in the other loops."""
        if mode != 'train':
            self._count(mode, outputs)
        elif 'train' in self._census and isinstance(data_batch, dict):
            self._count('train', data_batch.get('data_samples'))
            if self._census['train'].images >= COUNTED:
                self._report(runner, 'train')

    def before_val(self, runner: Runner) -> None:
        """Set the vocabulary of the validation set."""
        self._apply(runner, 'val')

    def after_val(self, runner: Runner) -> None:
        """Report the labels; return to the training vocabulary where a training is under way."""
        self._report(runner, 'val')
        self._return(runner)

    def _return(self, runner: Runner) -> None:
        if self._training_meta is not None:
            unwrap_segmentor(runner.model, 'set_vocabulary').dataset_meta = self._training_meta
            runner.visualizer.dataset_meta = self._training_meta

    def after_train(self, runner: Runner) -> None:
        """Report the labels of a short training; forget the training vocabulary."""
        self._report(runner, 'train')
        self._training_meta = None

    def before_test(self, runner: Runner) -> None:
        """Set the vocabulary of the test set."""
        self._apply(runner, 'test')

    def after_test(self, runner: Runner) -> None:
        """As after a validation."""
        self._report(runner, 'test')
        self._return(runner)

    def _count(self, loop: str, samples: Any) -> None:
        for sample in samples or ():
            labels = getattr(sample, 'gt_sem_seg', None)
            if labels is not None and loop in self._census:
                self._census[loop].update(labels.data)

    def _report(self, runner: Runner, loop: str) -> None:
        census = self._census.pop(loop, None)
        if census is None:
            return
        if loop != 'train':
            all_reduce(census.counts)
        if census.images:
            level, text = census.report()
            runner.logger.log(level, f'labels of {census.images} images for {loop}: {text}')

    def _apply(self, runner: Runner, loop: str) -> dict:
        dataset = getattr(runner, f'{loop}_dataloader').dataset
        check_same_classes(dataset)
        names, palette = class_names(dataset, self.vocabularies.get(loop))
        if loop == 'train' and getattr(dataset, 'metainfo', {}).get('fold_from') is not None:
            raise ValueError(
                f'{type(dataset).__name__} asks for {len(names)} names of which several are one '
                'class, which is for evaluation only; train on a data set with one name a class'
            )
        check_several_classes(names, type(dataset).__name__)
        model = unwrap_segmentor(runner.model, 'set_vocabulary')
        read_seen_classes(model)
        ignore_index = getattr(dataset, 'metainfo', {}).get('ignore_index')
        things = getattr(dataset, 'metainfo', {}).get('things')
        model.set_vocabulary(names, palette, ignore_index, things)
        runner.visualizer.dataset_meta = model.dataset_meta
        classes = getattr(dataset, 'metainfo', {}).get('classes') or names
        ignored = IGNORED_8 if ignore_index is None else ignore_index
        # A sampler gives some processes images again, so that all have as many.
        shown = len(range(get_rank(), len(dataset), get_world_size()))
        limit = COUNTED if loop == 'train' else shown
        self._census[loop] = LabelCensus(classes, ignored, limit)
        runner.logger.info(
            f'vocabulary for {loop}: {len(names)} names for {type(dataset).__name__}, '
            f'{names[0]!r} ... {names[-1]!r}'
        )
        evaluator = getattr(getattr(runner, f'{loop}_loop', None), 'evaluator', None)
        for metric in getattr(evaluator, 'metrics', ()):
            meta = metric.dataset_meta or {}  # what is written has the numbers of the files
            metric.dataset_meta = {**meta, 'file_numberings': numberings_of(dataset)}
        return model.dataset_meta


def _read_guard_words(runner: Runner) -> None:
    """Read the vocabulary of a model's guard words, less its training classes."""
    model = unwrap_segmentor(runner.model, 'set_vocabulary')
    distiller: Any = getattr(model, 'distiller', None)
    guard = getattr(distiller, 'guard', None)
    if guard is None:
        return
    encoder = getattr(distiller.teacher, 'encoder', None) or distiller.encoder
    if encoder is None:
        return
    if isinstance(guard.words, str):
        source, guard.words = guard.words, load_vocabulary(guard.words)
        same = set(guard.among(model.prompts, encoder.tokenizer))
        kept = [word for word in guard.words if word not in same]
        if not kept:
            raise ValueError(
                f'every guard word of {source!r} is a training class; name another vocabulary, or '
                'leave model.guard_words out'
            )
        guard.words = kept
        left_out = (
            f' ({first_few([repr(word) for word in sorted(same)])} are training classes)'
            if same
            else ''
        )
        runner.logger.info(f'guard words: {len(kept)} of {source!r}{left_out}')
    guard.prompts(model.prompts, encoder.tokenizer)


def class_names(dataset: Any, file: str | None) -> tuple[list[str], list | None]:
    """Names and palette of a data set, or the names of a file in place of its own.

    A data set whose metainfo has `prompt_names` asks for these, whatever the file; its classes may
    be fewer.
    """
    meta = getattr(dataset, 'metainfo', {})
    classes, palette = meta.get('prompt_names') or meta.get('classes'), meta.get('palette')
    if file is None or meta.get('prompt_names'):
        if not classes:
            raise ValueError(
                f'{type(dataset).__name__} has no class names: set metainfo=dict(classes=...) in '
                'its config, or VocabularyHook(vocabularies=...) to a file with one name a line'
            )
        return list(classes), palette
    names = load_vocabulary(file)
    if classes and len(names) != len(classes):
        raise ValueError(
            f'vocabulary file {file!r} has {len(names)} names, but {type(dataset).__name__} has '
            f'{len(classes)} classes; list one name for each label, in label order'
        )
    return names, palette


def check_same_classes(dataset: Any) -> None:
    """Raise a ValueError where data sets which are joined do not mean the same by a label.

    MMEngine's ConcatDataset compares them, but for `ignore_keys`, and takes the names of the first.
    Those without names are not compared.
    """
    named = [d for d in members(dataset) if getattr(d, 'metainfo', {}).get('classes')]
    for other in named[1:]:
        lists = [list(d.metainfo['classes']) for d in (named[0], other)]
        pairs = enumerate(zip_longest(*lists))
        differences = [f'{i}: {a!r} and {b!r}' for i, (a, b) in pairs if a != b]
        if differences:
            first, second = (
                f'{type(d).__name__} in {getattr(d, "data_root", None)} has {len(names)} '
                f'({first_few(names)})'
                for d, names in zip((named[0], other), lists)
            )
            raise ValueError(
                f'data sets with different classes are joined: {first}, {second}; they differ in '
                f'{first_few(differences)}. Labels of the second would be taken for names of the '
                'first. Give both one list in one order; '
                'VocabularyDataset(label_map={value in the file: index in the list}) renumbers'
            )


def members(dataset: Any) -> Iterator[Any]:
    """The innermost data sets of one that joins, repeats, balances or mixes others."""
    wrapped = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if all(hasattr(inner, 'metainfo') for inner in wrapped):
        for inner in wrapped:
            yield from members(inner)
    else:
        yield dataset

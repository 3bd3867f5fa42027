"""VocabularyHook: the vocabulary belongs to the data set being run."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from infoclip_mmseg.datasets.file_numbering import numberings_of
from infoclip_mmseg.datasets.vocabularies import check_several_classes, load_vocabulary
from infoclip_mmseg.engine.launch import unwrap_segmentor

LOOPS = ('train', 'val', 'test')


@HOOKS.register_module()
class VocabularyHook(Hook):
    """Give the model the class names of the data set before training, validation and test.

    Where the data set's metainfo names an `ignore_index`, the model gets that as well. After a
    validation or test in the middle of training the training vocabulary comes back. The visualizer
    gets the same names and colours, so that what is drawn is what was predicted; metrics are told
    how the data set's files number the classes, so that what they write can be read as those are.

    Args:
        vocabularies: Vocabulary files, or names of shipped lists, that replace the data set's own
            names, by loop: for example ``dict(val='data/names.txt', test='pc59')``; see
            :func:`~infoclip_mmseg.datasets.vocabularies.load_vocabulary`. The names must be in
            label order.

    Raises:
        ValueError: A key is not a loop; a file has another number of names than the data set has
            classes; a data set without a file has no class names; there is only one.
    """

    priority = 'VERY_HIGH'

    def __init__(self, vocabularies: dict[str, str] | None = None) -> None:
        self.vocabularies = dict(vocabularies or {})
        unknown = self.vocabularies.keys() - set(LOOPS)
        if unknown:
            raise ValueError(f'vocabularies takes the keys {LOOPS}, got {sorted(unknown)}')
        self._training_meta: dict | None = None

    def before_train(self, runner: Runner) -> None:
        """Set the training vocabulary."""
        self._training_meta = self._apply(runner, 'train')

    def before_val(self, runner: Runner) -> None:
        """Set the vocabulary of the validation set."""
        self._apply(runner, 'val')

    def after_val(self, runner: Runner) -> None:
        """Return to the training vocabulary where a training is under way."""
        if self._training_meta is not None:
            unwrap_segmentor(runner.model, 'set_vocabulary').dataset_meta = self._training_meta
            runner.visualizer.dataset_meta = self._training_meta

    def after_train(self, runner: Runner) -> None:
        """Forget the training vocabulary."""
        self._training_meta = None

    def before_test(self, runner: Runner) -> None:
        """Set the vocabulary of the test set."""
        self._apply(runner, 'test')

    def after_test(self, runner: Runner) -> None:
        """As after a validation."""
        self.after_val(runner)

    def _apply(self, runner: Runner, loop: str) -> dict:
        dataset = getattr(runner, f'{loop}_dataloader').dataset
        names, palette = class_names(dataset, self.vocabularies.get(loop))
        if loop == 'train' and getattr(dataset, 'metainfo', {}).get('fold_from') is not None:
            raise ValueError(
                f'{type(dataset).__name__} asks for {len(names)} names of which several are one '
                'class, which is for evaluation only; train on a data set with one name a class'
            )
        check_several_classes(names, type(dataset).__name__)
        model = unwrap_segmentor(runner.model, 'set_vocabulary')
        ignore_index = getattr(dataset, 'metainfo', {}).get('ignore_index')
        model.set_vocabulary(names, palette, ignore_index)
        runner.visualizer.dataset_meta = model.dataset_meta
        runner.logger.info(
            f'vocabulary for {loop}: {len(names)} names for {type(dataset).__name__}, '
            f'{names[0]!r} ... {names[-1]!r}'
        )
        evaluator = getattr(getattr(runner, f'{loop}_loop'), 'evaluator', None)
        for metric in getattr(evaluator, 'metrics', ()):
            meta = metric.dataset_meta or {}  # what is written has the numbers of the files
            metric.dataset_meta = {**meta, 'file_numberings': numberings_of(dataset)}
        return model.dataset_meta


def class_names(dataset: Any, file: str | None) -> tuple[list[str], list | None]:
    """Names and palette of a data set, or the names of a file in place of its own.

    A data set whose metainfo has `prompt_names` asks for these; its classes are fewer.
    """
    meta = getattr(dataset, 'metainfo', {})
    classes, palette = meta.get('prompt_names') or meta.get('classes'), meta.get('palette')
    if file is None:
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

"""ForgettingHook: what the tuned CLIP still knows of other words, before, during and after."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from infoclip_mmseg.datasets.vocabularies import load_vocabulary
from infoclip_mmseg.engine.launch import unwrap_segmentor
from infoclip_mmseg.evaluation.forgetting import ForgettingCheck, describe, draw_forgetting
from infoclip_mmseg.models.distillation.distiller import FrozenTeacher
from infoclip_mmseg.models.distillation.guard_words import GuardWords
from infoclip_mmseg.models.text.prompts import PromptSet, build_prompts, split_synonyms
from infoclip_mmseg.utils.files import write_text
from infoclip_mmseg.utils.tensors import resize

FILE, PICTURE = 'forgetting.json', 'forgetting.png'
ADVICE = (
    'Hold it with a loss (loss_distill=[dict(type="CauchySchwarzLoss")] and FrozenTeacherHook), '
    'lower the rate of the backbone, train shorter, or go part of the way back '
    '(tools/interpolate.py).'
)


@HOOKS.register_module()
class ForgettingHook(Hook):
    """Compare the tuned CLIP with the untouched one on words that are not trained.

    Labels are not needed: agreement and drift are between the two CLIPs, on whole images at the
    model's input size. Where there are labels, the mIoU of both CLIPs alone (by cosines, without
    the head) is given apart for trained and other classes. In training the check is made before
    the first iteration, after every ``interval`` and at the end; in a test on its first images.
    Each is a line of the log, a row of ``forgetting.json`` and a point of ``forgetting.png`` in the
    working folder, and scalars for the visualizer.

    The untouched CLIP is the model's teacher, or is built from ``model.backbone.pretrained``.

    Args:
        words: List of names, name of a vocabulary, or its file; training classes are left out.
        num_images: Images of a check, of all processes together.
        interval: Iterations between checks; None: a fifth of the training.
        dataloader: Config of the images in training; None takes ``val_dataloader``, or without one
            ``test_dataloader``.
        seen: Names of trained classes, for a test whose config tells of none (``seen_classes`` of
            the data set's metainfo).
        warn_below: Agreement in percent below which a warning says what to do.
    """

    priority = 'LOW'

    def __init__(
        self,
        words: Sequence[str] | str,
        num_images: int = 100,
        interval: int | None = None,
        dataloader: dict | None = None,
        seen: Sequence[str] | None = None,
        warn_below: float = 80.0,
    ) -> None:
        if num_images < 1 or (interval is not None and interval < 1):
            raise ValueError(
                f'num_images and interval must be 1 or more, got {num_images} and {interval}'
            )
        self.words, self.num_images, self.interval = words, num_images, interval
        self.dataloader, self.seen, self.warn_below = dataloader, seen, warn_below
        self._untouched: Any = None
        self._loader: Any = None
        self._check: ForgettingCheck | None = None
        self._rows: list[dict[str, float]] = []

    # Training -------------------------------------------------------------------------------

    def before_train(self, runner: Runner) -> None:
        """Find the untouched CLIP and the images, and make the first check."""
        self._prepare(runner)
        config = self.dataloader or runner.cfg.get('val_dataloader')
        config = config or runner.cfg.get('test_dataloader')
        if config is None:
            raise ValueError(
                'ForgettingHook has no images: give it dataloader=dict(...), or the config a '
                'val_dataloader'
            )
        self._loader = runner.build_dataloader(config)
        self._interval = self.interval or max(1, runner.max_iters // 5)
        path = Path(runner.work_dir, FILE)
        if runner._resume and path.is_file():
            rows = json.loads(path.read_text(encoding='utf-8'))
            self._rows = [row for row in rows if row['iteration'] < runner.iter]
        self._run(runner)

    def after_train_iter(self, runner: Runner, batch_idx: int, *_: Any, **__: Any) -> None:
        """Check after every interval, and at the end."""
        done = runner.iter + 1
        if done % self._interval == 0 or done == runner.max_iters:
            self._run(runner, done)

    def after_train(self, runner: Runner) -> None:
        """Let the untouched CLIP go."""
        self._untouched = self._loader = None

    def _run(self, runner: Runner, iteration: int | None = None) -> None:
        model = unwrap_segmentor(runner.model, 'backbone')
        training = model.training
        model.eval()
        try:
            # A loader draws from the generator of the training.
            with torch.random.fork_rng(devices=[]):
                trained = model.dataset_meta['classes']
                check = self._new_check(model, self._loader.dataset, trained)
                share = -(-self.num_images // get_world_size())
                for batch in islice(self._loader, -(-share // (self._loader.batch_size or 1))):
                    self._update(model, check, batch)
        finally:
            model.train(training)
        self._report(runner, check, runner.iter if iteration is None else iteration)

    # Test -----------------------------------------------------------------------------------

    def before_test(self, runner: Runner) -> None:
        """Find the untouched CLIP."""
        self._prepare(runner)
        model = unwrap_segmentor(runner.model, 'backbone')
        self._check = self._new_check(model, runner.test_dataloader.dataset)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Check on the first images."""
        check = self._check
        if check is not None and check.images * get_world_size() < self.num_images:
            self._update(unwrap_segmentor(runner.model, 'backbone'), check, data_batch)

    def after_test(self, runner: Runner) -> None:
        """Report, and let the untouched CLIP go."""
        if self._check is not None:
            self._report(runner, self._check, runner.iter)
        self._untouched = self._check = None

    # Both -----------------------------------------------------------------------------------

    def _prepare(self, runner: Runner) -> None:
        model = unwrap_segmentor(runner.model, 'backbone')
        encoder: Any = getattr(model, 'backbone', None)
        if not hasattr(encoder, 'embed_prompts'):
            raise ValueError(
                f'ForgettingHook compares CLIPs, but the backbone is a {type(encoder).__name__}; '
                'it needs a CLIPDualEncoder'
            )
        if isinstance(self.words, str):
            self.words = load_vocabulary(self.words)
        if getattr(model, 'teacher', None) is not None:
            self._untouched = model.teacher.encoder
        elif encoder.pretrained is None and runner._load_from is not None:
            raise ValueError(
                'ForgettingHook needs the untouched CLIP: set model.backbone.pretrained to the '
                'weights that training started from'
            )
        else:
            self._untouched = FrozenTeacher.from_student(encoder).encoder
        self._untouched.to(next(encoder.parameters()).device)

    def _new_check(
        self, model: Any, dataset: Any, trained: Sequence[str] | None = None
    ) -> ForgettingCheck:
        """A check on the words less the trained classes, and on the classes of a data set."""
        meta = getattr(dataset, 'metainfo', {})
        vocabulary, classes = model.vocabulary, meta.get('prompt_names') or meta.get('classes')
        trained = self.seen or trained or meta.get('seen_classes')
        return ForgettingCheck(
            model.backbone,
            self._untouched,
            self._word_prompts(model, trained),
            build_prompts(classes, vocabulary.templates) if classes else None,
            _among(classes or (), trained),
        )

    def _word_prompts(self, model: Any, trained: Sequence[str] | None) -> PromptSet:
        guard = GuardWords(self.words, model.vocabulary.templates)
        if trained:
            classes = build_prompts(trained, model.vocabulary.templates)
            same = guard.among(classes, model.backbone.tokenizer)
            kept = [word for word in guard.words if word not in same]
            if not kept:
                raise ValueError('every word of ForgettingHook is a trained class; name others')
            guard.words = kept
        return build_prompts(guard.words, model.vocabulary.templates)

    def _update(self, model: Any, check: ForgettingCheck, batch: Any) -> None:
        data = model.data_preprocessor(batch, False)
        size = model.input_size
        samples = [s for s in data['data_samples'] or () if 'gt_sem_seg' in s]
        labels = [sample.gt_sem_seg.data[0] for sample in samples]
        ignored = model.decode_head.ignore_index
        images = data['inputs']
        check.update(images if size is None else resize(images, size), labels, ignored)

    def _report(self, runner: Runner, check: ForgettingCheck, iteration: int) -> None:
        device = next(runner.model.parameters()).device
        if get_world_size() > 1:
            for name in ('sums', 'areas'):
                tensor = getattr(check, name).to(device)
                all_reduce(tensor)
                setattr(check, name, tensor.cpu())
        figures = check.figures()
        text = describe(figures, check.words.num_classes, check.images)
        runner.logger.info(f'forgetting, iteration {iteration}: {text}')
        if figures['agreement'] < self.warn_below:
            runner.logger.warning(
                f'CLIP forgets: {figures["agreement"]:.1f} % agreement with the untouched CLIP is '
                f'below {self.warn_below:g} %. {ADVICE}'
            )
        self._rows.append(dict(iteration=iteration, **figures))
        if is_main_process():
            scalars = {f'forgetting/{name}': value for name, value in figures.items()}
            runner.visualizer.add_scalars(scalars, step=iteration)
            write_text(Path(runner.work_dir, FILE), json.dumps(self._rows, indent=1) + '\n')
            if len(self._rows) > 1:
                draw_forgetting(self._rows, Path(runner.work_dir, PICTURE))


def _among(classes: Sequence[str], trained: Iterable[str] | None) -> np.ndarray:
    """Which classes (T,) were trained: equal as a whole or in their first synonym."""
    known = {name for text in trained or () for name in (text, *split_synonyms(text)[:1])}
    return np.array([not known.isdisjoint((c, *split_synonyms(c)[:1])) for c in classes], bool)

"""The parts of a model that can be measured, each through the calls that training and tests use.

A subject builds what it needs and returns a task: a function that does the work once, in sections
of the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from infoclip_mmseg.experiments.timing.building import Built
from infoclip_mmseg.experiments.timing.flops import count_flops
from infoclip_mmseg.experiments.timing.inputs import random_text
from infoclip_mmseg.experiments.timing.loss_subjects import entropy, losses, lpam
from infoclip_mmseg.experiments.timing.measure import Clock, Task, forward_backward
from infoclip_mmseg.experiments.timing.operators import profile_operators
from infoclip_mmseg.experiments.timing.settings import Setting, SkippedError

ENCODED_NAMES = 2000
"""Inference against more names takes random embeddings instead of encoding all of them first."""
MATRIX_SIDE = {'cpu': 3072, 'cuda': 8192}

Subject = Callable[[Setting, Clock], Task]


def train(setting: Setting, clock: Clock) -> Task:
    """A training step as the config has it."""
    built = Built(setting)
    return _training(built, built.taught_model() if built.distils else built.model(), clock)


def train_plain(setting: Setting, clock: Clock) -> Task:
    """A training step without teacher, LPAM and the losses that need them."""
    built = Built(setting)
    if not built.distils:
        raise SkippedError('nothing is distilled: it is the same as with the teacher')
    return _training(built, built.model(distill=False), clock)


def inference(setting: Setting, clock: Clock) -> Task:
    """A test image as in tools/test.py, with cached text embeddings."""
    built = Built(setting, working_size=True)
    model = built.model().eval()
    batch = built.photos()
    if setting.num_classes > ENCODED_NAMES:
        prompts = len(model.vocabulary.templates)
        text = random_text(setting.num_classes, prompts, model.backbone.embed_dim)
        text = text.to(setting.device)
        model.backbone.embed_prompts = lambda prompts: text

    def call() -> None:
        with torch.no_grad(), built.precision(), clock('image'):
            model.test_step(batch)

    return Task(call, setting.batch_size)


def image(setting: Setting, clock: Clock) -> Task:
    """The image tower on one view, without gradients."""
    built = Built(setting)
    model = built.model().eval()
    views = built.views(model)

    def call() -> None:
        with torch.no_grad(), built.precision(), clock('view'):
            model.extract_feat(views)

    return Task(call, setting.batch_size)


def head(setting: Setting, clock: Clock) -> Task:
    """The decode head on one view, without gradients."""
    built = Built(setting)
    model = built.model().eval()
    with torch.no_grad(), built.precision():
        features = model.extract_feat(built.views(model))
        text = model.backbone.embed_prompts(model.prompts)

    def call() -> None:
        with torch.no_grad(), built.precision(), clock('view'):
            model.decode_head(features, text)

    return Task(call, setting.batch_size)


def text(setting: Setting, clock: Clock) -> Task:
    """Text embeddings of the vocabulary as an evaluation computes them, once."""
    built = Built(setting)
    model = built.model().eval()
    texts = list(model.prompts.texts)

    def call() -> None:
        model.train()  # a change of mode forgets the embeddings
        model.eval()
        with clock('tokens'):
            model.backbone.tokenizer(texts)
        with torch.no_grad(), built.precision(), clock('embeddings'):
            model.backbone.embed_prompts(model.prompts)

    return Task(call, info=dict(prompts=len(texts)))


def text_train(setting: Setting, clock: Clock) -> Task:
    """Text embeddings with gradients, as every training step computes them."""
    built = Built(setting)
    model = built.model().train()
    weights = [p for p in model.backbone.parameters() if p.requires_grad]

    def call() -> None:
        with built.precision():
            forward_backward(
                clock, 'embeddings', lambda: model.backbone.embed_prompts(model.prompts), weights
            )

    return Task(call, info=dict(prompts=len(model.prompts.texts)))


def teacher(setting: Setting, clock: Clock) -> Task:
    """The frozen teacher, whose text embeddings are cached."""
    built = Built(setting)
    model = built.taught_model()
    views = built.views(model)

    def call() -> None:
        with built.precision(), clock('views'):
            model.teacher.encode(views, model.prompts)

    return Task(call, setting.batch_size)


def matrix(setting: Setting, clock: Clock) -> Task:
    """A product of large square matrices: the rate that the device reaches."""
    side = MATRIX_SIDE[torch.device(setting.device).type]
    dtype = torch.bfloat16 if setting.dtype == 'bf16' else torch.float32
    a, b = (torch.randn(side, side, device=setting.device, dtype=dtype) for _ in range(2))

    def call() -> None:
        with clock('product'):
            torch.mm(a, b)

    return Task(call, info=dict(flops=2 * side**3))


def memory(setting: Setting, clock: Clock) -> Task:
    """A training step whose optimizer already has its state, for its peak memory."""
    built = Built(setting)
    model = built.taught_model() if built.distils else built.model()
    return _training(built, model, clock, with_state=True)


def profile_train(setting: Setting, clock: Clock) -> Task:
    """Shares of operators in a training step."""
    return _profiled(train, setting, clock)


def profile_inference(setting: Setting, clock: Clock) -> Task:
    """Shares of operators in the inference of an image."""
    return _profiled(inference, setting, clock)


SUBJECTS: dict[str, Subject] = {
    subject.__name__: subject
    for subject in (
        *(train, train_plain, inference, image, head, text, text_train, teacher, lpam, losses),
        *(entropy, profile_train, profile_inference, matrix, memory),
    )
}


def _training(built: Built, model: Any, clock: Clock, with_state: bool = False) -> Task:
    """A task of training steps, with gradients, clip and optimizer."""
    model.train()
    wrapper = built.optimizer(model)
    batch = built.crops(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    if with_state:
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        wrapper.step()
        wrapper.zero_grad()

    def call() -> None:
        with clock('step'):
            with clock('forward'), wrapper.optim_context(model):
                data = model.data_preprocessor(batch, True)
                loss, _ = model.parse_losses(model(**data, mode='loss'))
            with clock('backward'):
                wrapper.backward(loss)
            with clock('optimizer'):
                wrapper.step()
                wrapper.zero_grad()

    count = dict(parameters=_count(model.parameters()), trained=_count(trained))
    return Task(call, built.setting.batch_size, count)


def _profiled(subject: Subject, setting: Setting, clock: Clock) -> Task:
    task = subject(setting, Clock(setting.device))
    info: dict[str, Any] = {}

    def call() -> None:
        with clock('call'):
            info['operators'] = profile_operators(task.call, clock.device.type)
        info['flops'] = info.get('flops') or count_flops(task.call)

    return Task(call, task.images, info)


def _count(parameters: Iterable[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)

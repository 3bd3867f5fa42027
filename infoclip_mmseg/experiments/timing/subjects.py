"""The parts of a model that can be measured, each through the calls that training and tests use.

A subject builds what it needs and returns a task: a function that does the work once, in sections
of the clock. LPAM, losses and entropies get random input of real size.

Legend: B images, N positions, T classes, C channels, H W grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from infoclip_mmseg.losses import Branch, gram_matrix, mutual_information_transfer, renyi_entropy

from .building import Built, view_size
from .data_subjects import evaluation, prepare
from .inputs import random_labels, random_text
from .measure import Clock, Task, count_flops, forward_backward, profile_operators
from .settings import SkippedError

ENCODED_NAMES = 2000
"""Inference against more names takes random embeddings instead of encoding all of them first."""
MATRIX_SIDE = {'cpu': 3072, 'cuda': 8192}
ENTROPY_SAMPLES = 2304
"""Positions of four 384 views."""
ENTROPY_ORDERS = {'order 2': 2.0, 'eigenvalues': 2.001}
"""The second needs eigenvalues and gives almost the value of the first."""

Subject = Callable[[Built, Clock], Task]


def train(built: Built, clock: Clock) -> Task:
    """A training step as the config has it."""
    return _training(built, built.taught_model() if built.distils else built.model(), clock)


def train_plain(built: Built, clock: Clock) -> Task:
    """A training step without teacher, LPAM and the losses that need them."""
    if not built.distils:
        raise SkippedError('nothing is distilled: it is the same as with the teacher')
    return _training(built, built.model(distill=False), clock)


def memory(built: Built, clock: Clock) -> Task:
    """A training step whose optimizer already has its state, for its peak memory."""
    model = built.taught_model() if built.distils else built.model()
    return _training(built, model, clock, with_state=True)


def inference(built: Built, clock: Clock) -> Task:
    """A test image as in tools/test.py, with cached text embeddings."""
    setting = built.setting
    # FlopCounterMode does not take views, made without gradients, of weights that have some.
    model = built.model(working_size=True).eval().requires_grad_(False)
    batch = built.photos()
    if setting.num_classes > ENCODED_NAMES:
        prompts = len(model.prompts.texts) // setting.num_classes
        text = random_text(setting.num_classes, prompts, model.backbone.embed_dim)
        text = text.to(setting.device)
        model.backbone.embed_prompts = lambda prompts: text
    return built.predicting(clock, 'image', lambda: model.test_step(batch))


def image(built: Built, clock: Clock) -> Task:
    """The image tower on one view, without gradients."""
    model = built.model().eval()
    views = built.views(model)
    return built.predicting(clock, 'view', lambda: model.extract_feat(views))


def head(built: Built, clock: Clock) -> Task:
    """The decode head on one view, without gradients."""
    model = built.model().eval()
    with torch.no_grad(), built.precision():
        features = model.extract_feat(built.views(model))
        text = model.backbone.embed_prompts(model.prompts)
    return built.predicting(clock, 'view', lambda: model.decode_head(features, text))


def teacher(built: Built, clock: Clock) -> Task:
    """The frozen teacher, whose text embeddings are cached."""
    model = built.taught_model()
    views = built.views(model)
    encode = partial(model.teacher.encode, views, model.prompts)
    return built.predicting(clock, 'views', encode)


def text(built: Built, clock: Clock) -> Task:
    """Text embeddings of the vocabulary as an evaluation computes them, once."""
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


def text_train(built: Built, clock: Clock) -> Task:
    """Text embeddings with gradients, as every training step computes them."""
    model = built.model().train()
    weights = [p for p in model.backbone.parameters() if p.requires_grad]
    embed = partial(model.backbone.embed_prompts, model.prompts)

    def call() -> None:
        with built.precision():
            forward_backward(clock, 'embeddings', embed, weights)

    return Task(call, info=dict(prompts=len(model.prompts.texts)))


def lpam(built: Built, clock: Clock) -> Task:
    """The relation maps of teacher and student."""
    model = built.model()
    if not model.with_neck:
        raise SkippedError('the config has no neck')
    branches = [_embeddings(built, model) for _ in range(2)]
    inputs = [*sum(branches, ()), *model.neck.parameters()]

    def relate() -> Tensor:
        return torch.stack([model.neck(dense.flatten(2).mT, words) for dense, words in branches])

    def call() -> None:
        with built.precision():
            forward_backward(clock, 'relation maps', relate, inputs)

    return Task(call, built.setting.batch_size)


def losses(built: Built, clock: Clock) -> Task:
    """Each loss of the config: that of the task, and those on given relation maps or embeddings."""
    setting, model = built.setting, built.model().train()
    size = view_size(model)
    height, width = (4 * side // step for side, step in zip(size, model.backbone.patch_size))
    shape = (setting.batch_size, setting.num_classes, height, width)
    logits = torch.randn(shape, device=setting.device, requires_grad=True)
    labels = random_labels(setting.batch_size, size, setting.num_classes).to(setting.device)
    sides, inputs = _sides(built, model)

    def task() -> Tensor:
        return sum(model.decode_head.loss_by_feat(logits, labels).values())

    def call() -> None:
        with built.precision():
            forward_backward(clock, 'task', task, [logits])
            for loss in model.distillation_losses:
                forward_backward(clock, loss.loss_name, partial(_distil, loss, sides), inputs)

    return Task(call, setting.batch_size)


def entropy(built: Built, clock: Clock) -> Task:
    """Order 2 against eigenvalues: the transfer loss over positions, and the entropy it is made of.

    Sections are the loss with its gradient, its value alone, and the entropy of a Gram matrix.
    """
    shape = (1, ENTROPY_SAMPLES, built.setting.num_classes)
    first, second = (torch.randn(shape, device=clock.device, requires_grad=True) for _ in range(2))
    gram = gram_matrix(first.detach())

    def information(alpha: float) -> Tensor:
        return mutual_information_transfer(first, second, alpha, samples='token')

    def call() -> None:
        for name, alpha in ENTROPY_ORDERS.items():
            forward_backward(clock, name, partial(information, alpha), [first, second])
            with torch.no_grad():
                with clock(f'{name}, value'):
                    information(alpha)
                with clock(f'{name}, entropy'):
                    renyi_entropy(gram, alpha)

    return Task(call, info=dict(samples=ENTROPY_SAMPLES))


def matrix(built: Built, clock: Clock) -> Task:
    """A product of large square matrices: the rate that the device reaches."""
    side = MATRIX_SIDE[torch.device(clock.device).type]
    dtype = torch.bfloat16 if built.setting.dtype == 'bf16' else torch.float32
    a, b = (torch.randn(side, side, device=clock.device, dtype=dtype) for _ in range(2))

    def call() -> None:
        with clock('product'):
            torch.mm(a, b)

    return Task(call, info=dict(flops=2 * side**3))


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


def _profiled(subject: Subject, built: Built, clock: Clock) -> Task:
    """Shares of operators and floating-point operations of another subject's call."""
    task = subject(built, Clock(clock.device))
    info: dict[str, Any] = {}

    def call() -> None:
        with clock('call'):
            info['operators'] = profile_operators(task.call, clock.device)
        info['flops'] = info.get('flops') or count_flops(task.call)

    return Task(call, task.images, info)


def _count(parameters: Iterable[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _embeddings(built: Built, model: Any) -> tuple[Tensor, Tensor]:
    """Random dense (B, C, H, W) and text embeddings (T, C), which take gradients."""
    setting, channels = built.setting, model.backbone.embed_dim
    rows, columns = (s // p for s, p in zip(view_size(model), model.backbone.patch_size))
    dense = torch.randn(setting.batch_size, channels, rows, columns, device=setting.device)
    words = random_text(setting.num_classes, 1, channels)[:, 0].to(setting.device)
    return dense.requires_grad_(), words.requires_grad_()


def _sides(built: Built, model: Any) -> tuple[list[tuple], list[Tensor]]:
    """Arguments of the branches of teacher and student, and what the losses' gradients are of.

    With a neck the relation maps are given.
    """
    sides: list[tuple] = []
    inputs: list[Tensor] = []
    for _ in range(2):
        dense, words = _embeddings(built, model)
        if not model.with_neck:
            sides.append((dense, words))
            continue
        with torch.no_grad():
            relation = model.neck(dense.flatten(2).mT, words)
        inputs.append(relation.requires_grad_())
        sides.append((dense, words, lambda *_, relation=relation: relation))
    return sides, [*inputs, dense, words]


def _distil(loss: Any, sides: list[tuple]) -> Tensor:
    return loss.distill(*(Branch(*side) for side in sides))


SUBJECTS: dict[str, Subject] = {
    **{
        subject.__name__: subject
        for subject in (
            *(train, train_plain, memory, inference, image, head, text, text_train, teacher),
            *(lpam, losses, entropy, matrix, evaluation, prepare),
        )
    },
    'profile_train': partial(_profiled, train),
    'profile_inference': partial(_profiled, inference),
}

"""The parts of a model that can be measured, each through the calls that training and tests use.

A subject builds what it needs and gives a function that does the work once, in sections of the
clock. LPAM, losses and entropies get random input of real size.

Legend: B images, N positions, T classes, C channels, H W grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from mmengine.optim import build_optim_wrapper
from torch import Tensor

from infoclip_mmseg.losses import Branch, gram_matrix, mutual_information_transfer, renyi_entropy

from .bench import Bench, Call, SkippedError, random_labels, random_text
from .data_subjects import evaluation, loading, prepare
from .measure import count_flops, profile_operators

ENCODED_NAMES = 2000
"""Inference against more names takes random embeddings instead of encoding all of them first."""
MATRIX_SIDE = {'cpu': 3072, 'cuda': 8192}
ENTROPY_SAMPLES = 2304
"""Positions of four 384 views."""
ENTROPY_ORDERS = {'order 2': 2.0, 'eigenvalues': 2.001}
"""The second needs eigenvalues and gives almost the value of the first."""


def training(bench: Bench, distill: bool = True, with_state: bool = False) -> Call:
    """Training steps, with gradients, clip and optimizer.

    ``distill=False`` leaves out teacher, LPAM and the losses that need them; ``with_state`` gives
    the optimizer its state before the first step, for peak memory.
    """
    if not (distill or bench.distils):
        raise SkippedError('nothing is distilled: it is the same as with the teacher')
    model = bench.taught_model() if distill and bench.distils else bench.model(distill)
    config = bench.cfg.get('optim_wrapper')
    if config is None:
        raise SkippedError('the config has no optim_wrapper: it is not for training')
    if bench.setting.dtype == 'bf16':
        config.type = 'BFloat16OptimWrapper'
    model.train()
    wrapper, batch, clock = build_optim_wrapper(model, config), bench.crops(model), bench.clock
    bench.images = bench.setting.batch_size
    everything, trained = model.parameters(), [p for p in model.parameters() if p.requires_grad]
    sizes = [sum(map(torch.numel, parameters)) for parameters in (everything, trained)]
    bench.info.update(parameters=sizes[0], trained=sizes[1])
    if with_state:
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        wrapper.step()
        wrapper.zero_grad()

    def call() -> None:
        """A step: forward, backward, optimizer."""
        with clock('step'):
            with clock('forward'), wrapper.optim_context(model):
                data = model.data_preprocessor(batch, True)
                loss, _ = model.parse_losses(model(**data, mode='loss'))
            with clock('backward'):
                wrapper.backward(loss)
            with clock('optimizer'):
                wrapper.step()
                wrapper.zero_grad()

    return call


def inference(bench: Bench) -> Call:
    """A test image as in tools/test.py, with cached text embeddings."""
    classes = bench.setting.num_classes
    # FlopCounterMode does not take views, made without gradients, of weights that have some.
    model = bench.model(working_size=True).eval().requires_grad_(False)
    batch = bench.photos()
    if classes > ENCODED_NAMES:
        prompts = len(model.prompts.texts) // classes
        embeddings = random_text(classes, prompts, model.backbone.embed_dim)
        embeddings = embeddings.to(bench.setting.device)
        model.backbone.embed_prompts = lambda prompts: embeddings
    return bench.predicting('image', lambda: model.test_step(batch))


def image(bench: Bench) -> Call:
    """The image tower on one view, without gradients."""
    model = bench.model().eval()
    views = bench.views(model)
    return bench.predicting('view', lambda: model.extract_feat(views))


def head(bench: Bench) -> Call:
    """The decode head on one view, without gradients."""
    model = bench.model().eval()
    with torch.no_grad(), bench.precision():
        features = model.extract_feat(bench.views(model))
        embeddings = model.backbone.embed_prompts(model.prompts)
    return bench.predicting('view', lambda: model.decode_head(features, embeddings))


def teacher(bench: Bench) -> Call:
    """The frozen teacher, whose text embeddings are cached."""
    model = bench.taught_model()
    encode = partial(model.teacher.encode, bench.views(model), model.prompts)
    return bench.predicting('views', encode)


def text(bench: Bench) -> Call:
    """Text embeddings of the vocabulary as an evaluation computes them, once."""
    model = bench.model().eval()
    texts = list(model.prompts.texts)
    bench.info['prompts'] = len(texts)

    def call() -> None:
        """Forget the embeddings, then compute them."""
        model.train()  # a change of mode forgets the embeddings
        model.eval()
        with bench.clock('tokens'):
            model.backbone.tokenizer(texts)
        with torch.no_grad(), bench.precision(), bench.clock('embeddings'):
            model.backbone.embed_prompts(model.prompts)

    return call


def text_train(bench: Bench) -> Call:
    """Text embeddings with gradients, as every training step computes them."""
    model = bench.model().train()
    weights = [p for p in model.backbone.parameters() if p.requires_grad]
    embed = partial(model.backbone.embed_prompts, model.prompts)
    bench.info['prompts'] = len(model.prompts.texts)
    return bench.differentiating({'embeddings': (embed, weights)})


def lpam(bench: Bench) -> Call:
    """The relation maps of teacher and student."""
    model, bench.images = bench.model(), bench.setting.batch_size
    if not model.with_neck:
        raise SkippedError('the config has no neck')
    sides = [_embeddings(bench, model) for _ in range(2)]
    inputs = [*sum(sides, ()), *model.neck.parameters()]

    def relate() -> Tensor:
        return torch.stack([model.neck(dense.flatten(2).mT, words) for dense, words in sides])

    return bench.differentiating({'relation maps': (relate, inputs)})


def losses(bench: Bench) -> Call:
    """Each loss of the config: that of the task, and those on given relation maps or embeddings."""
    setting, model = bench.setting, bench.model().train()
    bench.images = setting.batch_size
    height, width = (4 * side for side in _grid(model))
    shape = (setting.batch_size, setting.num_classes, height, width)
    logits = torch.randn(shape, device=setting.device, requires_grad=True)
    labels = random_labels(setting.batch_size, model.input_size, setting.num_classes)
    labels = labels.to(setting.device)
    sides = [_embeddings(bench, model) for _ in range(2)]
    relations: list[Any] = [None, None]
    if model.with_neck:
        with torch.no_grad():
            relations = [model.neck(dense.flatten(2).mT, words) for dense, words in sides]
    inputs = [*sides[1], *(x.requires_grad_() for x in relations if x is not None)]

    def task() -> Tensor:
        return sum(model.decode_head.loss_by_feat(logits, labels).values())

    def distil(loss: Any) -> Tensor:
        given = (None if x is None else lambda *_, x=x: x for x in relations)
        return loss.distill(*(Branch(*side, relate) for side, relate in zip(sides, given)))

    between = {x.loss_name: (partial(distil, x), inputs) for x in model.distillation_losses}
    return bench.differentiating({'task': (task, [logits]), **between})


def entropy(bench: Bench) -> Call:
    """Order 2 against eigenvalues: the transfer loss over positions, and the entropy it is made of.

    Sections are the loss with its gradient, its value alone, and the entropy of a Gram matrix.
    """
    clock, shape = bench.clock, (1, ENTROPY_SAMPLES, bench.setting.num_classes)
    first, second = (torch.randn(shape, device=clock.device, requires_grad=True) for _ in range(2))
    gram = gram_matrix(first.detach())
    bench.info['samples'] = ENTROPY_SAMPLES

    def call() -> None:
        """Loss with gradient, value and entropy at each order."""
        for name, alpha in ENTROPY_ORDERS.items():
            loss = partial(mutual_information_transfer, first, second, alpha, samples='token')
            clock.forward_backward(name, loss, [first, second])
            with torch.no_grad():
                with clock(f'{name}, value'):
                    loss()
                with clock(f'{name}, entropy'):
                    renyi_entropy(gram, alpha)

    return call


def matrix(bench: Bench) -> Call:
    """A product of large square matrices: the rate that the device reaches."""
    device = torch.device(bench.setting.device)
    side = MATRIX_SIDE[device.type]
    dtype = torch.bfloat16 if bench.setting.dtype == 'bf16' else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    bench.info['flops'] = 2 * side**3

    def call() -> None:
        with bench.clock('product'):
            torch.mm(a, b)

    return call


def profiled(subject: Callable[[Bench], Call], bench: Bench) -> Call:
    """Shares of operators and floating-point operations of another subject's call."""
    inner = Bench(bench.setting)
    work, info = subject(inner), bench.info
    bench.images = inner.images

    def call() -> None:
        with bench.clock('call'):
            info['operators'] = profile_operators(work, bench.setting.device)
        info['flops'] = info.get('flops') or count_flops(work)

    return call


def _grid(model: Any) -> list[int]:
    """Rows and columns of a view's patches."""
    return [side // step for side, step in zip(model.input_size, model.backbone.patch_size)]


def _embeddings(bench: Bench, model: Any) -> tuple[Tensor, Tensor]:
    """Random dense (B, C, H, W) and text embeddings (T, C), which take gradients."""
    setting, channels = bench.setting, model.backbone.embed_dim
    dense = torch.randn(setting.batch_size, channels, *_grid(model), device=setting.device)
    words = random_text(setting.num_classes, 1, channels)[:, 0].to(setting.device)
    return dense.requires_grad_(), words.requires_grad_()


class Subject(NamedTuple):
    """How a part is made, its title, and the section that stands for it in pictures and rates.

    `calls` holds the fields of the setting that are fixed: how often it is called.
    """

    make: Callable[[Bench], Call]
    title: str
    section: str
    calls: Mapping[str, Any] = MappingProxyType({})


ONCE = dict(warmup=0, repeats=1)
STEP, IMAGE = 'training step', 'inference of an image'
SUBJECTS = {
    'train': Subject(training, STEP, 'step'),
    'train_plain': Subject(partial(training, distill=False), f'{STEP} without teacher', 'step'),
    'inference': Subject(inference, f'{IMAGE}, text cached', 'image'),
    'image': Subject(image, 'image tower', 'view'),
    'head': Subject(head, 'decode head', 'view'),
    'text': Subject(text, 'text, in evaluation', 'embeddings'),
    'text_train': Subject(text_train, 'text, in training', 'embeddings'),
    'teacher': Subject(teacher, 'teacher, text cached', 'views'),
    'lpam': Subject(lpam, 'LPAM, both branches', 'relation maps'),
    'losses': Subject(losses, 'losses', 'task'),
    'entropy': Subject(entropy, 'mutual information, 2304 samples', 'order 2'),
    'matrix': Subject(matrix, 'product of matrices', 'product'),
    'profile_train': Subject(partial(profiled, training), STEP, 'call', dict(repeats=1)),
    'profile_inference': Subject(partial(profiled, inference), IMAGE, 'call', dict(repeats=1)),
    'memory': Subject(partial(training, with_state=True), STEP, 'step', ONCE),
    'evaluation': Subject(
        evaluation, 'evaluation outside of the model, by image', 'pipeline', ONCE
    ),
    'loading': Subject(loading, 'training images from files, by image', 'loader', ONCE),
    'prepare': Subject(prepare, 'conversion of data sets, by image', 'ade847 512 x 683', ONCE),
}

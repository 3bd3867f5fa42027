import math

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from torch import nn

import infoclip_mmseg.engine.optim  # noqa: F401  (registers the constructor)
from infoclip_mmseg.engine.optim import GroupedClip, gradient_norm, group_of


class Model(BaseModel):
    """One weight vector for each group, with the gradient that `grads` names."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(2, 1)
        self.backbone.bias.requires_grad_(False)
        self.decode_head = nn.Sequential(nn.Linear(2, 1, bias=False), nn.LayerNorm(2))
        self.neck = nn.Linear(2, 1, bias=False)
        self.decode_head_extra = nn.Linear(2, 1, bias=False)

    def forward(self, inputs=None, data_samples=None, mode='tensor'):
        raise NotImplementedError


@pytest.fixture
def hub():
    return MessageHub.get_current_instance()


def scalar(hub, name):
    return hub.get_scalar(f'train/{name}').current()


def build(model, clip_grad=None, paramwise=None, **wrapper):
    cfg = ConfigDict(
        type='OptimWrapper',
        constructor='GroupedOptimWrapperConstructor',
        optimizer=dict(type='SGD', lr=1.0, weight_decay=0.0),
        paramwise_cfg=paramwise,
        **wrapper,
    )
    if clip_grad is not None:
        cfg.clip_grad = clip_grad
    return build_optim_wrapper(model, cfg)


def three_four_loss(model):
    """Gradients: backbone (3, 4), head (6, 8), neck (0, 12), other (0, 0.5)."""
    parts = [
        (model.backbone.weight, (3.0, 4.0)),
        (model.decode_head[0].weight, (6.0, 8.0)),
        (model.neck.weight, (0.0, 12.0)),
        (model.decode_head_extra.weight, (0.0, 0.5)),
    ]
    return sum((weight * torch.tensor(grad)).sum() for weight, grad in parts)


def step(model, wrapper):
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    wrapper.update_params(three_four_loss(model))
    return {name: before[name] - p.detach() for name, p in model.named_parameters()}


TOTAL = math.sqrt(25 + 100 + 144 + 0.25)


def check_norms(hub):
    assert scalar(hub, 'grad_norm_clip') == pytest.approx(5)
    assert scalar(hub, 'grad_norm_head') == pytest.approx(10)
    assert scalar(hub, 'grad_norm_lpam') == pytest.approx(12)
    assert scalar(hub, 'grad_norm_other') == pytest.approx(0.5)
    assert scalar(hub, 'grad_norm') == pytest.approx(TOTAL)


def test_group_of_takes_whole_names_and_the_longest_prefix():
    groups = {'clip': 'backbone', 'text': 'backbone.text', 'head': 'decode_head'}
    assert group_of('backbone.visual.weight', groups) == 'clip'
    assert group_of('backbone.text.weight', groups) == 'text'
    assert group_of('decode_head_extra.weight', groups) == 'other'


@pytest.mark.parametrize('old', [False, True])
@pytest.mark.parametrize('norm_type', [1.0, 2.0, math.inf])
def test_gradient_norm_is_that_of_one_vector(monkeypatch, norm_type, old):
    if old:  # as before torch 2.6
        monkeypatch.delattr(nn.utils, 'get_total_norm', raising=False)
    parts = [torch.randn(3, 4), torch.randn(5)]
    flat = torch.cat([part.flatten() for part in parts])
    expected = torch.linalg.vector_norm(flat, norm_type)
    torch.testing.assert_close(gradient_norm(parts, norm_type), expected)


def test_scope_all_is_one_norm_over_everything(hub):
    model = Model()
    moved = step(model, build(model, dict(max_norm=1.0, norm_type=2)))
    check_norms(hub)
    for name, grad in [('backbone.weight', (3.0, 4.0)), ('neck.weight', (0.0, 12.0))]:
        torch.testing.assert_close(moved[name][0], torch.tensor(grad) / TOTAL, rtol=1e-5, atol=1e-6)


def test_scope_all_equals_torch_clip():
    model, other = Model(), Model()
    other.load_state_dict(model.state_dict())
    three_four_loss(other).backward()
    torch.nn.utils.clip_grad_norm_(other.parameters(), 0.01)
    moved = step(model, build(model, dict(max_norm=0.01, scope='all')))
    for name, param in other.named_parameters():
        grad = torch.zeros_like(param) if param.grad is None else param.grad
        torch.testing.assert_close(moved[name], grad, rtol=1e-4, atol=1e-6)


def test_a_scope_of_lists_clips_the_groups_of_each_by_one_norm(hub):
    model = Model()
    moved = step(model, build(model, dict(max_norm=1.0, scope=[['clip', 'head'], ['lpam']])))
    check_norms(hub)
    shared = math.sqrt(25 + 100)
    for name, grad in [
        ('backbone.weight', (3.0 / shared, 4.0 / shared)),
        ('decode_head.0.weight', (6.0 / shared, 8.0 / shared)),
        ('neck.weight', (0.0, 1.0)),
        ('decode_head_extra.weight', (0.0, 0.5)),  # not named: by its own norm, which is small
    ]:
        torch.testing.assert_close(moved[name][0], torch.tensor(grad), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ('scope', 'message'),
    [
        (['clip', 'head'], 'must be a list of lists'),
        ([['clip', 'head'], ['head']], 'names a group twice'),
    ],
)
def test_bad_lists_of_scopes(scope, message):
    with pytest.raises(ValueError, match=message):
        build(Model(), dict(max_norm=1.0, scope=scope))


def test_scope_group_clips_each_group_by_its_own_norm(hub):
    model = Model()
    moved = step(model, build(model, dict(max_norm=2.0, scope='group')))
    check_norms(hub)
    expected = {
        'backbone.weight': (1.2, 1.6),
        'decode_head.0.weight': (1.2, 1.6),
        'neck.weight': (0.0, 2.0),
        'decode_head_extra.weight': (0.0, 0.5),
    }
    for name, value in expected.items():
        torch.testing.assert_close(moved[name][0], torch.tensor(value), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('clip_grad', [None, dict(max_norm=100.0), dict(max_norm=math.inf)])
def test_without_a_reason_to_clip_nothing_changes_but_norms_are_logged(hub, clip_grad):
    model = Model()
    moved = step(model, build(model, clip_grad))
    check_norms(hub)
    torch.testing.assert_close(moved['neck.weight'][0], torch.tensor([0.0, 12.0]))


def test_groups_can_be_named_in_the_config(hub):
    model = Model()
    paramwise = dict(groups=dict(everything_else='decode_head_extra', towers='backbone'))
    step(model, build(model, dict(max_norm=1.0), paramwise))
    assert scalar(hub, 'grad_norm_everything_else') == pytest.approx(0.5)
    assert scalar(hub, 'grad_norm_towers') == pytest.approx(5)
    assert scalar(hub, 'grad_norm_other') == pytest.approx(math.sqrt(244))


def test_a_distributed_wrapper_is_unwrapped(hub):
    from mmengine.model import MMDistributedDataParallel

    model = Model()
    wrapped = MMDistributedDataParallel.__new__(MMDistributedDataParallel)
    nn.Module.__init__(wrapped)
    wrapped.module = model
    step(model, build(wrapped, dict(max_norm=2.0, scope='group')))
    check_norms(hub)


def test_accumulated_gradients_are_clipped_once_at_the_step(hub):
    model = Model()
    wrapper = build(model, dict(max_norm=2.0, scope='group'), accumulative_counts=2)
    first = step(model, wrapper)
    assert all(bool((delta == 0).all()) for delta in first.values())
    moved = step(model, wrapper)
    check_norms(hub)
    torch.testing.assert_close(
        moved['backbone.weight'][0], torch.tensor([1.2, 1.6]), rtol=1e-5, atol=1e-6
    )


def amp_wrapper(monkeypatch, model, **kwargs):
    """An AmpOptimWrapper on the CPU, which MMEngine refuses without an accelerator."""
    target = 'mmengine.optim.optimizer.amp_optimizer_wrapper.is_cuda_available'
    monkeypatch.setattr(target, lambda: True)
    cfg = ConfigDict(
        type='AmpOptimWrapper',
        constructor='GroupedOptimWrapperConstructor',
        optimizer=dict(type='SGD', lr=1.0),
        clip_grad=dict(max_norm=2.0, scope='group'),
        **kwargs,
    )
    return build_optim_wrapper(model, cfg)


@pytest.mark.filterwarnings('ignore')
def test_amp_bf16(monkeypatch, hub):
    model = Model()
    wrapper = amp_wrapper(monkeypatch, model, dtype='bfloat16')
    with torch.autocast('cpu', torch.bfloat16):
        loss = model.backbone(torch.tensor([[3.0, 4.0]])).sum()
        loss = loss + model.neck(torch.tensor([[0.0, 12.0]])).sum()
    before = model.neck.weight.detach().clone()
    wrapper.update_params(loss)
    assert scalar(hub, 'grad_norm_clip') == pytest.approx(5)
    assert scalar(hub, 'grad_norm_lpam') == pytest.approx(12)
    moved = (before - model.neck.weight.detach())[0]
    torch.testing.assert_close(moved, torch.tensor([0.0, 2.0]), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not hasattr(torch.amp, 'GradScaler'), reason='no scaler for the CPU')
@pytest.mark.filterwarnings('ignore')
def test_norms_are_taken_after_unscaling(monkeypatch, hub):
    model = Model()
    wrapper = amp_wrapper(monkeypatch, model)
    wrapper.loss_scaler = torch.amp.GradScaler('cpu', init_scale=1024.0)
    moved = step(model, wrapper)
    check_norms(hub)
    torch.testing.assert_close(
        moved['backbone.weight'][0], torch.tensor([1.2, 1.6]), rtol=1e-5, atol=1e-6
    )


RECIPE = dict(
    norm_decay_mult=0.0,
    custom_keys={'backbone': dict(lr_mult=0.01)},
)


def build_adamw(model, paramwise):
    cfg = dict(
        constructor='GroupedOptimWrapperConstructor',
        optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4),
        paramwise_cfg=paramwise,
    )
    return build_optim_wrapper(model, ConfigDict(cfg))


@pytest.mark.parametrize('paramwise', [None, RECIPE])
def test_the_optimizer_holds_exactly_the_trainable_set(paramwise):
    model = Model()
    wrapper = build_adamw(model, paramwise)
    held = [id(p) for group in wrapper.optimizer.param_groups for p in group['params']]
    expected = [id(p) for p in model.parameters() if p.requires_grad]
    assert sorted(held) == sorted(expected)
    assert all(group['params'] for group in wrapper.optimizer.param_groups)


def options_of(model, wrapper, param):
    groups = wrapper.optimizer.param_groups
    (group,) = [g for g in groups if any(p is param for p in g['params'])]
    return group['lr'], group['weight_decay']


def test_recipe_gives_three_parameter_groups():
    model = Model()
    wrapper = build_adamw(model, RECIPE)
    assert len(wrapper.optimizer.param_groups) == 3
    assert options_of(model, wrapper, model.backbone.weight) == (pytest.approx(2e-6), 1e-4)
    assert options_of(model, wrapper, model.neck.weight) == (2e-4, 1e-4)
    assert options_of(model, wrapper, model.decode_head[1].bias) == (2e-4, 0)


def test_norm_decay_reaches_norms_under_a_custom_key():
    model = Model()
    model.backbone = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    wrapper = build_adamw(model, RECIPE)
    assert options_of(model, wrapper, model.backbone[1].weight) == (pytest.approx(2e-6), 0)
    assert options_of(model, wrapper, model.backbone[0].weight) == (pytest.approx(2e-6), 1e-4)
    keys = dict(norm_decay_mult=0.0, custom_keys={'backbone': dict(decay_mult=0.5)})
    wrapper = build_adamw(model, keys)
    assert options_of(model, wrapper, model.backbone[1].weight) == (2e-4, 5e-5)


def test_bad_configs_are_refused():
    with pytest.raises(ValueError, match="scope must be one of .*'all', 'group'.* got 'layer'"):
        build(Model(), dict(max_norm=1.0, scope='layer'))
    with pytest.raises(ValueError, match='not a clip by norm'):
        build(Model(), dict(type='value', clip_value=1.0))
    with pytest.raises(ValueError, match='nothing to train'):
        build(Model().requires_grad_(False), dict(max_norm=1.0))


def test_clip_runs_without_a_registry_or_groups(hub):
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    total = GroupedClip({}, scope='group')([weight], max_norm=1.0)
    assert float(total) == pytest.approx(5)
    torch.testing.assert_close(weight.grad, torch.tensor([0.6, 0.8]), rtol=1e-5, atol=1e-6)

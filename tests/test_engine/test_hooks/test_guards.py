import math
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.model import BaseModel
from mmengine.runner import Runner, get_priority
from torch import nn
from torch.utils.data import Dataset

from infoclip_mmseg.engine.hooks.guards import NonFiniteLossHook


def run_hook(outputs, interval=1, iteration=7, data_batch=None):
    hook = NonFiniteLossHook(interval)
    hook.after_train_iter(SimpleNamespace(iter=iteration), iteration, data_batch, outputs)


@pytest.mark.parametrize(
    'outputs',
    [{'loss': torch.tensor(1.0), 'loss_ib': 0.5, 'decode.acc_seg': math.nan}, {}, None],
)
def test_finite_losses_and_other_entries_pass(outputs):
    run_hook(outputs)  # raises nothing, as it does with one loss more:
    with pytest.raises(FloatingPointError):
        run_hook({**(outputs or {}), 'loss_mi': math.nan})


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_the_message_names_iteration_terms_and_samples(value):
    batch = {'data_samples': [SimpleNamespace(img_path='a.jpg'), SimpleNamespace()]}
    losses = {'decode.loss_seg': torch.tensor(0.2), 'loss_ib': torch.tensor(value), 'loss': value}
    with pytest.raises(FloatingPointError) as error:
        run_hook(losses, data_batch=batch)
    text = str(error.value)
    assert 'iteration 8' in text
    assert f'loss_ib={value}' in text and 'decode.loss_seg=' not in text
    assert 'a.jpg' in text and 'learning rate' in text and 'bf16' in text


def test_interval():
    run_hook({'loss': math.nan}, interval=10, iteration=7)
    with pytest.raises(FloatingPointError):
        run_hook({'loss': math.nan}, interval=10, iteration=9)
    with pytest.raises(ValueError, match='interval'):
        NonFiniteLossHook(0)


def test_priority_is_before_ema_and_checkpoints():
    ours = get_priority(NonFiniteLossHook.priority)
    assert ours < get_priority(EMAHook.priority)
    assert ours < get_priority(CheckpointHook.priority)


class Numbers(Dataset):
    """Eight ones, the value `broken` at index 4."""

    def __init__(self, broken):
        self.values = torch.ones(8)
        self.values[4] = broken

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return self.values[index]


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, inputs, mode='loss'):
        return {'loss_seg': (self.weight * inputs).mean()}


def run(tmp_path, broken, interval):
    runner = Runner(
        model=Model(),
        work_dir=str(tmp_path),
        train_dataloader=dict(
            dataset=Numbers(broken),
            batch_size=1,
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=8),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=False)),
        custom_hooks=[dict(type='NonFiniteLossHook', interval=interval)],
        default_scope='mmseg',
        experiment_name=tmp_path.name,
        log_level='ERROR',
    )
    runner.train()


@pytest.mark.parametrize(
    ('interval', 'message'), [(1, 'loss in iteration 5: loss=nan'), (100, 'checkpoint not written')]
)
def test_no_broken_checkpoint_is_written(tmp_path, interval, message):
    with pytest.raises(FloatingPointError, match=message):
        run(tmp_path, math.nan, interval)
    saved = sorted(path.name for path in tmp_path.glob('*.pth'))
    assert saved == [f'iter_{index}.pth' for index in range(1, 5)]
    for name in saved:
        state = torch.load(tmp_path / name, map_location='cpu', weights_only=False)['state_dict']
        assert bool(torch.isfinite(state['weight']).all())


def test_a_finite_loss_with_a_broken_gradient_is_not_saved(tmp_path):
    """3e38 is finite in float32, but the step with it overflows the weight."""

    class Overflow(Model):
        def forward(self, inputs, mode='loss'):
            factor = 3e38 if float(inputs) > 1 else 1.0
            return {
                'loss_seg': (self.weight - self.weight.detach()).mean() * factor * inputs.mean()
            }

    model = Overflow()
    hook = NonFiniteLossHook()
    hook.before_save_checkpoint(SimpleNamespace(model=model, iter=3), {})
    loss = model(torch.tensor([4.0]))['loss_seg']
    assert bool(torch.isfinite(loss))
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    with pytest.raises(FloatingPointError, match='1 trained tensors .* weight .iteration 4'):
        hook.before_save_checkpoint(SimpleNamespace(model=model, iter=3), {})

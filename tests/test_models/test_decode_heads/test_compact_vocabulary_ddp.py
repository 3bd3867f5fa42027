"""Ranks that select different classes equal one process with the joint batch.

As a script it is one rank: ``test_compact_vocabulary_ddp.py RANK RANKS INIT_FILE OUT``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

CLASSES, DECODED = 12, 4


class Step(torch.nn.Module):
    """Task loss of a toy-sized head, and what it selected."""

    def __init__(self) -> None:
        from toys import TOY_MODEL

        from infoclip_mmseg.models import CATSegHead

        super().__init__()
        config = {**TOY_MODEL['decode_head'], 'with_cp': True, 'num_decoded_train': DECODED}
        config.pop('type')
        self.head = CATSegHead(embed_dim=32, guidance_in_channels=128, **config)
        self.text = torch.nn.Parameter(torch.randn(CLASSES, 1, 32))

    def forward(self, features, labels):
        classes = self.head.select(features.dense, self.text, labels)
        return self.head.loss(features, self.text, labels)['loss_seg'], classes


def run(rank: int, ranks: int) -> dict[str, torch.Tensor]:
    from infoclip_mmseg.models import ImageFeatures

    torch.manual_seed(0)
    dense, cls = torch.randn(2, 32, 4, 6).double(), torch.randn(2, 32).double()
    blocks = tuple(torch.randn(2, 128, 4, 6).double() for _ in range(2))
    labels = torch.tensor([1, 10])[:, None, None].repeat(1, 16, 24)
    labels[:, :4] = 255
    step = Step().double()
    mine = slice(None) if ranks == 1 else slice(rank, rank + 1)
    features = ImageFeatures(dense[mine], cls[mine], tuple(block[mine] for block in blocks))
    model = step if ranks == 1 else DistributedDataParallel(step)
    loss, classes = model(features, labels[mine])
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in step.named_parameters()}
    return dict(gradients, classes=classes, loss=loss.detach())


@pytest.fixture(scope='module')
def runs(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp('compact')
    tests = Path(__file__).parents[2]
    paths = os.pathsep.join([str(tests.parent), str(tests), os.environ.get('PYTHONPATH', '')])
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': paths}
    places = [(0, 1), (0, 2), (1, 2)]
    outputs = [folder / f'{rank}_of_{ranks}.pt' for rank, ranks in places]
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(ranks), str(folder / 'init'), str(output)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for (rank, ranks), output in zip(places, outputs)
    ]
    try:
        for process in processes:
            text = process.communicate(timeout=300)[0]
            assert process.returncode == 0, text
    finally:
        for process in processes:
            process.kill()
    return [torch.load(output) for output in outputs]


def test_two_ranks_equal_one_process_with_the_joint_batch(runs):
    joint, *ranks = runs
    assert torch.equal(joint.pop('classes'), torch.cat([rank['classes'] for rank in ranks]))
    first, second = (rank.pop('classes')[0].tolist() for rank in ranks)
    assert 1 in first and 10 in second and first != second
    losses = [rank.pop('loss') for rank in ranks]
    torch.testing.assert_close(joint.pop('loss'), sum(losses) / 2)
    assert len(joint) > 40
    for rank in ranks:
        for name, expected in joint.items():
            torch.testing.assert_close(rank[name], expected, atol=1e-10, rtol=1e-8, msg=name)


def main() -> None:
    """One rank, or with a single one the reference."""
    rank, ranks, init, output = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    if ranks > 1:
        distributed.init_process_group('gloo', f'file://{init}', rank=rank, world_size=ranks)
    results = run(rank, ranks)
    if ranks > 1:
        distributed.barrier()
        distributed.destroy_process_group()
    torch.save(results, output)


if __name__ == '__main__':
    main()

"""Losses of masks: two ranks with unequal shares equal one process with the joint batch.

As a script it is one rank: ``test_masks_ddp.py RANK RANKS INIT_FILE OUT``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed

from infoclip_mmseg.losses import FiSeRLoss, Mask2FormerCriterion, MaskAwareLoss, MaskClassLoss
from infoclip_mmseg.losses.masks import match_masks

IMAGES, QUERIES, CLASSES, SIZE = 3, 5, 4, (8, 12)
SHARES = {1: [(0, 3)], 2: [(0, 2), (2, 3)]}
TARGETS = [[0, 2], [], [1, 2, 3]]
rand = torch.rand


def same_points(*shape, **_) -> torch.Tensor:
    """The same points for each mask and image, whatever the batch."""
    torch.manual_seed(5)
    return rand(1, *shape[1:]).double().expand(shape).clone()


def run(rank: int, ranks: int) -> dict[str, torch.Tensor]:
    """Losses and gradients of a share, summed over ranks and divided by their number, as by DDP."""
    torch.rand = same_points
    generator = torch.Generator().manual_seed(1)
    masks, logits = (
        torch.randn(2, IMAGES, QUERIES, *size, generator=generator, dtype=torch.float64)
        for size in (SIZE, (CLASSES + 1,))
    )
    outside = torch.randn(IMAGES, QUERIES, CLASSES, generator=generator, dtype=torch.float64)
    drawn = torch.randn(IMAGES, max(map(len, TARGETS)), *SIZE, generator=generator) > 0
    start, end = SHARES[ranks][rank]
    targets = [
        (torch.tensor(labels, dtype=torch.long), drawn[index, : len(labels)].double())
        for index, labels in enumerate(TARGETS)
    ][start:end]
    leaves = dict(masks=masks, logits=logits, outside=outside)
    parts = dict(masks=masks[:, start:end], logits=logits[:, start:end], outside=outside[start:end])
    parts = {name: x.clone().requires_grad_() for name, x in parts.items()}
    losses = Mask2FormerCriterion(num_points=32)([*parts['masks']], [*parts['logits']], targets)
    losses['aware'] = MaskAwareLoss()(parts['outside'], parts['masks'][-1], targets)
    labels = match_masks(parts['masks'][-1], targets, void=CLASSES)
    losses['classes'] = MaskClassLoss()(parts['logits'][-1], labels)
    # FiSeR, of images that stand for themselves; the second shows no class.
    torch.manual_seed(2)
    fiser, text = FiSeRLoss(CLASSES, num_heads=2).double(), torch.randn(CLASSES, CLASSES).double()
    present = torch.zeros(IMAGES, CLASSES, dtype=torch.bool)
    dropped = torch.tensor([classes[0] if classes else 0 for classes in TARGETS])
    for row, classes in zip(present, TARGETS):
        row[classes] = True
    pooled = parts['outside'].mean(dim=1)
    losses['fiser'] = fiser(pooled, text, present[start:end], dropped[start:end])
    sum(losses.values()).backward()
    results = {name: value.detach() for name, value in losses.items()}
    for name, whole in leaves.items():
        gradient, dim = torch.zeros_like(whole), 0 if name == 'outside' else 1
        gradient.narrow(dim, start, end - start).copy_(parts[name].grad)
        results[f'grad {name}'] = gradient
    if ranks > 1:
        for value in results.values():
            distributed.all_reduce(value)
            value /= ranks
    return results


@pytest.fixture(scope='module')
def runs(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp('masks')
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join([root, os.environ.get('PYTHONPATH', '')])
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
    assert all(joint[f'grad {name}'].abs().max() > 1e-4 for name in ('masks', 'logits', 'outside'))
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

"""What every distillation loss must keep, as a class of tests: derive from it and name the loss.

    class TestMyLoss(LossContract):
        config = dict(type='MyLoss', temperature=0.5)
        equal = 0.0

As a script it is one rank of the distributed test: ``loss_contract.py RANK INIT_FILE OUT CONFIGS``.

Legend: B images, H W dense grid, T classes, C channels.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from mmseg.registry import MODELS
from torch import distributed, nn

from infoclip_mmseg.losses import Branch, DistillationLoss, build_losses, distill
from infoclip_mmseg.models import LPAM

CHANNELS, RANKS, SHARE = 8, 2, 2


class LossContract:
    """Tests of a registered :class:`DistillationLoss`.

    Attributes:
        config: Config of the loss.
        equal: Value where the student is the teacher; None where the definition states none.
        trains_student: Whether a gradient reaches the student's embeddings.
        trains_teacher: Whether one reaches the teacher's, and through them the neck.
        reads_text: Whether the loss reads the text embeddings.
        grid: H W, not square.
        classes: Numbers of classes, on both sides of what the loss treats differently.
    """

    config: dict
    equal: float | None = None
    trains_student = True
    trains_teacher = False
    reads_text = True
    grid = (4, 6)
    classes: tuple[int, ...] = (1, 5, 40)

    def value(self, teacher: Branch, student: Branch) -> torch.Tensor:
        """The loss by way of a config, as a segmentor gets it."""
        [value] = distill(teacher, student, build_losses([self.config])).values()
        return value

    def branches(self, batch: int = 2, classes: int = 5, relate=None) -> tuple[Branch, Branch]:
        """Teacher and student of different images, all of whose embeddings ask for a gradient."""
        teacher, student = (embeddings(self.grid, batch, classes, seed) for seed in (0, 1))
        return Branch(*teacher, relate), Branch(*student, relate)

    def test_registered_and_built_with_weight_and_name(self):
        loss = MODELS.build(self.config)
        assert isinstance(loss, DistillationLoss) and loss.loss_name.startswith('loss_')
        renamed = MODELS.build(
            {**self.config, 'loss_weight': 3 * loss.loss_weight, 'loss_name': 'loss_x'}
        )
        assert renamed.loss_name == 'loss_x'
        branches = self.branches()
        torch.testing.assert_close(renamed.distill(*branches), 3 * self.value(*branches))

    def test_student_that_equals_the_teacher(self):
        if self.equal is None:
            pytest.skip('the definition states no value')
        teacher, _ = self.branches()
        dense, text = (x.detach().clone().requires_grad_() for x in (teacher.dense, teacher.text))
        value = self.value(teacher, Branch(dense, text))
        assert value.item() == pytest.approx(self.equal, abs=1e-6)
        if self.equal == 0:  # the least of a loss that is never negative
            value.backward()
            torch.testing.assert_close(dense.grad, torch.zeros_like(dense), atol=1e-6, rtol=0)

    @pytest.mark.parametrize('batch', [1, 2])
    def test_finite_whatever_the_number_of_classes(self, batch):
        for classes in self.classes:
            teacher, student = self.branches(batch, classes)
            value = self.value(teacher, student)
            value.backward()
            assert value.dim() == 0 and value.isfinite(), classes
            for branch in (teacher, student):
                for x in (branch.dense, branch.text):
                    assert x.grad is None or x.grad.isfinite().all(), classes

    def test_gradients_reach_those_who_train(self):
        teacher, student = self.branches()
        self.value(teacher, student).backward()
        for branch, trains in ((teacher, self.trains_teacher), (student, self.trains_student)):
            if trains:
                assert all(image.abs().max() > 0 for image in branch.dense.grad)
            else:
                assert branch.dense.grad is None
            assert (branch.text.grad is not None) is (trains and self.reads_text)

    def test_order_of_the_images_does_not_matter(self):
        teacher, student = self.branches(batch=3)
        turned = (Branch(x.dense.flip(0), x.text) for x in (teacher, student))
        torch.testing.assert_close(self.value(*turned), self.value(teacher, student))

    def test_text_may_differ_by_image(self):
        teacher, student = self.branches()
        repeated = (Branch(x.dense, x.text.expand(2, -1, -1)) for x in (teacher, student))
        torch.testing.assert_close(self.value(*repeated), self.value(teacher, student))
        other = [Branch(x.dense, torch.stack([x.text, x.text.flip(1)])) for x in (teacher, student)]
        assert self.value(*other).isfinite()

    @pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
    def test_float32_under_autocast(self, dtype):
        branches = [
            Branch(x.dense.detach().to(dtype), x.text.detach().to(dtype)) for x in self.branches()
        ]
        exact = self.value(*(Branch(x.dense.float(), x.text.float()) for x in branches))
        with torch.autocast('cpu', dtype=torch.bfloat16):
            inside = self.value(*branches)
        assert inside.dtype == torch.float32 and inside.equal(exact)

    def test_ranks_with_a_share_each_equal_one_process(self):
        joint = run_share(self.config, self.grid, 0, 1)
        assert any(value.abs().max() > 1e-6 for value in joint.values())
        for rank in _ranks(_key(self.config, self.grid)):
            for name, expected in joint.items():
                torch.testing.assert_close(rank[name], expected, atol=1e-10, rtol=1e-8)


def embeddings(
    grid: tuple[int, int], batch: int, classes: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Dense (B, C, H, W) and text embeddings (T, C) that ask for a gradient."""
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(batch, CHANNELS, *grid, generator=generator)
    text = torch.randn(classes, CHANNELS, generator=generator)
    return dense.requires_grad_(), text.requires_grad_()


def run_share(config: dict, grid: tuple[int, int], rank: int, ranks: int) -> dict:
    """Loss and gradients of a linear student and LPAM, averaged over ranks as DDP does.

    In float64: what is compared is the mathematics, not the order of sums.
    """
    dense, text = (x.detach().double() for x in embeddings(grid, RANKS * SHARE, 5, seed=3))
    dense = dense.tensor_split(ranks)[rank]
    torch.manual_seed(4)
    student, neck = nn.Conv2d(CHANNELS, CHANNELS, 1).double(), LPAM(CHANNELS).double()
    loss = MODELS.build(config)
    value = loss.distill(Branch(dense, text, neck), Branch(student(dense), text, neck))
    parameters = {f'{i}': p for i, p in enumerate([*student.parameters(), *neck.parameters()])}
    if value.requires_grad:
        value.backward()
    result = {'loss': value.detach()}
    for name, parameter in parameters.items():
        result[name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    if ranks > 1:
        for tensor in result.values():
            distributed.all_reduce(tensor)
            tensor /= ranks
    return result


def _key(config: dict, grid: tuple[int, int]) -> str:
    return json.dumps([config, grid], sort_keys=True)


def _ranks(key: str) -> list[dict]:
    """Results of both ranks for a loss; one pair of processes does all losses of the session."""
    pairs = [(c.config, c.grid) for c in LossContract.__subclasses__()]
    return [rank[key] for rank in _run_ranks(tuple(_key(*pair) for pair in pairs))]


@functools.cache
def _run_ranks(keys: tuple[str, ...]) -> list[dict]:
    root = str(Path(__file__).parents[1])
    paths = os.pathsep.join([root, os.environ.get('PYTHONPATH', '')])
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': paths}
    with tempfile.TemporaryDirectory() as folder:
        outputs = [f'{folder}/{rank}.pt' for rank in range(RANKS)]
        processes = [
            subprocess.Popen(
                [sys.executable, __file__, str(rank), f'{folder}/init', output, json.dumps(keys)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank, output in enumerate(outputs)
        ]
        try:
            for process in processes:
                text = process.communicate(timeout=300)[0]
                assert process.returncode == 0, text
        finally:
            for process in processes:
                process.kill()
        return [torch.load(output) for output in outputs]


def main() -> None:
    """All losses as one rank."""
    rank, init, output, keys = int(sys.argv[1]), sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
    distributed.init_process_group('gloo', f'file://{init}', rank=rank, world_size=RANKS)
    results = {key: run_share(*json.loads(key), rank, RANKS) for key in keys}
    distributed.barrier()  # no rank leaves while another still talks to it
    distributed.destroy_process_group()
    torch.save(results, output)


if __name__ == '__main__':
    main()

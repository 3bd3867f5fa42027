import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import infoclip_mmseg.losses

WORKER = Path(__file__).with_name('ddp_worker.py')
PACKAGE_PARENT = Path(infoclip_mmseg.losses.__file__).parents[2]


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Results of one process with the joint batch, and of two with a share each."""
    folder = tmp_path_factory.mktemp('ddp')
    paths = [str(PACKAGE_PARENT), os.environ.get('PYTHONPATH', '')]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': os.pathsep.join(paths)}
    processes, outputs = [], []
    for rank, world_size in [(0, 1), (0, 2), (1, 2)]:
        outputs.append(folder / f'{rank}_of_{world_size}.pt')
        command = [WORKER, rank, world_size, folder / 'init', outputs[-1]]
        processes.append(
            subprocess.Popen(
                [sys.executable, *map(str, command)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        for process in processes:
            output = process.communicate(timeout=300)[0]
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()
    return [torch.load(output) for output in outputs]


@pytest.mark.parametrize('loss', ['ib', 'mi', 'both'])
@pytest.mark.parametrize('text', ['shared', 'image'])
@pytest.mark.parametrize('split', ['equal', 'unequal'])
def test_two_ranks_equal_one_process_with_the_joint_batch(runs, loss, text, split):
    joint, *ranks = (run[loss, text, split] for run in runs)
    trained = [name for name, value in joint.items() if value.abs().max() > 1e-4]
    assert {'loss', 'lpam.query_proj.weight', 'lpam.image_norm.weight'} <= set(trained)
    assert ('student.weight' in trained) == (loss != 'ib')
    for rank in ranks:
        for name, expected in joint.items():
            torch.testing.assert_close(rank[name], expected, atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize('text', ['shared', 'image'])
@pytest.mark.parametrize('split', ['equal', 'unequal'])
def test_information_of_plain_cosines_sees_the_joint_batch(runs, text, split):
    joint, *ranks = (run['cosine_mi', text, split] for run in runs)
    assert joint['student.weight'].abs().max() > 1e-4
    for rank in ranks:
        for name, expected in joint.items():
            torch.testing.assert_close(rank[name], expected, atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize('text', ['shared', 'image'])
def test_losses_that_are_means_over_images_average_over_equal_ranks(runs, text):
    joint, *ranks = (run['means', text, 'equal'] for run in runs)
    assert joint['student.weight'].abs().max() > 1e-4
    torch.testing.assert_close(sum(rank['loss'] for rank in ranks) / 2, joint['loss'])
    for rank in ranks:
        for name in ('student.weight', 'student.bias'):
            torch.testing.assert_close(rank[name], joint[name], atol=1e-6, rtol=1e-5)


def test_other_shapes_on_another_rank_are_refused_on_all(runs):
    for run in runs[1:]:
        assert 'the same number of classes on every rank' in run['mismatch']


def test_one_image_a_rank_trains(runs):
    for run in runs[1:]:
        assert run['one image a rank'].abs().max() > 1e-3

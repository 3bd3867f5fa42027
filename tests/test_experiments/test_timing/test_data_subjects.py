from __future__ import annotations

from pathlib import Path

import pytest

from infoclip_mmseg.datasets.prepare import label_files
from infoclip_mmseg.experiments.timing.bench import Bench, Setting
from infoclip_mmseg.experiments.timing.data_subjects import (
    CONVERSIONS,
    evaluation,
    loading,
    prepare,
)

CONFIG = Path(__file__).resolve().parents[3] / 'configs/infoclip_vitb16_coco-stuff.py'


def seconds_of(subject, **fields) -> dict[str, list[float]]:
    bench = Bench(Setting(subject.__name__, str(CONFIG), images=2, num_classes=300, **fields))
    subject(bench)()
    assert bench.images == 2
    return bench.clock.seconds


def test_an_evaluation_is_timed_by_step_outside_of_the_model():
    seconds = seconds_of(evaluation)
    steps = [name for name in seconds if name[0].isdigit()]
    assert '4 LoadLabelMap' in steps and len(seconds['4 LoadLabelMap']) == 2
    assert {'pipeline', 'metric', 'metric, at the end'} == seconds.keys() - set(steps)
    assert seconds['pipeline'][0] > sum(seconds[name][0] for name in steps) > 0


@pytest.mark.parametrize('workers', [1, 2])
def test_training_images_are_timed_by_step_and_from_the_loader(workers):
    bench = Bench(Setting('loading', str(CONFIG), images=6, workers=workers, batch_size=2))
    loading(bench)()
    steps = [name for name in bench.clock.seconds if name[0].isdigit()]
    assert '5 Resize' in steps and '6 RandomCrop' in steps
    assert all(len(bench.clock.seconds[name]) == 6 for name in (*steps, 'pipeline'))
    assert bench.clock.seconds['loader'][0] > 0
    assert bench.info['loading_workers'] == workers
    assert 100_000 < bench.info['bytes_of_an_image'] < 400_000  # COCO's have 160 kB on average


@pytest.mark.parametrize('workers', [1, 2])
def test_conversions_are_made_and_timed_by_image(monkeypatch, workers):
    made = []
    convert = label_files.run_tasks

    def watch(tasks, *options):
        assert not any(task.is_done() for task in tasks)
        convert(tasks, *options)
        made.append([task.is_done() for task in tasks])

    monkeypatch.setattr(label_files, 'run_tasks', watch)
    seconds = seconds_of(prepare, workers=workers)
    assert made == [[True, True]] * len(CONVERSIONS)
    assert list(seconds) == list(CONVERSIONS)
    assert all(values[0] > 0 for values in seconds.values())

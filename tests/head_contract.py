"""What every decode head must do, as tests: a new head is tested by naming its config.

    class TestMyHead(HeadContract):
        decode_head = dict(type='MyHead', width=16)
        limit = 8  # classes that it decodes of a view; 0 for all

Sizes that the segmentor fills in (``embed_dim`` and so on) are those of the toy-sized model.
"""

from __future__ import annotations

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from infoclip_mmseg.models import OpenVocabHead
from infoclip_mmseg.models.layers.cost_volume import UNDECODED_LOGIT
from infoclip_mmseg.models.views import class_maps

MODES = ('slide', 'windows', 'whole')
GRID = (3, 5)


def words(count: int) -> list[str]:
    return [f'thing {index}' for index in range(count)]


class HeadContract:
    """Tests of one head; subclasses name it."""

    decode_head: dict | None = None
    """Its config; None takes the toy-sized model's CATSegHead."""
    options: dict = {}
    """More options of the head."""
    fewest = 1
    """Classes that it needs."""
    limit = 0
    """Classes that are decoded of each view; 0 for all."""
    modes = MODES
    """Inference modes that its scores allow."""
    changes: dict = {}
    """Of the toy-sized model's config, for this head."""

    @pytest.fixture
    def build(self, toy_cfg):
        """Builder of toy-sized models with the head: ``build(mode)``."""

        def build(mode: str = 'whole'):
            torch.manual_seed(0)
            config = toy_cfg(**self.changes)
            config['decode_head'] = {**(self.decode_head or config['decode_head']), **self.options}
            config['test_cfg'] = dict(config['test_cfg'], mode=mode, stride=24)
            return MODELS.build(config).eval()

        return build

    @pytest.fixture
    def model(self, build):
        return build()

    @pytest.fixture
    def counts(self):
        """Sizes of a vocabulary: the least, a few, and more than the head decodes of a view."""
        return (self.fewest, 3, self.limit + 5)

    @pytest.fixture
    def features(self, model):
        """Of two different images, on a grid that is no square."""
        size = [side * step for side, step in zip(GRID, model.backbone.patch_size)]
        with torch.no_grad():
            return self.bring(model.backbone.encode_image(torch.randn(2, 3, *size)))

    def bring(self, features):
        """Features with what is not the encoder's."""
        return features

    def text(self, model, count: int):
        model.set_vocabulary(words(count))
        with torch.no_grad():
            return model.backbone.embed_prompts(model.prompts)

    def test_it_is_a_head(self, model):
        head = model.decode_head
        assert isinstance(head, OpenVocabHead)
        assert head.trained == any(True for _ in head.parameters())
        model.set_vocabulary(words(4))
        assert head.num_classes == head.out_channels == model.out_channels == 4

    def test_too_few_classes_are_refused(self, model):
        model.set_vocabulary(words(3))
        if self.fewest > 1:
            with pytest.raises(ValueError, match='Add words'):
                model.set_vocabulary(words(self.fewest - 1))
            with pytest.raises(ValueError, match='Add words'):
                model.label(torch.rand(1, 3, 40, 40), words(self.fewest - 1))
        assert model.decode_head.num_classes == 3

    @torch.no_grad()
    def test_logits_and_their_classes(self, model, features, counts):
        for count in counts:
            text = self.text(model, count)
            logits, classes = model.decode_head.decode(features, text)
            assert logits.shape[0] == 2 and logits.isfinite().all()
            assert not torch.allclose(logits[0], logits[1])
            dense = model.decode_head(features, text)
            assert dense.shape == (2, count, *logits.shape[2:])
            if not 0 < self.limit < count:
                assert classes is None
                torch.testing.assert_close(dense, logits)
                continue
            assert classes.shape == logits.shape[:2] == (2, self.limit)
            assert (classes.diff(dim=1) > 0).all() and classes.min() >= 0
            assert classes.max() < count
            for image in range(2):
                torch.testing.assert_close(dense[image, classes[image]], logits[image])
                assert (dense[image] == UNDECODED_LOGIT).sum() >= (
                    (count - self.limit) * logits[0, 0].numel()
                )

    @torch.no_grad()
    def test_an_image_does_not_depend_on_its_neighbours(self, model, features, counts):
        one = features._replace(
            dense=features.dense[1:],
            cls=features.cls[1:],
            blocks=tuple(block[1:] for block in features.blocks),
            inputs=tuple(tokens[1:] for tokens in features.inputs),
            masks=None if features.masks is None else features.masks[1:],
        )
        for count in counts:
            text = self.text(model, count)
            both = model.decode_head(features, text)
            torch.testing.assert_close(
                model.decode_head(one, text)[0], both[1], rtol=1e-4, atol=1e-4
            )

    @torch.no_grad()
    def test_probabilities_and_labels(self, model, features, counts):
        head = model.decode_head
        for count in counts:
            logits = head(features, self.text(model, count))
            scores = head.scores(logits.bfloat16())
            assert scores.dtype == torch.float32 and scores.shape == logits.shape
            probabilities = head.probabilities(head.scores(logits), model.prompts.word_counts)
            assert probabilities.shape == logits.shape
            assert probabilities.min() >= 0 and probabilities.max() <= 1 + 1e-6
            best, winner = probabilities[0].max(dim=0)
            labels = head.labels(winner, best)
            assert labels.shape == winner.shape and labels.dtype == torch.int64
            known = set(range(count)) | ({head.ignore_index} if count == 1 else set())
            assert set(labels.unique().tolist()) <= known

    @torch.no_grad()
    def test_predictions(self, build, monkeypatch, counts):
        for mode in self.modes:
            model = build(mode)
            images = torch.randn(2, 3, 56, 72)
            for count in counts:
                model.set_vocabulary(words(count))
                samples = [SegDataSample(metainfo=dict(ori_shape=(60, 50))) for _ in images]
                samples = model.predict(images, samples)
                for sample in samples:
                    maps = sample.seg_logits.data
                    assert maps.shape == (count, 60, 50) and maps.dtype == torch.float32
                    best, winner = maps.max(dim=0)
                    assert torch.equal(sample.pred_probability.data[0], best)
                    labels = model.decode_head.labels(winner, best)
                    assert torch.equal(sample.pred_sem_seg.data[0], labels)
                first, second = (sample.seg_logits.data for sample in samples)
                assert count == 1 or not torch.equal(first, second)
                with monkeypatch.context() as few:
                    few.setattr(class_maps, '_CHUNK', 1)  # a class at a time
                    (again,) = model.predict(images[1:], samples[1:], max_dense_classes=0)
                torch.testing.assert_close(
                    again.pred_probability.data, samples[1].pred_probability.data
                )

    def test_modes_that_do_not_fit_are_refused(self, build):
        for mode in set(MODES) - set(self.modes):
            with pytest.raises(ValueError, match=f"mode '{mode}'"):
                build(mode)

    def test_loss(self, model, features, counts):
        head = model.decode_head.train()
        for count in counts:
            text = self.text(model, count)
            labels = torch.randint(0, count, (2, 1, 24, 40))
            labels[:, :, :4] = head.ignore_index
            samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
            targets = head.targets(samples)
            if not head.trained:
                with pytest.raises(RuntimeError, match='nothing to train'):
                    head.loss(features, text, targets)
                continue
            self.check_losses(head.loss(features, text, targets), list(head.parameters()))

    def check_losses(self, losses, parameters):
        """They are finite, and reach some of the parameters."""
        assert losses and all(key.startswith(('loss', 'acc')) for key in losses)
        total = sum(value for key, value in losses.items() if key.startswith('loss'))
        assert total.isfinite() and total.ndim == 0
        grads = torch.autograd.grad(total, parameters, allow_unused=True)
        assert all(g is None or g.isfinite().all() for g in grads)
        assert any(g is not None and g.abs().sum() > 0 for g in grads)

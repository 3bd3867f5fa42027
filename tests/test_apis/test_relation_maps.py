from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.config import Config

from infoclip_mmseg.apis import OpenVocabInferencer
from infoclip_mmseg.apis.relation_maps import align, load_lpam, relation_maps
from infoclip_mmseg.models import LPAM
from infoclip_mmseg.utils.checkpoint_files import CheckpointError
from infoclip_mmseg.utils.resources import find_config
from infoclip_mmseg.utils.tensors import cosine


def test_cosine_maps_are_cosines():
    dense = torch.tensor([[[[3.0, 0.0]], [[4.0, -2.0]]]])  # (1, 2, 1, 2)
    maps = relation_maps(cosine, dense, torch.tensor([[5.0, 0.0], [0.0, 1.0]]))
    assert torch.allclose(maps, torch.tensor([[[[0.6, 0.0]], [[0.8, -1.0]]]]))


def test_relation_maps_keep_places():
    torch.manual_seed(0)
    lpam, dense, text = LPAM(embed_dim=8), torch.randn(2, 8, 3, 5), torch.randn(4, 8)
    maps = relation_maps(lpam, dense, text)
    assert maps.shape == (2, 4, 3, 5)
    alone = lpam(dense[1:, :, 2, 4].unsqueeze(1), text)
    assert torch.allclose(maps[1, :, 2, 4], alone[0, 0], atol=1e-6)


def test_cosines_find_what_is_there(inferencer, world):
    classes = world['classes']
    found = align(inferencer.model, world['images'][0], classes)
    assert found.names == tuple(classes) and found.relation is None
    assert found.cosine.shape == (len(classes), 8, 8)
    centres = world['labels'][0][4::8, 4::8]
    assert (found.cosine.argmax(0) == centres).mean() > 0.5
    assert np.abs(found.cosine).max() <= 1.0001


def test_words_may_change(inferencer, world):
    one = align(inferencer.model, world['images'][0], ['grass', 'snow'])
    two = align(inferencer.model, world['images'][0], ['snow', 'grass'])
    assert np.allclose(one.cosine, two.cosine[::-1], atol=1e-6)
    assert not np.allclose(one.cosine, two.cosine, atol=1e-3)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A config with a neck, its model with random head, and a checkpoint of both with an LPAM."""
    cfg = Config.fromfile(find_config('world/infoclip'))
    zero = OpenVocabInferencer(device='cpu')
    from mmengine.registry import DefaultScope
    from mmseg.registry import MODELS

    torch.manual_seed(3)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build({**cfg.model, 'loss_ib': None, 'loss_mi': None})
    model.backbone.load_state_dict(zero.model.backbone.state_dict())
    path = tmp_path_factory.mktemp('weights') / 'infoclip.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return cfg, path, model


def test_lpam_of_a_checkpoint(trained, world):
    cfg, path, model = trained
    seg = OpenVocabInferencer(cfg, path, device='cpu')
    assert not hasattr(seg.model, 'neck')
    lpam = load_lpam(cfg, path, seg.model)
    assert torch.equal(lpam.query_proj.weight, model.neck.query_proj.weight)
    found = align(seg.model, world['images'][0], ['grass', 'snow'], lpam)
    assert found.relation.shape == found.cosine.shape == (2, 8, 8)
    # The relation is the cosine and a learned term.
    assert not np.allclose(found.relation, found.cosine, atol=1e-3)
    lpam.query_proj.weight.data.zero_()
    lpam.query_proj.bias.data.zero_()
    plain = align(seg.model, world['images'][0], ['grass', 'snow'], lpam)
    assert np.allclose(plain.relation, plain.cosine, atol=1e-5)


def test_no_lpam(trained, tmp_path, inferencer):
    cfg, path, _ = trained
    assert load_lpam(inferencer.cfg, None, inferencer.model) is None
    assert load_lpam(inferencer.cfg, path, inferencer.model) is None  # the config has no neck
    state = torch.load(path, weights_only=True)['state_dict']
    bare = {key: value for key, value in state.items() if not key.startswith('neck.')}
    torch.save(dict(state_dict=bare), tmp_path / 'bare.pth')
    assert load_lpam(cfg, tmp_path / 'bare.pth', inferencer.model) is None
    bare['neck.image_norm.weight'] = torch.zeros(3)
    torch.save(dict(state_dict=bare), tmp_path / 'wrong.pth')
    with pytest.raises(CheckpointError, match='another architecture'):
        load_lpam(cfg, tmp_path / 'wrong.pth', inferencer.model)

# Every reading of the last block of the composed world's small CLIP, without training: cosines and
# argmax, as in zero_shot.py. 'catseg' is what its second pretraining stage distilled into.
# python tools/ablation.py configs/world/ablation_dense_modes.py
_modes = ['vanilla', 'maskclip', 'sclip', 'clearclip']
_names = ['catseg', *_modes, *[mode + '_residual' for mode in _modes]]
runs = [
    dict(
        name=name,
        config='configs/world/zero_shot.py',
        cfg_options={'model.backbone.dense_mode': name},
        train=False,
    )
    for name in _names
]
_many = {
    'test_dataloader.dataset.vocabulary': 'distractors',
    'test_dataloader.dataset.length': 200,
    'test_evaluator.absent': 'skip',  # words that no scene holds have no IoU of their own
}
tests = [
    dict(name='joint'),
    dict(name='shifted', cfg_options={'test_dataloader.dataset.domain': 'shifted'}),
    dict(name='distractors', cfg_options=_many),
]

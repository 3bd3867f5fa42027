# What every run shares: the plugin, logging, drawing.
custom_imports = dict(imports=['infoclip_mmseg'], allow_failed_imports=False)
default_scope = 'mmseg'
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    # In seconds: a rank that another one keeps waiting for longer ends the job.
    dist_cfg=dict(backend='nccl', timeout=300),
)
randomness = dict(seed=0)
# The dense last block has no use for its query weight, which therefore gets no gradient.
find_unused_parameters = True

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='OpenVocabVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False
tta_model = dict(type='OpenVocabTTAModel')

# What InfoCLIP adds to a student: the teacher, LPAM, two losses, and the hooks that they need.
distillation = dict(
    teacher=dict(type='CLIPDualEncoder', model_name='ViT-B-16-quickgelu', pretrained='openai'),
    neck=dict(type='LPAM'),
    loss_ib=dict(type='InfoBottleneckLoss', loss_weight=1.0),
    loss_mi=dict(type='MITransferLoss', loss_weight=1.0),
)
custom_hooks = [
    dict(type='FrozenTeacherHook'),
    dict(type='VocabularyHook'),
    dict(type='NonFiniteLossHook'),
]

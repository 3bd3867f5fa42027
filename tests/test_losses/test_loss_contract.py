"""Every distillation loss of the package through the shared contract."""

from __future__ import annotations

from loss_contract import LossContract


class TestInfoBottleneck(LossContract):
    config = dict(type='InfoBottleneckLoss')
    trains_student = False
    trains_teacher = True


class TestInfoBottleneckOfTokens(LossContract):
    config = dict(type='InfoBottleneckLoss', samples='token')
    trains_student = False
    trains_teacher = True
    grid = (16, 18)
    classes = (1, 5, 300)


class TestMITransfer(LossContract):
    config = dict(type='MITransferLoss')
    trains_teacher = True


class TestMITransferOfTokens(LossContract):
    config = dict(type='MITransferLoss', samples='token')
    trains_teacher = True
    grid = (16, 18)
    classes = (1, 5, 300)


class TestMITransferWithEigenvalues(LossContract):
    config = dict(type='MITransferLoss', alpha=1.5)
    trains_teacher = True


class TestKLDistillation(LossContract):
    config = dict(type='KLDistillationLoss', temperature=0.5)
    equal = 0.0


class TestSelfDistillation(LossContract):
    config = dict(type='SelfDistillationLoss')
    equal = 0.0
    reads_text = False


class TestRepresentationCompensation(LossContract):
    config = dict(type='RepresentationCompensationLoss')
    equal = 0.0
    reads_text = False


class TestCauchySchwarz(LossContract):
    config = dict(type='CauchySchwarzLoss')
    equal = 0.0
    classes = (1, 5, 40)


class TestCauchySchwarzOfImages(LossContract):
    config = dict(type='CauchySchwarzLoss', samples='batch')
    equal = 0.0


class TestCauchySchwarzOfMaps(LossContract):
    config = dict(type='CauchySchwarzLoss', samples='map')
    equal = 0.0


class TestCauchySchwarzOfASharedNeck(LossContract):
    config = dict(type='CauchySchwarzLoss', maps='shared', detach_teacher=False)
    equal = 0.0
    trains_teacher = True

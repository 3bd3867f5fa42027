"""One rank of the distributed test: ``python ddp_worker.py RANK WORLD_SIZE INIT_FILE OUT``.

With a world size of 1 it runs without a process group, which gives the reference.
"""

import sys

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from infoclip_mmseg.losses import (
    InfoBottleneckLoss,
    KLDistillationLoss,
    MITransferLoss,
    RepresentationCompensationLoss,
    SelfDistillationLoss,
    cosine_relation,
)
from infoclip_mmseg.models.necks.lpam import LPAM

BATCH, POSITIONS, CLASSES, CHANNELS = 4, 6, 5, 8
SPLITS = {'equal': (2, 2), 'unequal': (3, 1)}


class Distillation(nn.Module):
    """LPAM on fixed teacher embeddings and on those of a linear student."""

    def __init__(self, loss: str):
        super().__init__()
        self.student = nn.Linear(CHANNELS, CHANNELS)
        self.lpam = LPAM(CHANNELS)
        self.loss = loss
        self.bottleneck = InfoBottleneckLoss()
        self.transfer = MITransferLoss(loss_weight=0.7)

    def rivals(self, image, text):
        """The losses that InfoCLIP is compared with, on plain cosines and a grid of 2 x 3."""
        tuned = self.student(image)
        cosines = cosine_relation(image, text), cosine_relation(tuned, self.student(text))
        grids = [x.mT.unflatten(2, (2, 3)) for x in (image, tuned)]
        means = KLDistillationLoss()(*cosines) + SelfDistillationLoss()(*grids)
        means = means + RepresentationCompensationLoss(scales=(1, 2))(*grids)
        return {'cosine_mi': self.transfer(*cosines), 'means': means}

    def forward(self, image, text):
        teacher = self.lpam(image, text)
        if self.loss in ('cosine_mi', 'means'):
            return self.rivals(image, text)[self.loss] + 0 * teacher.sum()
        student = self.lpam(self.student(image), self.student(text))
        ib, mi = self.bottleneck(teacher, image, text), self.transfer(teacher, student)
        # the student enters each loss, so that every parameter of DDP has a gradient
        return {'ib': ib + 0 * student.sum(), 'mi': mi, 'both': ib + mi}[self.loss]


def run_case(rank, world_size, loss, text_kind, split):
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(BATCH, POSITIONS, CHANNELS, generator=generator)
    text = torch.randn(BATCH, CLASSES, CHANNELS, generator=generator)
    torch.manual_seed(2)
    module = model = Distillation(loss)
    if world_size > 1:
        model = DistributedDataParallel(module)
        image, text = image.split(SPLITS[split])[rank], text.split(SPLITS[split])[rank]
    if text_kind == 'shared':
        text = torch.randn(CLASSES, CHANNELS, generator=generator)
    value = model(image, text)
    value.backward()
    return {'loss': value.detach(), **{k: p.grad for k, p in module.named_parameters()}}


def mismatch_message(rank):
    try:
        MITransferLoss()(torch.randn(2, POSITIONS, 3 + rank), torch.randn(2, POSITIONS, 3 + rank))
    except ValueError as error:
        return str(error)
    return ''


def single_image_gradient(rank):
    """One image a rank is a batch of two: a gradient must come."""
    relation = torch.randn(1, POSITIONS, CLASSES, generator=torch.Generator().manual_seed(rank))
    relation.requires_grad_()
    MITransferLoss()(relation, relation.square()).backward()
    return relation.grad


def main():
    rank, world_size = int(sys.argv[1]), int(sys.argv[2])
    if world_size > 1:
        distributed.init_process_group(
            'gloo', init_method=f'file://{sys.argv[3]}', rank=rank, world_size=world_size
        )
    results = {
        (loss, text, split): run_case(rank, world_size, loss, text, split)
        for loss in ('ib', 'mi', 'both', 'cosine_mi', 'means')
        for text in ('shared', 'image')
        for split in SPLITS
    }
    if world_size > 1:
        results['mismatch'] = mismatch_message(rank)
        results['one image a rank'] = single_image_gradient(rank)
        distributed.barrier()  # no rank leaves while another still talks to it
        distributed.destroy_process_group()
    torch.save(results, sys.argv[4])


if __name__ == '__main__':
    main()

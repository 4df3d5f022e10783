"""What is particular to the method: its network, its loss, its post-processing."""

from dataclasses import replace

import torch
from torch import nn

from autoseg.plugins.parts import LossPart, NetworkPart, StepPart
from autoseg.plugins.trainer import Trainer


class TinyNet(nn.Module):
    def __init__(self, in_channels, out_channels, width=4):
        super().__init__()
        self.first = nn.Conv3d(in_channels, width, 3, padding=1)
        self.second = nn.Conv3d(width, out_channels, 3, padding=1)

    def forward(self, image):
        return self.second(torch.relu(self.first(image)))


class TinyCrossEntropy(nn.Module):
    def __init__(self, labels, lesion_weight=1.0):
        super().__init__()
        self.loss = nn.CrossEntropyLoss(torch.tensor([1.0] + [lesion_weight] * len(labels.names)))

    def forward(self, outputs, target):
        return self.loss(outputs, target.long())


def drop_first_slice(case):
    mask = case.mask.copy()
    mask[0] = 0
    return replace(case, mask=mask)


TRAINER = Trainer(
    "tiny",
    "a tiny two-stage method",
    networks=(NetworkPart("tiny_net", TinyNet),),
    losses=(LossPart("tiny_cross_entropy", TinyCrossEntropy),),
    steps=(StepPart("tiny_drop_first_slice", drop_first_slice),),
)

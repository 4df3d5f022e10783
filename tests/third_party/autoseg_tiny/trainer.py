"""What is particular to the method: its network, its loss, its post-processing."""

from dataclasses import replace

import torch
from torch import nn

from autoseg.plugins.trainer import Trainer


class TinyNet(nn.Module):
    def __init__(self, in_channels, out_channels, width):
        super().__init__()
        self.first = nn.Conv3d(in_channels, width, 3, padding=1)
        self.second = nn.Conv3d(width, out_channels, 3, padding=1)

    def forward(self, image):
        return self.second(torch.relu(self.first(image)))


def build_network(spec, in_channels, out_channels):
    return TinyNet(in_channels, out_channels, **spec.arguments)


def build_loss(spec, labels):
    weight = torch.tensor([1.0] + [spec.arguments["lesion_weight"]] * len(labels.names))
    return nn.CrossEntropyLoss(weight)


def drop_first_slice(case):
    mask = case.mask.copy()
    mask[0] = 0
    return replace(case, mask=mask)


TRAINER = Trainer(
    "tiny",
    "a tiny two-stage method",
    build_network=build_network,
    build_loss=lambda spec, labels: _LongTarget(build_loss(spec, labels)),
    postprocessing={"tiny_drop_first_slice": drop_first_slice},
)


class _LongTarget(nn.Module):
    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def forward(self, outputs, target):
        return self.loss(outputs, target.long())

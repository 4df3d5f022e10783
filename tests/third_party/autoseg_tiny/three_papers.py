"""Stand-ins for the parts of three papers: as small as they can be, with the inputs and outputs of the real ones.

Brain SegNet (Hu et al. 2020, BMC Med Imaging 20:17), DeepMedic on ISLES 2017 (Perez Malla et al. 2019, Front.
Neuroinform. 13:33) and 3D-ResU-Net (Tomita et al. 2020, NeuroImage: Clinical 27:102276). The networks are not those of
the papers. The losses, the optimiser, the schedules and the steps are their formulas.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import nn

from autoseg.plugins.parts import (
    LossPart,
    NetworkPart,
    OptimiserPart,
    Place,
    SamplerPart,
    SchedulePart,
    StepPart,
    TransformPart,
)
from autoseg.plugins.trainer import Trainer
from autoseg.sampling import geometry
from autoseg.sampling.keys import Purpose, generator, order
from autoseg.training.losses import Targets

# ------------------------------------------------------------------------------------------------------ networks


class TinyBrainSegNet(nn.Module):
    """Three times half the size in the planes, never in depth; up again, bilinear in the planes, summed."""

    def __init__(self, in_channels, out_channels, width=32):
        super().__init__()
        self.first = nn.Conv3d(in_channels, width, 3, padding=1)
        self.down = nn.ModuleList(nn.Conv3d(width, width, 3, (1, 2, 2), padding=1) for _ in range(3))
        self.last = nn.Conv3d(width, out_channels, 1)

    def forward(self, image):
        maps = [self.first(image)]
        for layer in self.down:
            maps.append(layer(torch.relu(maps[-1])))
        found = maps.pop()
        while maps:
            found = F.interpolate(found, scale_factor=(1, 2, 2), mode="trilinear") + maps.pop()
        return self.last(found)


class TinyDeepMedic(nn.Module):
    """Two pathways of valid convolutions; the second one sees every ``factor``-th voxel of the context."""

    def __init__(self, in_channels, out_channels, width=30, layers=8, factor=3):
        super().__init__()
        self.layers, self.factor = layers, factor
        self.normal, self.low = (
            nn.Sequential(*(self.block(in_channels if i == 0 else width, width) for i in range(layers)))
            for _ in range(2)
        )
        self.common = nn.Sequential(nn.Dropout3d(0.5), nn.Conv3d(2 * width, out_channels, 1))

    @staticmethod
    def block(in_channels, width):
        return nn.Sequential(
            nn.BatchNorm3d(in_channels), nn.PReLU(in_channels, 0.01), nn.Conv3d(in_channels, width, 3)
        )

    def forward(self, image):
        around = self.factor * self.layers
        size = [n - 2 * around for n in image.shape[2:]]
        rim = around - self.layers
        normal = self.normal(image[..., rim:-rim, rim:-rim, rim:-rim])
        seen = [slice(0, self.factor * (-(-n // self.factor) + 2 * self.layers), self.factor) for n in size]
        low = self.low(image[(..., *seen)])
        for axis in (2, 3, 4):
            low = low.repeat_interleave(self.factor, axis).narrow(axis, 0, size[axis - 2])
        return self.common(torch.cat([normal, low], 1))


def context_of_deepmedic(width=30, layers=8, factor=3):
    """The second pathway loses one of its own voxels for each layer."""
    return (factor * layers,) * 3


class TinyResUNet(nn.Module):
    """One level of a U-Net. The background's logit is 0: softmax is then the sigmoid of the published one output."""

    def __init__(self, in_channels, out_channels, width=32):
        super().__init__()
        self.first = nn.Sequential(nn.Conv3d(in_channels, width, 3, padding=1), nn.GroupNorm(2, width))
        self.up = nn.ConvTranspose3d(width, width, 2, 2)
        self.last = nn.Conv3d(2 * width, out_channels - 1, 1)

    def forward(self, image):
        fine = torch.relu(self.first(image))
        up = F.interpolate(self.up(F.max_pool3d(fine, 2)), fine.shape[2:], mode="trilinear")
        lesion = self.last(torch.cat([up, fine], 1))
        return torch.cat([torch.zeros_like(lesion[:, :1]), lesion], 1)


# -------------------------------------------------------------------------------- losses, optimiser, schedule


class Focal(nn.Module):
    """The mean over voxels of ``-(1 - p)^gamma log p``, p of the true class."""

    def __init__(self, labels, gamma=2.0):
        super().__init__()
        self.targets, self.gamma = Targets(labels), gamma

    def forward(self, logits, target):
        one_hot, _ = self.targets(target)
        log_p = (logits.float().log_softmax(1) * one_hot).sum(1)
        return -((1 - log_p.exp()) ** self.gamma * log_p).mean()


class BceDice(nn.Module):
    """Binary cross-entropy and Dice of the whole batch at once, of the lesion's probability."""

    def __init__(self, labels, bce_weight=0.1, dice_weight=0.9, smooth=2.22e-16):
        super().__init__()
        self.weights, self.smooth = (bce_weight, dice_weight), smooth

    def forward(self, logits, target):
        logit, truth = logits[:, 1] - logits[:, 0], (target > 0).to(logits.dtype)
        entropy, p = F.binary_cross_entropy_with_logits(logit, truth), logit.sigmoid()
        dice = 1 - (2 * (p * truth).sum() + self.smooth) / (p.sum() + truth.sum() + self.smooth)
        return self.weights[0] * entropy + self.weights[1] * dice


class NormalisedRMSprop(torch.optim.Optimizer):
    """RMSProp with Nesterov's momentum, the step times ``1 - momentum`` and epsilon inside the root.

    ``l1`` and ``l2`` are of weights with more than one axis, the convolutions', as the gradient of
    ``l1 sum |w| + l2 sum w^2``.
    """

    def __init__(self, parameters, lr, rho=0.9, eps=1e-4, momentum=0.6, l1=0.0, l2=0.0):
        settings = {"lr": lr, "rho": rho, "eps": eps, "momentum": momentum, "l1": l1, "l2": l2}
        super().__init__(parameters, settings)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(group, weight)

    def _update(self, group, weight):
        state, m, gradient = self.state[weight], group["momentum"], weight.grad
        if weight.ndim > 1:
            gradient = gradient + group["l1"] * weight.sign() + 2 * group["l2"] * weight
        if not state:
            state["square"], state["velocity"] = torch.zeros_like(weight), torch.zeros_like(weight)
        square, velocity = state["square"], state["velocity"]
        square.mul_(group["rho"]).addcmul_(gradient, gradient, value=1 - group["rho"])
        step = (1 - m) * group["lr"] * gradient / (square + group["eps"]).sqrt()
        velocity.mul_(m).sub_(step)
        weight.add_(m * velocity - step)


def exponential_with_momentum(epochs, end_factor, momentum_from=0.6, momentum_to=0.9):
    """Per epoch the rate falls by one factor and the momentum grows by one number; the first two epochs are alike."""

    def settings(progress):
        share = max(math.floor(progress) - 1, 0) / max(epochs - 1, 1)
        momentum = momentum_from + (momentum_to - momentum_from) * share
        return {"lr_factor": end_factor**share, "momentum": momentum}

    return settings


# ---------------------------------------------------------------------------------------------------- transforms


def draw_scale(rng, shape, low=0.5, high=1.2):
    return {"scale": rng.uniform(low, high)}


def scaled_planes(numbers, axes):
    return np.diag([1.0] * (axes - 2) + [1 / numbers["scale"]] * 2)


# ------------------------------------------------------------------------------------------------------ samplers


def depth_starts(size, patch):
    """Equal parts of the depth, the last one shifted to fit; the middle of a patch that is deeper than the image."""
    if size < patch:
        return [int(geometry.centred_start([size], [patch])[0])]
    return [min(i * patch, size - patch) for i in range(-(-size // patch))]


class SubVolumes:
    """Brain SegNet: one sub-volume of each scan, in its planes a crop that shows the whole lesion where that fits."""

    def __init__(self, cases):
        self._cases = cases

    @property
    def pass_length(self):
        return len(self._cases.names)

    def place(self, epoch, index, matrix):
        key, names = self._cases.seed_key, self._cases.names
        case = names[order((*key, epoch), len(names))[index % len(names)]]
        rng = generator(Purpose.CROP, (*key, epoch, index))
        image, size = self._cases.size(case), self._cases.patch_size(case)
        starts = depth_starts(image[0], size[0])
        z = starts[rng.integers(len(starts))]
        voxels = self._cases.foreground_voxels(case)
        lesion = voxels[(voxels[:, 0] >= z) & (voxels[:, 0] < z + size[0])]
        turn = np.eye(2) if matrix is None else matrix[1:, 1:]
        y, x = crop_around(rng, lesion[:, 1:], image[1:], size[1:], turn)
        voxel = geometry.as_voxel(lesion[0]) if len(lesion) else None
        return Place(case, voxel is not None, voxel, (int(z), y, x), size)


def crop_around(rng, lesion, image, patch, turn):
    """First voxel, y and x, of a crop that shows all lesion voxels ``[n, 2]`` where they fit, else one of them.

    All such crops within the image are equally likely, also where the patch is turned and scaled by ``turn``.
    """
    back, half = np.linalg.inv(turn), (np.asarray(patch) - 1) / 2
    low, high = bounds(np.array([[0, 0], np.asarray(image) - 1]), back)
    low, high = low + half, high - half  # of the middle of the patch, in the patch's directions
    low, high = np.where(low > high, (low + high) / 2, low), np.where(low > high, (low + high) / 2, high)
    if len(lesion):
        first, last = bounds(lesion, back)
        if (last - first > 2 * half).any():
            first = last = back @ lesion[rng.integers(len(lesion))]
        low, high = np.clip([last - half, first + half], low, high)
    middle = low + rng.random(2) * (high - low)
    y, x = np.rint(turn @ middle - half).astype(int).tolist()
    return y, x


def bounds(points, back):
    seen = points @ back.T
    return seen.min(0), seen.max(0)


class HalfInsideTheMask:
    """DeepMedic: every other patch around a lesion voxel, the others around background of the mask.

    Args:
        weights: ``(case, label)`` to two arrays of the label's shape, how likely each voxel is for a lesion and for a
            background patch; None for all voxels alike.
    """

    def __init__(self, cases, weights=None):
        self._cases, self._weights, self._known = cases, weights, {}

    @property
    def pass_length(self):
        return len(self._cases.names)

    def place(self, epoch, index, matrix):
        rng = generator(Purpose.CROP, (*self._cases.seed_key, epoch, index))
        case = self._cases.names[rng.integers(len(self._cases.names))]
        kinds = self._voxels(case)
        forced = index % 2 == 0 and len(kinds[0][0]) > 0
        voxels, ends = kinds[0] if forced else kinds[1]
        size = self._cases.patch_size(case)
        voxel = geometry.as_voxel(voxels[int(np.searchsorted(ends, rng.random() * ends[-1], side="right"))])
        start = geometry.start_that_shows(voxel, [n // 2 for n in size], matrix, size)
        return Place(case, forced, voxel if forced else None, start, size)

    def _voxels(self, case):
        """Lesion and background: the voxels that have a weight, and the running sums of these."""
        if case not in self._known:
            label = np.asarray(self._cases.arrays(case)[1])
            weights = self._weights(case, label) if self._weights else (label > 0, label == 0)
            self._known[case] = [(np.argwhere(w > 0), np.cumsum(w[w > 0], dtype=float)) for w in weights]
        return self._known[case]


def error_weights(probability, label):
    """How likely each voxel is a centre, by the squared error of an earlier prediction: for lesion, for background.

    The errors inside the mask (label not -1) are z-scored and lifted to 0; each weight sums up to 1.
    """
    inside = label >= 0
    error = (np.asarray(probability, float) - (label > 0)) ** 2
    z = (error - error[inside].mean()) / max(error[inside].std(), 1e-12)
    lifted = np.where(inside, z - z[inside].min(), 0)
    parts = [np.where(part, lifted, 0) for part in (label > 0, label == 0)]
    parts = [w if w.any() else part * 1.0 for w, part in zip(parts, (label > 0, label == 0), strict=True)]
    return [w / max(w.sum(), 1e-12) for w in parts]


class ErrorMaps(HalfInsideTheMask):
    """The same by error maps: ``folder/CASE.npy``, the lesion's probability ``[z, y, x]`` on the working grid."""

    def __init__(self, cases, folder):
        super().__init__(
            cases, lambda case, label: error_weights(np.load(Path(folder) / f"{case}.npy"), label)
        )


# --------------------------------------------------------------------------------------------- what learns numbers

MODES = ("base", "tht0", "tht1", "fh")


def decide(case, mode="base", tht0=0.5, tht1=0.5, iterations=1.0, radius=3):
    """One of the four decisions of the DeepMedic study; what the three need is learned at once."""
    if mode not in MODES:
        raise ValueError(f"mode is one of {', '.join(MODES)}, found {mode}")
    if mode == "base":
        return case
    if mode == "fh":
        return replace(case, mask=closed(case.mask > 0, int(iterations), radius).astype(np.uint8))
    above = tht0 if mode == "tht0" else tht1
    return replace(case, mask=(case.probabilities[1] >= np.float32(above)).astype(np.uint8))


def fit_decision(cases, labels, mode="base", radius=3, most=10):
    """Thresholds over all voxels of all cases; the iterations that suit each case best, their mean rounded down."""
    truths, scores, iterations = [], [], []
    for entry in cases:
        truth = entry.truth > 0
        truths.append(truth.ravel())
        scores.append(entry.case.probabilities[1].ravel())
        found = [dice(closed(entry.case.mask > 0, n, radius), truth) for n in range(1, most + 1)]
        iterations.append(int(np.argmax(found)) + 1)
    tht0, tht1 = thresholds(np.concatenate(truths), np.concatenate(scores))
    return {"tht0": tht0, "tht1": tht1, "iterations": float(np.mean(iterations) // 1)}


def thresholds(truth, score):
    """The largest thresholds with the largest precision times recall, and with the largest TPR - FPR (score >= t)."""
    rows = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[rows])), len(rows) - 1)
    true = np.cumsum(truth[rows])[last].astype(float)
    positives, negatives = max(int(truth.sum()), 1), max(int((~truth).sum()), 1)
    product = true / (last + 1) * true / positives
    youden = true / positives - (last + 1 - true) / negatives
    return tuple(float(score[rows][last[int(np.argmax(np.round(curve, 12)))]]) for curve in (product, youden))


def closed(mask, iterations, radius=3):
    """Closing by a ball, with a border wide enough that none of the mask is lost to it."""
    grid = np.indices((2 * radius + 1,) * 3) - radius
    ball, rim = (grid**2).sum(0) <= radius**2, radius * iterations
    padded = ndimage.binary_closing(np.pad(mask, rim), ball, iterations)
    return padded[tuple(slice(rim, rim + n) for n in mask.shape)]


def dice(found, truth):
    total = int(found.sum()) + int(truth.sum())
    return 2 * int((found & truth).sum()) / total if total else 1.0


TRAINER = Trainer(
    "three_papers",
    "stand-ins for Brain SegNet, DeepMedic and 3D-ResU-Net",
    networks=(
        NetworkPart("tiny_brainsegnet", TinyBrainSegNet, divisor=(1, 8, 8)),
        NetworkPart("tiny_deepmedic", TinyDeepMedic, context=context_of_deepmedic),
        NetworkPart("tiny_resunet", TinyResUNet),
    ),
    losses=(LossPart("focal", Focal), LossPart("bce_dice", BceDice)),
    optimisers=(OptimiserPart("normalised_rmsprop", NormalisedRMSprop),),
    schedules=(SchedulePart("exponential_with_momentum", exponential_with_momentum),),
    samplers=(
        SamplerPart("sub_volumes", SubVolumes, outside="minimum"),
        SamplerPart("half_inside_the_mask", HalfInsideTheMask, needs_lesions=True),
        SamplerPart("error_maps", ErrorMaps, needs_lesions=True),
    ),
    transforms=(TransformPart("scale_planes", draw_scale, affine=scaled_planes),),
    steps=(StepPart("study_decision", decide, needs=("probabilities",), fit=fit_decision),),
)

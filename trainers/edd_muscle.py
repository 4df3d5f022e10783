"""EDD Net finds lesions, MUSCLE Net judges the small ones (Chen, Bentley and Rueckert 2017).

Networks and losses are registered; here is what the two have to do with each other: the second learns from what the
first finds in the training cases, and refines what it predicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from autoseg.networks import edd_muscle, edd_muscle_baselines
from autoseg.plugins.parts import Companion, SourcePart, StepPart
from autoseg.plugins.trainer import Trainer
from autoseg.trainers import _edd_muscle_judging as judging
from autoseg.trainers._edd_muscle_candidates import FALSE, REAL, CandidateSource, lesion_probability, windows
from autoseg.trainers._edd_muscle_losses import LOSSES

KEY = "muscle"
"""Of MUSCLE Net in ``Plan.networks``."""
AT_ONCE = 1024  # patches in one pass of MUSCLE Net
SMALLEST = 1e-7  # probabilities stay so far from 0 and 1 that their logits are finite


def judge_candidates(
    logits: torch.Tensor,
    image: torch.Tensor,
    companions: Mapping[str, Companion],
    *,
    rule: str = "peak",
    threshold: float = 0.5,
    largest_px: int = judging.LARGEST_PX,
    connectivity: int = 8,
    prior: float = 0.5,
) -> torch.Tensor:
    """MUSCLE Net's judgement of every small component, fused into the logits of its pixels.

    A post-processing step on logits ``[2, z, y, x]`` and image ``[c, z, y, x]``, see
    :class:`autoseg.plugins.parts.StepPart`. Nothing changes where MUSCLE Net had nothing to learn from.

    Args:
        rule, prior: see :func:`autoseg.trainers._edd_muscle_judging.fuse`.
        threshold, largest_px, connectivity: see :func:`autoseg.trainers._edd_muscle_judging.find_candidates`.
    """
    companion = companions[KEY]
    n_real, n_false = (companion.facts.get(name, 0) for name in (REAL, FALSE))
    probability = lesion_probability(logits)
    candidates = judging.find_candidates(probability, threshold, largest_px, connectivity)
    if not (n_real and n_false and len(candidates)):
        return logits
    seen = windows(companion.arguments)
    patches = judging.cut_patches(image.numpy(), probability, candidates.centres, **seen)
    q = judging.correct_prior(judgements(companion.network, patches), n_real, n_false)
    return with_probability(logits, candidates.pixels, judging.fuse(probability, candidates, q, rule, prior))


def with_probability(
    logits: torch.Tensor, pixels: Sequence[np.ndarray], probability: np.ndarray
) -> torch.Tensor:
    """Logits ``[2, z, y, x]`` that stand for other probabilities ``[m]`` of lesion at some pixels (z, y, x)."""
    p = torch.from_numpy(probability).float().double().clamp(SMALLEST, 1 - SMALLEST)
    changed, where = logits.clone(), tuple(map(torch.from_numpy, pixels))
    changed[0][where], changed[1][where] = (1 - p).log().float(), p.log().float()
    return changed


def judgements(network: nn.Module, patches: np.ndarray) -> np.ndarray:
    """The probability ``[n]`` of each patch ``[n, c, size, size]`` that its candidate is real."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        logits = [network(part.to(device)).float().cpu() for part in torch.from_numpy(patches).split(AT_ONCE)]
    return torch.cat(logits).softmax(1)[:, 1].numpy().astype(np.float64)


TRAINER = Trainer(
    name="edd_muscle",
    preset="edd_muscle",
    summary="EDD Net and MUSCLE Net for acute lesions in DWI, and the networks they were compared with",
    networks=(*edd_muscle.NETWORKS, *edd_muscle_baselines.NETWORKS),
    losses=LOSSES,
    sources=(
        SourcePart(
            "candidates", CandidateSource, CandidateSource.check, "small findings of an earlier stage"
        ),
    ),
    steps=(
        StepPart(
            "muscle",
            judge_candidates,
            on="logits",
            networks=(KEY,),
            summary="MUSCLE Net's judgement of small components",
        ),
    ),
)

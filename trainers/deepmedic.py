"""DeepMedic and the study of enhanced learning: network, optimiser, schedule and sampling; the plan holds the rest."""

from __future__ import annotations

from autoseg.networks import deepmedic
from autoseg.plugins.trainer import Trainer
from autoseg.trainers._deepmedic_optimisation import OPTIMISERS, SCHEDULES
from autoseg.trainers._deepmedic_sampling import SAMPLERS

TRAINER = Trainer(
    name="deepmedic",
    preset="deepmedic",
    summary="DeepMedic, two resolutions, for stroke on perfusion maps",
    networks=deepmedic.NETWORKS,
    optimisers=OPTIMISERS,
    schedules=SCHEDULES,
    samplers=SAMPLERS,
)

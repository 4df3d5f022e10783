"""DeepMedic and the study of enhanced learning: network, optimiser and schedule; the plan holds the rest."""

from __future__ import annotations

from autoseg.networks import deepmedic
from autoseg.plugins.trainer import Trainer
from autoseg.trainers._deepmedic_optimisation import OPTIMISERS, SCHEDULES

TRAINER = Trainer(
    name="deepmedic",
    summary="DeepMedic, two resolutions, for stroke on perfusion maps",
    networks=deepmedic.NETWORKS,
    optimisers=OPTIMISERS,
    schedules=SCHEDULES,
)

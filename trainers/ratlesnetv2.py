"""RatLesNetv2 and its comparators: the networks and losses are registered; the plan holds the rest of the recipe."""

from __future__ import annotations

from autoseg.plugins.trainer import Trainer
from autoseg.trainers._ratlesnetv2_weights import IMPORT

TRAINER = Trainer(
    name="ratlesnetv2",
    summary="RatLesNetv2, its ablations and the networks it was compared with",
    import_weights=IMPORT,
)

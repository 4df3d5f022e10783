"""RatLesNetv2 and its comparators: networks, losses and the authors' weights; the plan holds the rest of the recipe."""

from __future__ import annotations

from autoseg.networks import ratlesnet, ratlesnetv2, unet3d, voxresnet
from autoseg.plugins.trainer import Trainer
from autoseg.trainers._ratlesnetv2_losses import LOSSES
from autoseg.trainers._ratlesnetv2_weights import IMPORT

TRAINER = Trainer(
    name="ratlesnetv2",
    preset="ratlesnetv2",
    summary="RatLesNetv2, its ablations and the networks it was compared with",
    networks=(*ratlesnetv2.NETWORKS, *ratlesnet.NETWORKS, *voxresnet.NETWORKS, *unet3d.NETWORKS),
    losses=LOSSES,
    import_weights=IMPORT,
)

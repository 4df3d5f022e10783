"""How much memory a training takes, from what was counted in its network: the arithmetic that the families share."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_MEMORY_GB = 8.0
"""Where the user does not say how much there is."""

BYTES = 4  # float32
SGD_COPIES = 3  # the weights, their gradients and the momentum
ADAM_COPIES = 4  # the weights, their gradients and the two moments


@dataclass(frozen=True)
class Cost:
    """What training a network takes, as counted at one width (benchmarks/live_memory.py).

    Attributes:
        elements_per_voxel: float32 elements that training one voxel of a batch needs at the peak, the loss included;
            in proportion to the width within 2 %.
        parameters: weights; in proportion to the width's square.
        width: at which both were counted.
        weight_copies: how often the weights are there with their optimiser, see :data:`SGD_COPIES`.
    """

    elements_per_voxel: float
    parameters: int
    width: int
    weight_copies: int

    def gb(self, voxels: int, width: int, share: float = 1) -> float:
        """Memory of a training step in 1e9 bytes.

        Args:
            voxels: of the whole batch.
            width: of the network.
            share: of the activations that is kept; the others are computed again.
        """
        wider = width / self.width
        activations = self.elements_per_voxel * wider * voxels * share
        return (activations + self.weight_copies * self.parameters * wider**2) * BYTES / 1e9

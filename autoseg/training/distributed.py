"""Several devices by torchrun: who am I, gather, agree to stop."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from autoseg.device import has_float64, is_card
from autoseg.errors import AutosegError

# The others wait while rank 0 validates; NCCL would give up after 10 minutes. torchrun ends them when one dies.
PATIENCE = timedelta(hours=4)


@dataclass(frozen=True)
class World:
    """The processes of one training.

    Attributes:
        rank: of this process, 0 to size - 1; rank 0 writes files and messages.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all."""
        if self.size > 1:
            dist.barrier()

    def lead(self, work: Callable[[], None], device: torch.device) -> None:
        """Let the process that leads work while the others wait; when it cannot, all stop.

        Raises:
            AutosegError: what went wrong there; in the other processes, that something did.
        """
        error: AutosegError | None = None
        if self.leads:
            try:
                work()
            except AutosegError as caught:
                error = caught
        if self.any(error is not None, device):
            raise error or AutosegError(
                f"process {self.rank} of {self.size} ends because process 0 cannot start",
                fix="read the message of process 0",
            )

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether any process says so."""
        if self.size == 1:
            return flag
        value = torch.tensor(float(flag), device=device)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return bool(value.item())

    def mean(self, value: float, device: torch.device) -> float:
        """The mean over all processes."""
        if self.size == 1:
            return value
        dtype = torch.float64 if has_float64(device) else torch.float32
        tensor = torch.tensor(value, dtype=dtype, device=device)
        dist.all_reduce(tensor)
        return float(tensor.item()) / self.size

    def check_same(self, numbers: Sequence[int], device: torch.device, *, what: str, where: str) -> None:
        """Every process must come to these numbers, or the processes would wait for each other for ever.

        Args:
            numbers: as many in all processes.
            device: of this process.
            what, where: for the message.

        Raises:
            AutosegError: they differ; in all processes.
        """
        if self.size == 1:
            return
        lowest = torch.tensor(list(numbers), dtype=torch.int64, device=device)
        highest = lowest.clone()
        dist.all_reduce(lowest, dist.ReduceOp.MIN)
        dist.all_reduce(highest, dist.ReduceOp.MAX)
        if not torch.equal(lowest, highest):
            raise AutosegError(
                f"the processes do not agree on {what}",
                where=where,
                found=f"{lowest.tolist()} to {highest.tolist()}",
                expected="the same numbers in all processes",
                fix="use devices of one kind, or continue with one process by --c, without torchrun",
            )

    def wrap(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network with gradients averaged over all processes; batch statistics are shared too."""
        if self.size == 1:
            return network
        cards = is_card(device)
        if cards:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return nn.parallel.DistributedDataParallel(
            network,
            device_ids=[device.index] if cards else None,
            broadcast_buffers=not cards,  # shared statistics are the same everywhere already
            gradient_as_bucket_view=True,
        )

    def check_batch(self, batch_size: int, stage: str) -> None:
        """Every process must get the same share of a batch, or the mean gradient would be biased.

        Raises:
            AutosegError: the batch does not divide.
        """
        if batch_size % self.size:
            raise AutosegError(
                "the batch cannot be shared evenly",
                where=f"stage {stage}",
                found=f"batch size {batch_size} on {self.size} processes",
                expected=f"a multiple of {self.size}",
                fix=f"--set stages.{stage}.batch_size=... when planning, or start fewer processes with torchrun",
            )


@contextlib.contextmanager
def world(device: torch.device) -> Iterator[World]:
    """The processes that torchrun started, or this one alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    if is_card(device):
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if is_card(device) else "gloo", timeout=PATIENCE)
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()

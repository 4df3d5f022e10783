"""The pretended card itself: what it catches, and that its numbers are the CPU's."""

import pretend_card
import pytest
import torch
from pretend_card import OnCard
from torch import nn

pytestmark = pytest.mark.skipif(bool(pretend_card.missing()), reason=pretend_card.missing())


@pytest.fixture
def card():
    with pretend_card.pretend_card() as record:
        yield record


def test_tensors_say_where_they_lie(card):
    x = torch.arange(4.0).to("cuda")
    assert isinstance(x, OnCard) and x.device == torch.device("cuda", 0)
    assert (x * 2 + 1).device.type == "cuda"
    assert (x * 2 + 1).cpu().tolist() == [1, 3, 5, 7]


@pytest.mark.parametrize(
    "mixed",
    [
        lambda a, b: a + b,
        lambda a, b: torch.stack([a, b]),
        lambda a, b: a.add_(b),
        lambda a, b: nn.functional.linear(b[None], a[None]),
        lambda a, b: nn.functional.conv1d(b[None, None], a[None, None, :1]),
    ],
)
def test_tensors_of_both_devices_are_refused(card, mixed):
    with pytest.raises(RuntimeError, match="same device"):
        mixed(torch.ones(4, device="cuda"), torch.ones(4))


def test_single_numbers_and_indices_may_come_from_the_cpu(card):
    x = torch.arange(4.0, device="cuda")
    assert (x * torch.tensor(2.0)).cpu().tolist() == [0, 2, 4, 6]
    assert x[torch.tensor([3, 1])].cpu().tolist() == [3, 1]


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x.cpu(),
        lambda x: x[x > 1],
        lambda x: x.nonzero(),
        lambda x: float(x[0]),
    ],
)
def test_waits_are_counted(card, wait):
    x = torch.arange(4.0, device="cuda")
    card.clear()
    wait(x)
    assert sum(card.waits.values()) == 1


def test_work_alone_waits_for_nothing(card):
    x = torch.arange(8.0).pin_memory().to("cuda", non_blocking=True)
    card.clear()
    nn.functional.relu(x.view(2, 4) @ x.view(4, 2)).softmax(0)
    assert not card.waits and not card.blocking and card.kernels


@pytest.mark.parametrize(
    ("pin", "ask", "blocks"), [(True, True, 0), (True, False, 1), (False, True, 1), (False, False, 1)]
)
def test_copies_block_unless_page_locked_and_asked_not_to(card, pin, ask, blocks):
    x = torch.ones(4)
    (x.pin_memory() if pin else x).to("cuda", non_blocking=ask)
    assert sum(card.blocking.values()) == blocks


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4, affine=True), nn.LeakyReLU(inplace=True),
        nn.MaxPool3d(2), nn.Conv3d(4, 2, 1),
    )  # fmt: skip


def _two_steps(device: str) -> list[torch.Tensor]:
    network = _network().to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.1)
    x = torch.linspace(-1, 1, 2 * 4**3).view(2, 1, 4, 4, 4).to(device)
    for _ in range(2):
        optimiser.zero_grad()
        network(x).square().mean().backward()
        optimiser.step()
    return [p.detach().cpu() for p in network.parameters()]


def test_training_steps_are_those_of_the_cpu(card):
    assert all(torch.equal(a, b) for a, b in zip(_two_steps("cuda"), _two_steps("cpu"), strict=True))


def test_nothing_is_left_of_it():
    with pretend_card.pretend_card():
        pass
    assert not torch.cuda.is_available()
    with pytest.raises((RuntimeError, AssertionError)):
        torch.ones(1, device="cuda")
    x = torch.ones(2, requires_grad=True)
    (x * 3).sum().backward()
    assert x.grad.tolist() == [3, 3]

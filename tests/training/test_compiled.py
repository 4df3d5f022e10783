"""A network that cannot be compiled is trained all the same."""

import pytest
import torch
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed

from autoseg.bundle.weights import plain_name
from autoseg.training.compiled import Compiled

IMAGE = torch.linspace(-1, 1, 16).view(1, 1, 4, 4)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Dropout(0.5))


def test_a_compiled_network_is_the_network(monkeypatch):
    compile_it = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: compile_it(module, backend="aot_eager"))
    plain, made = network().eval(), Compiled(network()).eval()
    assert torch.equal(made(IMAGE), plain(IMAGE))
    assert [plain_name(name) for name in made.state_dict()] == list(plain.state_dict())
    made.train()
    assert made._orig_mod[1].training  # its mode follows


def test_where_it_cannot_be_compiled_that_is_said_once(monkeypatch, caplog):
    def no_compiler(module):
        def run(*inputs):
            raise BackendCompilerFailed(lambda: None, RuntimeError("no C++ compiler"), [])

        return run

    monkeypatch.setattr(torch, "compile", no_compiler)
    plain, made = network().eval(), Compiled(network()).eval()
    for _ in range(2):
        assert torch.equal(made(IMAGE), plain(IMAGE))
    assert caplog.text.count("the network cannot be compiled here and runs as it is") == 1
    made(IMAGE).sum().backward()
    assert made._orig_mod[0].weight.grad is not None


def test_what_is_wrong_with_the_input_is_not_the_compilers_fault(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda module: module.forward)
    with pytest.raises(RuntimeError, match="expected input"):
        Compiled(network())(torch.zeros(1, 3, 4, 4))

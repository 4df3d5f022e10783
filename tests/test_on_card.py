"""Everything that computes, on a pretended card: the numbers are the CPU's, and nothing waits where it need not."""

import gc
import shutil
from pathlib import Path

import network_cases
import pretend_card
import pytest
import runs
import small
import torch
from pretend_card import OnCard

from autoseg import plugins
from autoseg.bundle import weights
from autoseg.cli import plan_and_preprocess, predict, train
from autoseg.device import choose_device, send
from autoseg.errors import AutosegError
from autoseg.files import read_model
from autoseg.inference.predictor import Predictor
from autoseg.inference.predictor import predict as predict_image
from autoseg.inference.tiling import predict_logits
from autoseg.labels import LabelSet
from autoseg.plan import Inference, Plan
from autoseg.training import losses, optimisers
from autoseg.training.stage import CHECK_EVERY

pytestmark = pytest.mark.skipif(bool(pretend_card.missing()), reason=pretend_card.missing())
BINARY = LabelSet.from_labels({"background": 0, "lesion": 1})


@pytest.fixture
def card():
    with pretend_card.pretend_card() as record:
        yield record


OTHERWISE_ON_A_CPU = ("deepmedic",)
"""Networks that predict there in another order of sums, because it is faster."""


def first(outputs):
    return outputs[0] if isinstance(outputs, (list, tuple)) else outputs


def learn(name: str, variant: dict, device: str) -> dict[str, torch.Tensor]:
    """Two steps, then a prediction: weights and outputs."""
    network = network_cases.make(name, variant).to(device).train()
    batch = network_cases.image(name, variant, batch=2).to(device)
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3)
    for step in range(2):
        torch.manual_seed(step)
        optimiser.zero_grad(set_to_none=True)
        outputs = network(batch)
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        pretend_card.backward(sum(output.float().square().mean() for output in outputs))
        optimiser.step()
    with torch.no_grad():
        predicted = first(network.eval()(batch))
    return {
        name: value.detach().cpu() for name, value in [*network.state_dict().items(), ("output", predicted)]
    }


@pytest.mark.parametrize(("name", "variant"), network_cases.CASES)
def test_every_network(card, name, variant):
    on_card, on_cpu = learn(name, variant, "cuda"), learn(name, variant, "cpu")
    differing = [key for key in on_cpu if not torch.equal(on_card[key], on_cpu[key])]
    if name in OTHERWISE_ON_A_CPU and differing == ["output"]:
        torch.testing.assert_close(on_card["output"], on_cpu["output"])
        return
    assert not differing


@pytest.mark.parametrize(("name", "variant"), network_cases.CASES)
def test_no_network_waits_for_the_card(card, name, variant):
    network = network_cases.make(name, variant).to("cuda").train()
    batch = network_cases.image(name, variant, batch=2).to("cuda")
    card.clear()
    outputs = network(batch)
    first(outputs).float().square().mean().backward()
    assert not card.waits and not card.blocking


@pytest.mark.parametrize("name", losses.REGISTRY.names())
def test_every_loss(card, name):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 4, 4, 4, generator=generator)
    target = torch.randint(0, 2, (2, 4, 4, 4), generator=generator)
    found = []
    for device in ("cpu", "cuda"):
        loss = losses.build(name, labels=BINARY)
        loss = loss.to(device) if isinstance(loss, torch.nn.Module) else loss
        given = logits.clone().to(device).requires_grad_()
        wanted = target.to(device)
        card.clear()
        value = loss(given, wanted)
        pretend_card.backward(value)
        assert not card.waits and not card.blocking
        found.append((value.detach().cpu(), given.grad.cpu()))
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


@pytest.mark.parametrize("name", optimisers.REGISTRY.names())
def test_every_optimiser(card, name):
    found = []
    for device in ("cpu", "cuda"):
        weights = torch.nn.Parameter(torch.linspace(-1, 1, 8).to(device))
        optimiser = optimisers.REGISTRY.build(name, [weights], lr=0.1)
        waits = 0
        for step in range(3):
            weights.grad = torch.linspace(1, step, 8).to(device)
            card.clear()
            optimiser.step()
            waits += sum(card.waits.values())
        assert not waits
        found.append(weights.detach().cpu())
    assert torch.equal(*found)


# ------------------------------------------------------------------------------------------------ whole trainings

SAME_AS_ON_THE_CPU = [
    "precision=float32",
    "stages.0.augmentation.backend=torch",
    "stages.0.augmentation.arguments.noise_p=0",  # drawn on the card itself
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        return runs.prepare(patch, tmp_path_factory.mktemp("card"))


def trained(patch, prepared: Path, to: Path, device: str, *settings: str) -> Path:
    root = runs.copied(patch, prepared, to)
    options = ["-device", device, "-workers", "0", "--set", *SAME_AS_ON_THE_CPU, *settings]
    assert train.main(["1", "0", *options]) == 0
    return root


@pytest.fixture(scope="module")
def on_cpu(prepared, tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        return trained(patch, prepared, tmp_path_factory.mktemp("cpu") / "work", "cpu")


def test_a_training_ends_with_the_weights_of_the_cpu(card, prepared, on_cpu, tmp_path, monkeypatch):
    root = trained(monkeypatch, prepared, tmp_path / "work", "cuda")
    assert runs.same(runs.final(root), runs.final(on_cpu))


def test_a_training_that_was_stopped_goes_on_exactly(card, prepared, on_cpu, tmp_path, monkeypatch):
    root = runs.copied(monkeypatch, prepared, tmp_path / "work")
    options = ["1", "0", "-device", "cuda", "-workers", "0"]
    with monkeypatch.context() as patch:
        runs.stop_after(patch, 6)
        assert train.main([*options, "--set", *SAME_AS_ON_THE_CPU]) != 0
    assert train.main([*options, "--c"]) == 0
    assert runs.same(runs.final(root), runs.final(on_cpu))


def test_a_step_neither_waits_nor_copies_in_a_way_that_waits(card, prepared, tmp_path, monkeypatch):
    """Only the look at the losses waits, and it comes after CHECK_EVERY iterations."""
    counted = []
    for n in (2, CHECK_EVERY):
        card.clear()
        trained(monkeypatch, prepared, tmp_path / str(n), "cuda", f"stages.0.iterations_per_epoch={n}")
        counted.append((card.waits.copy(), card.blocking.copy()))
    assert counted[0] == counted[1]


def test_a_prediction_waits_once_for_each_case(card, on_cpu, tmp_path, monkeypatch):
    root = runs.copied(monkeypatch, on_cpu, tmp_path / "work")
    model, images = runs.fold(root).parent, tmp_path / "images"
    images.mkdir()
    counted = []
    for number in range(2):
        shutil.copy(
            next((root / "raw" / small.NAME / "imagesTs").iterdir()), images / f"x{number}_0000.nii.gz"
        )
        card.clear()
        out = tmp_path / f"out{number}"
        assert predict.main(["-i", str(images), "-o", str(out), "-m", str(model), "-device", "cuda"]) == 0
        counted.append(sum(card.waits.values()))
    assert counted[1] == counted[0] + 1


@pytest.mark.parametrize(("free", "copied"), [(pretend_card.FREE_BYTES, False), (100, True)])
def test_members_lie_on_the_card_while_they_fit(card, tmp_path, monkeypatch, model_folder, free, copied):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (free, free))
    folder = model_folder.make_model(tmp_path, (0.3, 0.4, 0.8))
    image = torch.rand(1, 6, 20, 17, generator=torch.Generator().manual_seed(0)).numpy()
    float32 = {"precision": "float32"}
    predictor = Predictor(folder, device="cuda", mirror=False, overrides=float32)
    card.clear()
    mask = predict_image(predictor, image, (2.0, 1.0, 1.0))
    assert any(place.startswith("weights.py") for _, place in card.blocking) is copied
    expected = predict_image(Predictor(folder, device="cpu", mirror=False), image, (2.0, 1.0, 1.0))
    assert mask.any() and (mask == expected).all()


def _alike(plan: Plan) -> list[str]:
    """Two iterations of each stage, and nothing drawn on the card itself."""
    settings = []
    for stage in plan.recipe.stages:
        settings.append(f"stages.{stage.name}.augmentation.backend=torch")
        if stage.augmentation.name == "nnunet":
            settings.append(f"stages.{stage.name}.augmentation.arguments.noise_p=0")
        if stage.sampling.name != "candidates":
            settings.append(f"stages.{stage.name}.iterations_per_epoch=2")
    return settings


FAMILY = ["planner.length=quick", "epochs=1", "validation.every=1", "validation.cases=1", "precision=float32"]


@pytest.mark.parametrize("planner", plugins.names(plugins.PLANNERS))
def test_every_family_ends_with_the_weights_of_the_cpu(planner, tmp_path, monkeypatch):
    """Sources, augmentation, validation, refinements and post-processing with it; without dropout, which is drawn by
    iteration on a card and by epoch on a CPU."""
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, x: x)
    raw = small.dataset(tmp_path / "raw", n=5, n_test=1)
    runs.set_folders(monkeypatch, tmp_path)
    assert plan_and_preprocess.main(["-d", "1", "-pl", planner, "-p", "p", "-np", "1", "--set", *FAMILY]) == 0
    plan = read_model(tmp_path / "preprocessed" / raw.name / "p" / "plan.json", Plan)
    short = _alike(plan)
    found = []
    for device in ("cpu", "cuda"):
        monkeypatch.setenv("autoseg_results", str(tmp_path / device))
        with (
            pretend_card.pretend_card()
        ):  # for both: torch's own backward pass adds branches up in another order
            assert train.main(["1", "0", "-p", "p", "-device", device, "-workers", "0", "--set", *short]) == 0
        files = sorted((tmp_path / device).rglob("*.safetensors"))
        found.append({path.name: weights.read(path).tensors for path in files if "weights" in path.parts})
    assert found[0] and found[0].keys() == found[1].keys()
    assert not [name for name in found[0] if not runs.same(found[0][name], found[1][name])]


# ------------------------------------------------------------------------------------------------ faults of cards


class FullAtFirst(torch.nn.Module):
    """Says that memory ran out, then asks who still holds the sums of the first try."""

    def __init__(self) -> None:
        super().__init__()
        self.tries, self.alive = 0, []

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Zeros."""
        self.tries += 1
        if self.tries == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.alive.append(
            len([t for t in gc.get_objects() if type(t) is OnCard and t.shape == (2, 12, 12, 12)])
        )
        return tiles.new_zeros(len(tiles), 2, *tiles.shape[2:])


def test_a_full_card_is_emptied_before_the_second_try(card):
    network, image = FullAtFirst(), torch.zeros(1, 12, 12, 12)
    logits = predict_logits(network, image, Inference(patch_size=[8, 8, 8]), 2, "cuda", mirror=False)
    assert logits.shape == (2, 12, 12, 12) and network.tries > 1
    assert network.alive == [0] * (network.tries - 1)


def test_a_card_without_bfloat16_goes_on_from_one_with_it(prepared, tmp_path, monkeypatch, caplog):
    root = runs.copied(monkeypatch, prepared, tmp_path / "work")
    options = ["1", "0", "-device", "cuda", "-workers", "0"]
    with pretend_card.pretend_card(), monkeypatch.context() as patch:
        runs.stop_after(patch, 6)
        assert train.main(options) != 0
    with pretend_card.pretend_card(has_bfloat16=False):
        assert train.main([*options, "--c"]) == 0
    assert "continued with other precision float16 (before: bfloat16)" in caplog.text
    assert len(runs.log(root)) == 3


@pytest.mark.parametrize(
    ("name", "environment", "message"),
    [
        ("cuda:1", {}, r"cuda:1: there is no such card here[\s\S]*1 card[\s\S]*cuda:0"),
        ("cuda:x", {}, r"cuda:x: there is no such card here"),
        (
            "cuda",
            {"WORLD_SIZE": "2", "LOCAL_RANK": "1"},
            r"no such card here[\s\S]*process 1[\s\S]*fewer processes",
        ),
        ("cuda:0", {"WORLD_SIZE": "2", "LOCAL_RANK": "1"}, r"several processes cannot share one card"),
    ],
)
def test_cards_that_are_not_there(card, monkeypatch, name, environment, message):
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(AutosegError, match=message):
        choose_device(name)


def test_memory_that_cannot_be_page_locked_is_used_as_it_is(card, monkeypatch):
    def refused(self, device=None):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.Tensor, "pin_memory", refused)
    assert send(torch.arange(3), torch.device("cuda")).cpu().tolist() == [0, 1, 2]

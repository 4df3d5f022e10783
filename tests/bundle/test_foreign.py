"""Weights from elsewhere: read without running code, recognised, written as a model; everything else is refused."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import SimpleITK as sitk
import small
import torch

from autoseg import messages, networks, plugins
from autoseg.bundle import transfer
from autoseg.bundle.foreign import import_weights, read_state, recognise
from autoseg.bundle.opening import read_plan
from autoseg.cli import import_weights as command
from autoseg.cli import predict
from autoseg.errors import AutosegError, FaultsError
from autoseg.plugins.parts import WeightsImport
from autoseg.plugins.trainer import Trainer


def make(name: str = "ratlesnetv2", seed: int = 0, in_channels: int = 1, out_channels: int = 2, **arguments):
    """A network with random weights; narrow, to be fast."""
    torch.manual_seed(seed)
    arguments = {"width": 4, **arguments}
    return networks.build(name, in_channels=in_channels, out_channels=out_channels, **arguments)


def save(path: Path, state: object, legacy: bool = True) -> Path:
    """As the authors saved theirs: the format of torch before 1.6."""
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """Three runs of one network."""
    return [save(tmp_path / f"model-{i}", make(seed=i).state_dict()) for i in (1, 2, 3)]


class Runs:
    """Something that leaves a trace when a pickle of it is opened."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.trace),)


# ------------------------------------------------------------------------------------------------ what is made


@pytest.mark.parametrize("legacy", [True, False])
def test_a_model_is_made_and_predicts(tmp_path, legacy):
    state = make().state_dict()
    path = save(tmp_path / "weights.pt", state, legacy)
    image, _ = small.case(0)
    small.write(tmp_path / "rat.nii.gz", image[0])
    model = tmp_path / "model"
    assert command.main([str(path), "-o", str(model), "--license", "MIT"]) == 0
    words = [
        "-i",
        str(tmp_path / "rat.nii.gz"),
        "-o",
        str(tmp_path / "masks"),
        "-m",
        str(model),
        "-device",
        "cpu",
    ]
    assert predict.main(words) == 0
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "masks/rat.nii.gz"))).shape == image[0].shape


def test_the_weights_are_unchanged(three, tmp_path):
    from autoseg.bundle import weights

    import_weights(three, tmp_path / "model")
    for member, path in enumerate(three):
        file = weights.read(tmp_path / f"model/fold_all/weights/member{member}.train.safetensors")
        state = read_state(path)
        assert file.tensors.keys() == state.keys()
        assert all(torch.equal(file.tensors[name], state[name]) for name in state)
        assert file.info.member == member


def test_several_files_are_members_that_vote(three, tmp_path):
    card = import_weights(three, tmp_path / "model", licence="MIT")
    plan = read_plan(tmp_path / "model")
    assert plan.recipe.members == 3 and plan.recipe.fusion.name == "majority"
    assert [(f.member, f.name) for f in card.imported.files] == [(i, f"model-{i + 1}") for i in range(3)]
    assert card.licence == "MIT" and plan.in_channels == 1


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("ratlesnetv2", {"width": 5}),
        ("ratlesnetv2", {"levels": 2}),
        ("ratlesnetv2", {"block": "dense"}),
        ("ratlesnet", {}),
        ("voxresnet", {}),
        ("unet3d", {}),
    ],
)
def test_every_network_of_the_study_is_recognised_from_its_file(tmp_path, name, arguments):
    path = save(tmp_path / "file", make(name, **arguments).state_dict())
    trainer, weights = recognise(read_state(path), str(path))
    assert trainer.name == "ratlesnetv2" and weights.network.name == name
    assert {**weights.network.arguments, **arguments} == weights.network.arguments
    import_weights([path], tmp_path / "model")


def test_a_zip_can_be_imported_and_exported_and_keeps_its_origin(three, tmp_path):
    card = import_weights(three, tmp_path / "rats.zip", licence="MIT")
    folder = transfer.import_bundle(tmp_path / "rats.zip", tmp_path / "results")
    assert folder.name == "rats"
    again = transfer.export_bundle(folder, tmp_path / "again.zip")
    assert again.imported == card.imported and again.licence == "MIT"


def test_without_a_licence_the_card_says_so_and_so_does_the_command(three, tmp_path, capsys):
    assert command.main([str(three[0]), "-o", str(tmp_path / "model")]) == 0
    assert "give one with --license" in capsys.readouterr().err
    assert "not stated" in json.loads((tmp_path / "model/model_card.json").read_text())["licence"]


def test_an_even_number_of_members_is_warned_of(three, tmp_path):
    messages.forget_warnings()
    import_weights(three[:2], tmp_path / "model")
    assert "2 members can vote evenly; an even vote is background" in messages.warning_counts()


# ------------------------------------------------------------------------------------------- files to refuse


@pytest.mark.parametrize("legacy", [True, False])
def test_a_file_that_would_run_code_is_refused_and_does_not_run(tmp_path, legacy):
    trace = tmp_path / "trace"
    path = save(tmp_path / "file", {"conv1.weight": Runs(trace)}, legacy)
    with pytest.raises(AutosegError, match="would run code, so it was not opened") as error:
        read_state(path)
    assert "mkdir" in str(error.value) and not trace.exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_plain_pickle_is_not_opened(tmp_path, protocol):
    trace = tmp_path / "trace"
    (tmp_path / "file").write_bytes(pickle.dumps(Runs(trace), protocol))
    with pytest.raises(AutosegError, match="a pickle can run code"):
        read_state(tmp_path / "file")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"cos\nmkdir\n(S'trace'\ntR.", "is not a file of torch"),
        (b"some text", "is not a file of torch"),
        (b"\x1f\x8b\x08\x00", "is not a file of torch"),
        (b"\x80\x02\x8a\nl\xfc", "the file is truncated"),
        (b"PK\x03\x04 and nothing more", "truncated or damaged"),
    ],
)
def test_files_that_are_not_torchs(tmp_path, content, message):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(AutosegError, match=message):
        read_state(tmp_path / "file")


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_truncated_files(three, tmp_path, legacy, share):
    content = save(tmp_path / "whole", make().state_dict(), legacy).read_bytes()
    (tmp_path / "cut").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(AutosegError, match="truncated"):
        read_state(tmp_path / "cut")


def test_zips_that_are_something_else(three, tmp_path):
    with zipfile.ZipFile(tmp_path / "any.zip", "w") as archive:
        archive.writestr("a/readme.txt", "x")
    import_weights(three, tmp_path / "model.zip")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "script.pt"))
    for name, message in (
        ("any.zip", "is a zip file, but not one of torch"),
        ("model.zip", "is a model of autoseg already"),
        ("script.pt", "is a TorchScript program"),
    ):
        with pytest.raises(AutosegError, match=message):
            read_state(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(2)], "holds no weights"),
        (torch.zeros(2), "holds no weights"),
        ({}, "holds no weights"),
        (
            {"epoch": 3, "state_dict": {"a": torch.zeros(1)}},
            "2 of 2 entries are no plain tensors, such as epoch",
        ),
        ({"a": torch.zeros(3).to_sparse()}, "1 of 1 entries is no plain tensor"),
        ({"a": torch.tensor([1.0, float("nan")])}, "the weights hold NaN or Inf"),
    ],
)
def test_content_that_is_no_state_dict(tmp_path, content, message):
    with pytest.raises(AutosegError, match=message):
        read_state(save(tmp_path / "file", content))


def refused(tmp_path: Path, state: object) -> str:
    """The message for a state dict; nothing is written."""
    path = save(tmp_path / "file", OrderedDict(state))
    with pytest.raises(AutosegError) as error:
        import_weights([path], tmp_path / "model")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]
    return str(error.value)


def test_another_network(tmp_path):
    unet = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3), torch.nn.Conv3d(4, 2, 1))
    text = refused(tmp_path, unet.state_dict())
    assert "these are not weights of RatLesNetv2" in text and "0.weight" in text


def test_nearly_the_network_says_what_differs(tmp_path):
    state = make().state_dict()
    del state["block2.seq.2.bias"]
    text = refused(tmp_path, state)
    assert (
        "these are not the weights of a 'ratlesnetv2'" in text
        and "1 missing, such as block2.seq.2.bias" in text
    )
    state = make().state_dict() | {"extra": torch.zeros(1), "block3.seq.2.bias": torch.zeros(7)}
    text = refused(tmp_path, state)
    assert "1 unknown, such as extra" in text and "1 of another shape, such as block3.seq.2.bias" in text


@pytest.mark.parametrize("channels", [{"in_channels": 2}, {"out_channels": 3}])
def test_other_channels_or_classes(tmp_path, channels):
    assert "are for other channels or classes" in refused(tmp_path, make(**channels).state_dict())


def test_an_ensemble_is_of_one_network_and_of_different_runs(three, tmp_path):
    wide = save(tmp_path / "wide", make(width=6).state_dict())
    half = save(tmp_path / "half", make(levels=2).state_dict())
    with pytest.raises(FaultsError) as error:
        import_weights([*three, wide, half, three[0]], tmp_path / "model")
    text = str(error.value)
    assert "these 6 files are not one ensemble" in text and "width 6" in text and "levels 2" in text
    assert "the same weights twice" in text and str(three[1]) not in text
    assert not (tmp_path / "model").exists()


def test_the_reasons_of_all_families_are_said(tmp_path, monkeypatch):
    def refuse(state, where):
        raise AutosegError("these are not mine", where=where)

    other = Trainer(name="other", summary="", import_weights=WeightsImport(recognise=refuse, plan=None))
    load = plugins.load
    monkeypatch.setattr(plugins, "names", lambda group: ["other", "ratlesnetv2", "unet"])
    monkeypatch.setattr(plugins, "load", lambda group, name: other if name == "other" else load(group, name))
    with pytest.raises(FaultsError) as error:
        recognise({"a": torch.zeros(1)}, "file")
    assert [fault.where for fault in error.value.faults] == ["other", "ratlesnetv2"]
    assert recognise(make().state_dict(), "file")[0].name == "ratlesnetv2"


# -------------------------------------------------------------------------------------------------- the output


def test_an_output_is_replaced_only_when_asked_and_only_an_import(three, tmp_path):
    for output in (tmp_path / "model", tmp_path / "model.zip"):
        import_weights(three, output)
        with pytest.raises(AutosegError, match="the output is there already"):
            import_weights(three, output)
        card = import_weights(three[:1], output, overwrite=True)
        assert len(card.imported.files) == 1
    assert not list((tmp_path / "model").rglob("member1*"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").touch()
    with pytest.raises(AutosegError, match="is never overwritten"):
        import_weights(three, tmp_path / "mine", overwrite=True)


def test_a_name_that_no_bundle_can_have(three, tmp_path):
    with pytest.raises(AutosegError, match="cannot name a model"):
        import_weights(three, tmp_path / "my:model")


def test_a_missing_file(tmp_path, capsys):
    assert command.main([str(tmp_path / "none"), "-o", str(tmp_path / "model"), "--license", "MIT"]) == 1
    assert "there is no such file" in capsys.readouterr().err


def test_tensors_that_claim_more_than_the_file_has(tmp_path):
    """700 bytes that would be 40 GB: numbers shown many times, and a zip that grows when it is read."""
    save(tmp_path / "shared", {"conv1.weight": torch.zeros(1).expand(10**5, 10**5)}, legacy=False)
    with pytest.raises(AutosegError, match="tensors claim more numbers than the file has") as caught:
        read_state(tmp_path / "shared")
    assert "(100000, 100000)" in str(caught.value)
    save(tmp_path / "stored", {"conv1.weight": torch.zeros(10**6)}, legacy=False)
    with (
        zipfile.ZipFile(tmp_path / "stored") as source,
        zipfile.ZipFile(tmp_path / "packed", "w", 8) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(AutosegError, match=r"claims 4\d{6} bytes in a file of"):
        read_state(tmp_path / "packed")

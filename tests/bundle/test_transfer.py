"""Bundles: what is exported comes back, and what is hostile or damaged is refused with nothing left behind."""

import json
import os
import stat
import subprocess
import sys
import zipfile

import pytest
import torch

from autoseg.bundle.card import ModelCard, is_allowed, write_model_card
from autoseg.bundle.transfer import export_bundle, import_bundle, opened
from autoseg.cli import export_bundle as export_command
from autoseg.cli import import_bundle as import_command
from autoseg.errors import AutosegError, FaultsError
from autoseg.files import hash_file, read_json, read_model, write_json


@pytest.fixture
def exported(tmp_path, model_folder):
    """An exported model: its folder and the zip."""
    folder = model_folder.make_model(tmp_path / "results", (0.3, 0.6))
    target = tmp_path / "model.zip"
    export_bundle(folder, target)
    return folder, target


def contents(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path, changes, *, fix_card=False):
    """The zip with some files replaced (bytes), removed (None) or added."""
    files = {**contents(path), **changes}
    if fix_card:
        import hashlib

        card = json.loads(files["model_card.json"])
        card["files"] = {
            n: hashlib.sha256(c).hexdigest()
            for n, c in files.items()
            if c is not None and n != "model_card.json"
        }
        files["model_card.json"] = json.dumps(card).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            if content is not None:
                archive.writestr(name, content)


def is_refused(path, results, text):
    """The import fails with this message and leaves nothing."""
    with pytest.raises(AutosegError, match=text) as error:
        import_bundle(path, results)
    assert not [*results.rglob("*")], "something was left behind"
    return str(error.value)


def test_card_names_every_file_with_its_hash(exported):
    folder, _ = exported
    card = read_model(folder / "model_card.json", ModelCard)
    assert card.dataset == "Dataset900_Tiny" and card.name == "unet__tiny" and card.trainer == "unet"
    assert card.files == {name: hash_file(folder / name) for name in card.files}
    assert len(card.files) == 4
    assert [f.fold for f in card.folds] == ["0", "1"]
    assert card.folds[0].n_validation_cases == 2 and card.folds[0].validation == {"lesion": {"dice": 0.5}}
    assert "CC0" in card.licence and card.seed == 12345 and card.data_hash == "f" * 64


def test_round_trip(exported, tmp_path):
    folder, target = exported
    (folder / "fold_0" / "checkpoint").mkdir()
    (folder / "fold_0" / "checkpoint" / "latest.safetensors").write_bytes(b"not for others")
    with pytest.raises(AutosegError, match="fold"):  # what cannot be exported is said first
        export_bundle(folder, target, [7])
    with pytest.raises(AutosegError, match="(?s)the file is there already.*--overwrite"):
        export_bundle(folder, target)
    export_bundle(folder, target, overwrite=True)
    imported = import_bundle(target, tmp_path / "elsewhere")
    assert imported == tmp_path / "elsewhere" / "Dataset900_Tiny" / "unet__tiny"
    names = sorted(p.relative_to(imported).as_posix() for p in imported.rglob("*") if p.is_file())
    assert names == sorted(contents(target)) and len(names) == 5
    assert all(
        (imported / n).read_bytes() == (folder / n).read_bytes() for n in names if n != "model_card.json"
    )
    # the card of an imported model can be written again and keeps the scores
    assert write_model_card(imported).folds[1].validation == {"lesion": {"dice": 0.5}}
    export_bundle(imported, tmp_path / "again.zip")
    assert contents(tmp_path / "again.zip") == contents(target)


def test_the_same_model_makes_the_same_zip(exported, tmp_path):
    folder, target = exported
    export_bundle(folder, tmp_path / "second.zip")
    assert hash_file(target) == hash_file(tmp_path / "second.zip")


def test_chosen_folds_only(exported, tmp_path):
    folder, _ = exported
    export_bundle(folder, tmp_path / "one.zip", folds=["1"])
    assert sorted(contents(tmp_path / "one.zip")) == [
        "dataset.json",
        "fold_1/weights/member0.train.safetensors",
        "model_card.json",
        "plan.json",
    ]
    with pytest.raises(AutosegError, match="(?s)the model has no fold 7.*folds 0, 1"):
        export_bundle(folder, tmp_path / "none.zip", folds=["7"])
    assert not (tmp_path / "none.zip").exists()


def test_a_model_is_not_overwritten_unasked(exported, tmp_path):
    _, target = exported
    imported = import_bundle(target, tmp_path / "other")
    (imported / "mine.txt").write_text("mine")
    with pytest.raises(AutosegError, match="(?s)a model of this name already.*--overwrite"):
        import_bundle(target, tmp_path / "other")
    assert (imported / "mine.txt").exists()
    import_bundle(target, tmp_path / "other", overwrite=True)
    assert not (imported / "mine.txt").exists() and (imported / "plan.json").exists()
    assert sorted(p.name for p in (tmp_path / "other").iterdir()) == ["Dataset900_Tiny"]


@pytest.mark.parametrize(
    "name",
    [
        "../evil.json",
        "fold_0/../../evil.json",
        "/etc/evil.json",
        "C:/evil.json",
        "..\\evil.json",
        "fold_0/weights/../../../evil.safetensors",
    ],
)
def test_paths_that_lead_out_are_refused(exported, tmp_path, name):
    _, target = exported
    rewrite(target, {name: b"{}"})
    text = is_refused(target, tmp_path / "in", "nothing was unpacked")
    assert "leads out of the folder" in text and "evil" in text
    assert not list(tmp_path.rglob("*evil*")) and not os.path.exists("/etc/evil.json")


@pytest.mark.parametrize(
    "name",
    [
        "run.py",
        "weights.pkl",
        "fold_0/weights/model.pt",
        "fold_0/checkpoint/latest.safetensors",
    ],
)
def test_files_that_do_not_belong_are_refused(exported, tmp_path, name):
    _, target = exported
    rewrite(target, {name: b"x"})
    assert "does not belong in a bundle" in is_refused(target, tmp_path / "in", "nothing was unpacked")
    assert not is_allowed(name)


def test_a_symbolic_link_is_refused(exported, tmp_path):
    _, target = exported
    with zipfile.ZipFile(target, "a") as archive:
        link = zipfile.ZipInfo("fold_2/weights/member0.train.safetensors")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    assert "a symbolic link" in is_refused(target, tmp_path / "in", "nothing was unpacked")


def test_an_entry_for_a_folder_is_refused(exported, tmp_path):
    _, target = exported
    rewrite(target, {"fold_0/weights/": b""})
    assert "special file" in is_refused(target, tmp_path / "in", "nothing was unpacked")


def test_a_name_that_is_there_twice_is_refused(exported, tmp_path):
    _, target = exported
    with zipfile.ZipFile(target, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("plan.json", "{}")
    assert "twice" in is_refused(target, tmp_path / "in", "nothing was unpacked")


def test_a_zip_bomb_is_refused(exported, tmp_path):
    _, target = exported
    with zipfile.ZipFile(target, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fold_2/weights/member0.train.safetensors", bytes(50_000_000))
    assert target.stat().st_size < 1_000_000
    assert "zip bomb" in is_refused(target, tmp_path / "in", "nothing was unpacked")


def test_too_large_as_a_whole_is_refused(exported, tmp_path, monkeypatch):
    monkeypatch.setattr("autoseg.bundle.transfer.LARGEST_BUNDLE_BYTES", 1000)
    assert "is too large" in is_refused(exported[1], tmp_path / "in", "nothing was unpacked")


@pytest.mark.parametrize("name", ["plan.json", "fold_1/weights/member0.train.safetensors"])
def test_changed_files_are_refused(exported, tmp_path, name):
    _, target = exported
    content = contents(target)[name]
    rewrite(target, {name: content[:-4] + b"    "})
    assert "was changed or damaged" in is_refused(target, tmp_path / "in", "is damaged: 1 file")


def test_missing_files_are_refused(exported, tmp_path):
    _, target = exported
    rewrite(target, {"fold_1/weights/member0.train.safetensors": None})
    assert "fold_1/weights/member0.train.safetensors" in is_refused(target, tmp_path / "in", "is damaged")
    rewrite(target, {"model_card.json": None})
    is_refused(target, tmp_path / "in", "no model_card.json")


def test_a_file_that_is_not_on_the_card_is_refused(exported, tmp_path):
    _, target = exported
    rewrite(target, {"fold_5/weights/member0.train.safetensors": b"x"})
    assert "is not on the card" in is_refused(target, tmp_path / "in", "is damaged")


def test_weights_that_are_no_safetensors_are_refused_though_the_card_is_right(exported, tmp_path):
    _, target = exported
    rewrite(target, {"fold_1/weights/member0.train.safetensors": b"\x80\x04pickle"}, fix_card=True)
    assert "is not a safetensors file" in is_refused(target, tmp_path / "in", "is damaged")


@pytest.mark.parametrize(("version", "fix"), [(3, "newer autoseg"), (0, "the autoseg that made it")])
def test_other_versions_are_explained(exported, tmp_path, version, fix):
    _, target = exported
    before = contents(target)
    plan = {**json.loads(before["plan.json"]), "version": version, "unknown": 1}
    rewrite(target, {"plan.json": json.dumps(plan).encode()}, fix_card=True)
    text = is_refused(target, tmp_path / "in", "the plan is of another version")
    assert f"version {version}" in text and fix in text
    card = {**json.loads(before["model_card.json"]), "bundle_version": version}
    rewrite(target, {**before, "model_card.json": json.dumps(card).encode()})
    text = is_refused(target, tmp_path / "in", "the bundle is of another version")
    assert f"version {version}" in text and fix in text


@pytest.mark.parametrize("field", ["dataset", "name"])
def test_a_hostile_name_on_the_card_is_refused(exported, tmp_path, field):
    _, target = exported
    card = {**json.loads(contents(target)["model_card.json"]), field: "../../evil"}
    rewrite(target, {"model_card.json": json.dumps(card).encode()})
    is_refused(target, tmp_path / "in", "cannot be the name of a file")


def test_a_card_of_another_plan_is_refused(exported, tmp_path):
    _, target = exported
    card = {**json.loads(contents(target)["model_card.json"]), "trainer": "other"}
    rewrite(target, {"model_card.json": json.dumps(card).encode()})
    is_refused(target, tmp_path / "in", "do not belong together")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 and no more"])
def test_no_zip_at_all(tmp_path, content):
    (tmp_path / "x.zip").write_bytes(content)
    is_refused(tmp_path / "x.zip", tmp_path / "in", "is not a whole zip file")


def test_a_truncated_zip(exported, tmp_path):
    _, target = exported
    target.write_bytes(target.read_bytes()[:-100])
    is_refused(target, tmp_path / "in", "is not a whole zip file")
    is_refused(tmp_path / "no.zip", tmp_path / "in", "there is no such file")
    is_refused(tmp_path, tmp_path / "in", "is a folder")


def test_damaged_bytes_inside(exported, tmp_path):
    _, target = exported
    raw = bytearray(target.read_bytes())
    place = bytes(raw).index(b"member0.train.safetensors") + 300
    raw[place] ^= 0xFF
    target.write_bytes(raw)
    is_refused(target, tmp_path / "in", "is not a whole zip file|is damaged")


def test_opened_gives_a_folder_of_the_models_name(exported):
    folder, target = exported
    with opened(target) as unpacked:
        assert unpacked.name == "unet__tiny" and (unpacked / "plan.json").exists()
    assert not unpacked.exists()
    with opened(folder) as same:
        assert same == folder


def test_a_folder_of_another_bundle_version_is_explained(exported):
    from autoseg.bundle.opening import open_model

    folder, _ = exported
    write_json(folder / "model_card.json", {**read_json(folder / "model_card.json"), "bundle_version": 9})
    with pytest.raises(AutosegError, match="(?s)the bundle is of another version.*version 9"):
        open_model(folder)


def test_commands(exported, tmp_path, capsys):
    folder, _ = exported
    results, out = str(tmp_path / "results"), str(tmp_path / "out.zip")
    assert export_command.main(["-d", "900", "-o", out, "--results", results]) == 0
    assert import_command.main([out, "--results", str(tmp_path / "new")]) == 0
    assert "autoseg_predict" in capsys.readouterr().out
    assert import_command.main([out, "--results", str(tmp_path / "new")]) == 1
    assert "a model of this name already" in capsys.readouterr().err
    assert export_command.main(["-d", "900", "-o", "out.tar", "--results", results]) == 1
    assert "FILE.zip" in capsys.readouterr().err
    assert export_command.main(["-d", "900", "-o", out, "--results", results, "-tr", "unit"]) == 1
    assert "there is no model unit__*" in capsys.readouterr().err


def test_unwritable_results_are_explained(exported, tmp_path):
    (tmp_path / "file").write_text("a file where a folder should be")
    with pytest.raises((AutosegError, FaultsError), match="cannot be written"):
        import_bundle(exported[1], tmp_path / "file")


def test_reading_a_bundle_does_not_import_torch():
    code = "import sys, autoseg.bundle, autoseg; autoseg.__version__; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert torch is not None


def test_damaged_streams_are_refused_wherever_the_damage_is(exported, tmp_path):
    """Packed JSON whose bytes were changed makes Python's reader fail in half a dozen ways."""
    _, target = exported
    whole, n_refused = target.read_bytes(), 0
    for place in range(0, len(whole), 37):
        target.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        try:
            import_bundle(target, tmp_path / "in", overwrite=True)
        except AutosegError as error:
            n_refused += 1
            assert "cannot be written" not in str(error)
    assert n_refused > 0.8 * len(range(0, len(whole), 37))


def test_another_way_of_packing_is_refused(exported, tmp_path):
    _, target = exported
    files = contents(target)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_BZIP2) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    is_refused(target, tmp_path / "in", "is packed in another way")

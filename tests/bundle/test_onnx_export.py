"""--onnx: every network says in onnxruntime what it says in torch, and an export is checked by autoseg_import."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

import network_cases  # noqa: E402

from autoseg.bundle.onnx_export import FILE_NAME, check_input, to_onnx  # noqa: E402
from autoseg.cli import export_bundle, import_bundle  # noqa: E402


def run(path, batch):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": batch.numpy()})[0]


@pytest.mark.parametrize(("name", "variant"), network_cases.CASES)
def test_every_network_says_the_same(tmp_path, name, variant):
    network = network_cases.make(name, variant).eval()
    batch = network_cases.image(name, variant, batch=2)
    logits = to_onnx(network, batch, tmp_path / "n.onnx")
    assert np.abs(run(tmp_path / "n.onnx", batch) - logits).max() <= 1e-4
    other = torch.rand_like(
        batch[:1]
    )  # the number of the batch is free, and nothing of the first input is baked in
    with torch.no_grad():
        expected = network(other)
    expected = expected[0] if isinstance(expected, (list, tuple)) else expected
    assert np.abs(run(tmp_path / "n.onnx", other) - expected.numpy()).max() <= 1e-4


def test_whole_images_may_have_any_size(tmp_path):
    network = network_cases.make("ratlesnet", {}).eval()
    to_onnx(network, network_cases.image("ratlesnet", {}, batch=2), tmp_path / "n.onnx", fixed=False)
    other = network_cases.image("ratlesnet", {}, about=22)
    with torch.no_grad():
        assert np.abs(run(tmp_path / "n.onnx", other) - network(other).numpy()).max() <= 1e-4


def test_an_export_is_checked_and_its_json_says_all_around_it(tmp_path, model_folder, capsys):
    model_folder.make_model(tmp_path / "results", thresholds=(0.25, 0.75))
    out = tmp_path / "onnx"
    words = ["-d", "900", "--results", str(tmp_path / "results"), "--onnx", "-o", str(out)]
    assert export_bundle.main(words) == 0
    content = json.loads((out / FILE_NAME).read_text())
    assert sorted(p.name for p in out.iterdir()) == sorted(
        [FILE_NAME, *(n["file"] for n in content["networks"])]
    )
    assert [n["fold"] for n in content["networks"]] == ["0", "1"]
    assert out.stat().st_mode == (tmp_path / "results").stat().st_mode, "as open to others as any folder"
    assert content["networks"][0]["input"] == ["batch", "channel = 1", "z = 8", "y = 8", "x = 8"]
    described = content["describes"]
    assert described["channel_names"] == ["T2"] and described["labels"] == {"background": 0, "lesion": 1}
    assert described["inference"]["patch_size"] == [8, 8, 8] and described["preprocessing"]["normalisation"]
    image = check_input(0, [1, 1, 8, 8, 8])
    found = run(out / content["networks"][1]["file"], image)
    assert np.allclose(found[:, 1], 4 * (image[:, 0].numpy() - 0.75), atol=1e-5)  # as the network was made
    assert import_bundle.main([str(out)]) == 0
    assert "2 networks give the logits of autoseg" in capsys.readouterr().out
    assert export_bundle.main(words) == 1 and export_bundle.main([*words, "--overwrite"]) == 0
    assert "the folder is there already" in capsys.readouterr().err


def test_other_files_and_other_logits_are_named(tmp_path, model_folder, capsys):
    model_folder.make_model(tmp_path / "results", thresholds=(0.25, 0.75))
    out = tmp_path / "onnx"
    assert (
        export_bundle.main(["-d", "900", "--results", str(tmp_path / "results"), "--onnx", "-o", str(out)])
        == 0
    )
    content = json.loads((out / FILE_NAME).read_text())
    content["networks"][0]["check"]["logits"][3] += 0.1
    (out / FILE_NAME).write_text(json.dumps(content))
    (out / content["networks"][1]["file"]).write_bytes(b"x")
    assert import_bundle.main([str(out)]) == 1
    said = capsys.readouterr().err
    assert "gives other logits" in said and "is not the file that was exported" in said


def test_a_zip_is_no_folder(tmp_path, capsys):
    assert export_bundle.main(["-d", "900", "--onnx", "-o", str(tmp_path / "x.zip")]) == 1
    assert "--onnx writes a folder" in capsys.readouterr().err

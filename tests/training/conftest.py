"""A prepared dataset and a finished training, made once; each test works on a copy of its own."""

from pathlib import Path

import pytest
import runs

from autoseg.cli import train


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """A prepared dataset."""
    with pytest.MonkeyPatch.context() as patch:
        return runs.prepare(patch, tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="session")
def whole(prepared, tmp_path_factory) -> Path:
    """An uninterrupted training."""
    with pytest.MonkeyPatch.context() as patch:
        root = runs.copied(patch, prepared, tmp_path_factory.mktemp("whole") / "work")
        assert train.main(["1", "0", "-device", "cpu"]) == 0
    return root


@pytest.fixture
def root(prepared, tmp_path, monkeypatch) -> Path:
    """A prepared dataset to train on."""
    return runs.copied(monkeypatch, prepared, tmp_path / "work")


@pytest.fixture
def trained(whole, tmp_path, monkeypatch) -> Path:
    """A dataset with a finished fold 0."""
    return runs.copied(monkeypatch, whole, tmp_path / "work")

"""Fixtures for all tests."""

import importlib.util
import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("AUTOSEG_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data beside the checkout; the test skips where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"shared data not found at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def cuda() -> str:
    """The name of a CUDA device; the test skips without one."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return "cuda"


@pytest.fixture(scope="session")
def make_fingerprint():
    """A function that makes a fingerprint out of spacings and shapes: tests/planners/fingerprints.py."""
    import importlib.util

    spec = importlib.util.spec_from_file_location(
        "fingerprints", Path(__file__).parent / "planners/fingerprints.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.fingerprint


@pytest.fixture(scope="session")
def model_folder():
    """The module tests/model_folder.py, which makes a tiny model folder by hand."""
    spec = importlib.util.spec_from_file_location("model_folder", Path(__file__).with_name("model_folder.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def measured(shared: Path):
    """A function that gives the fingerprint of a shared dataset, measured from its files once."""
    from functools import cache

    from autoseg.dataset.examine import extract_fingerprint
    from autoseg.dataset.raw_layout import load_raw

    @cache
    def measure(name: str):
        if not (shared / "data" / name).is_dir():
            pytest.skip(f"{name} not found")
        return extract_fingerprint(load_raw(shared / "data" / name), processes=2)

    return measure

"""The store: round trip, interrupted writes, damage, reasons for being stale."""

import json
import os

import numpy as np
import pytest

from autoseg.dataset.imageio import Geometry
from autoseg.errors import AutosegError
from autoseg.plan import Normalisation, Preprocessing
from autoseg.preprocessing.case import preprocess_case
from autoseg.preprocessing.store import STORE_VERSION, CaseKey, Store

IDENTITY = (1.0, 0, 0, 0, 1, 0, 0, 0, 1)
PLAN = Preprocessing(spacing_mm=(1.0, 1.0, 1.0), normalisation=[Normalisation()] * 2)
KEY = CaseKey(content_hash="abc", preprocessing=PLAN.model_dump(mode="json"))


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 33, 70, 65)).astype(np.float32)
    label = np.zeros((33, 70, 65), np.uint8)
    label[3:9, 10:50, 20:60] = 1
    geometry = Geometry((33, 70, 65), (1.5, 1.0, 1.0), (0.1, 0.2, 0.3), IDENTITY)
    return preprocess_case("rat", image, geometry, PLAN, label)


@pytest.fixture
def store(tmp_path, case):
    store = Store(tmp_path / "store")
    store.write("rat.01", case, KEY)
    return store


def test_round_trip(store, case):
    assert store.names() == ["rat.01"]
    stored = store.read("rat.01")
    assert stored.image.shape == case.image.shape and stored.image.dtype == np.float32
    assert np.array_equal(stored.image[...], case.image)
    assert np.array_equal(stored.image[1, 3:20, 5:41, 60:], case.image[1, 3:20, 5:41, 60:])
    assert np.array_equal(stored.label[...], case.label) and stored.label.dtype == np.int16
    assert np.array_equal(stored.foreground, case.foreground)
    assert stored.properties == case.properties
    assert stored.record.components == case.components
    assert Geometry.from_dict(stored.properties.geometry).spacing_mm == (1.5, 1.0, 1.0)
    assert store.is_current("rat.01", KEY) is None


def test_a_case_without_foreground(store, case):
    case = preprocess_case(
        "sham", np.ones((2, 3, 4, 5), np.float32), Geometry((3, 4, 5), (1.0, 1.0, 1.0), (0.0,) * 3, IDENTITY), PLAN,
        np.zeros((3, 4, 5), np.uint8),
    )  # fmt: skip
    store.write("sham", case, KEY)
    stored = store.read("sham")
    assert stored.foreground.shape == (0, 5) and not stored.label[...].any()


def test_it_survives_that_a_case_is_replaced_while_it_is_open(store, case):
    stored = store.read("rat.01")
    opened = stored.image
    store.write("rat.01", case, KEY)
    assert np.array_equal(opened[...], case.image)


@pytest.mark.parametrize(
    "change, why",
    [
        ({"content_hash": "def"}, "the raw file changed"),
        ({"store_version": 0}, f"made by store version {STORE_VERSION}, this is version 0"),
        ({"ignore": 2}, "the label 'ignore' changed"),
        (
            {"preprocessing": {**KEY.preprocessing, "spacing_mm": [2.0, 1.0, 1.0]}},
            "preprocessing changed: spacing_mm",
        ),
        (
            {"preprocessing": {**KEY.preprocessing, "image_order": 1, "x": 1}},
            "preprocessing changed: image_order, x",
        ),
    ],
)
def test_why_a_case_is_stale(store, change, why):
    assert why in store.is_current("rat.01", KEY.model_copy(update=change))


def test_a_case_that_is_held_must_stay_what_it_is_made_from(store, case):
    """Another grid or other raw data under a running training; the same once more is no change."""
    store.hold(["rat.01"])
    Store(store.folder).write("rat.01", case, KEY)
    assert np.array_equal(store.read("rat.01").image[...], case.image)
    other = KEY.model_copy(update={"preprocessing": {**KEY.preprocessing, "spacing_mm": [3, 1, 1]}})
    Store(store.folder).write("rat.01", case, other)
    with pytest.raises(AutosegError, match="(?s)made anew while it was in use.*spacing_mm.*--c.*--overwrite"):
        store.read("rat.01")
    Store(store.folder).write("rat.01", case, KEY)  # the remedy: prepared as it was
    assert np.array_equal(store.read("rat.01").image[...], case.image)


def test_interrupted_before_the_record(store):
    (store.folder / "rat.01.json").unlink()
    assert store.names() == []
    assert store.is_current("rat.01", KEY) == "interrupted while it was written"
    assert store.is_current("other", KEY) == "not preprocessed yet"
    with pytest.raises(
        AutosegError, match=r"case rat.01 is not preprocessed(.|\n)*autoseg_plan_and_preprocess"
    ):
        store.read("rat.01")


def test_an_error_while_writing_leaves_no_record(store, case, monkeypatch):
    def full(path, content):
        raise AutosegError("the disk is full", where=str(path))

    monkeypatch.setattr("autoseg.preprocessing.store.write_json", full)
    with pytest.raises(AutosegError, match="the disk is full"):
        store.write("rat.01", case, KEY)
    assert store.names() == []


def test_damage_is_found_and_explained(store):
    path = store.folder / "rat.01.image.b2nd"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "rat.01.image.b2nd is damaged" in store.is_current("rat.01", KEY)
    with pytest.raises(
        AutosegError, match=r"stored case rat.01 is damaged(.|\n)*expected \d+(.|\n)*run autoseg_plan"
    ):
        store.read("rat.01")
    path.write_bytes(bytes(len(content)))
    stored = store.read("rat.01")
    with pytest.raises(AutosegError, match=r"stored image of case rat.01 is missing or damaged"):
        stored.image[...]
    path.unlink()
    assert store.is_current("rat.01", KEY) == "rat.01.image.b2nd is missing"


def test_no_flipped_bit_of_a_case_is_read_as_other_values(tmp_path):
    rng = np.random.default_rng(1)
    label = np.zeros((5, 9, 8), np.uint8)
    label[1:3, 2:6, 3:7] = 1
    grid = Geometry(label.shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), IDENTITY)
    image = rng.normal(size=(2, *label.shape)).astype(np.float32)
    store = Store(tmp_path / "store")
    store.write("rat", preprocess_case("rat", image, grid, PLAN, label), KEY)
    expected, silent, found = _contents(store), [], 0
    for path in sorted(store.folder.iterdir()):
        whole = path.read_bytes()
        for bit in map(int, rng.choice(8 * len(whole), 200, replace=False)):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            os.utime(path, ns=(bit, bit))  # two flips may come within one tick of the clock
            try:
                silent += [(path.name, bit)] if _contents(store) != expected else []
            except AutosegError:
                found += 1
                assert store.is_current("rat", KEY, verify=True)
        path.write_bytes(whole)
    assert not silent and found > 700


def _contents(store):
    case = store.read("rat")
    arrays = {"image": case.image[...], "label": case.label[...], "foreground": case.foreground}
    return case.record.model_dump_json(), {k: (v.dtype, v.shape, v.tobytes()) for k, v in arrays.items()}


def test_a_store_of_an_earlier_autoseg_is_read_and_made_anew_by_planning(store, case):
    path = store.folder / "rat.01.json"
    content = json.loads(path.read_text())
    del content["checksum"]
    for part in content["arrays"].values():
        del part["checksum"]
    path.write_text(json.dumps(content))
    assert np.array_equal(store.read("rat.01").image[...], case.image)
    assert store.is_current("rat.01", KEY) is None
    assert store.is_current("rat.01", KEY, verify=True) == "made by an earlier autoseg, without checksums"


def test_records_that_cannot_be_read(store):
    path = store.folder / "rat.01.json"
    content = json.loads(path.read_text())
    path.write_text("{")
    assert store.is_current("rat.01", KEY) == "its record is not valid JSON"
    path.write_text(json.dumps({**content, "arrays": 1}))
    assert store.is_current("rat.01", KEY) == "its record does not fit the schema of records"
    path.write_text(json.dumps({"store_version": 0, "name": "rat"}))
    assert store.is_current("rat.01", KEY) == f"made by store version 0, this is version {STORE_VERSION}"
    with pytest.raises(AutosegError, match=r"was made by store version 0"):
        store.read("rat.01")


def test_leftovers_of_killed_runs_are_removed(store):
    (store.folder / ".tmp-1-rat.02.image.b2nd").write_bytes(b"x")
    (store.folder / ".tmp-1-rat.02.json").write_bytes(b"x")
    assert store.names() == ["rat.01"]
    store.remove_leftovers()
    assert sorted(p.name for p in store.folder.iterdir()) == [
        f"rat.01.{part}" for part in ("foreground.b2nd", "image.b2nd", "json", "label.b2nd")
    ]

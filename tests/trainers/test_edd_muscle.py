"""What EDD Net and MUSCLE Net have to do with each other: candidates to learn from, judgements that are fused."""

import re
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from autoseg import messages, networks
from autoseg.bundle.networks import ReadyNetwork
from autoseg.errors import AutosegError
from autoseg.evaluation.false_lesions import size_that_holds
from autoseg.plan import (
    Augmentation,
    Inference,
    Named,
    Normalisation,
    Plan,
    Preprocessing,
    Recipe,
    Sampling,
    Stage,
)
from autoseg.plugins.parts import Companion, NetworkInput
from autoseg.trainers._edd_muscle_candidates import (
    FALSE,
    REAL,
    CandidateSource,
    found_in_words,
)
from autoseg.trainers.edd_muscle import TRAINER, judge_candidates
from autoseg.training import check_recipe

WINDOWS = {"image_windows_px": [16, 32, 64], "probability_windows_px": [16]}
CASES = ("a", "b", "c", "d")


def stage(name, **changes):
    parts = {
        "name": name,
        "patch_size": [16, 16],
        "batch_size": 6,
        "epochs": 2,
        "loss": Named(name="edd_muscle"),
        "optimiser": Named(name="sgd", arguments={"lr": 0.05}),
        "schedule": Named(name="constant"),
        "augmentation": Augmentation(name="none"),
    }
    return Stage(**{**parts, **changes})


def make_plan(finders=("edd",), **candidates):
    sampling = Sampling(name="candidates", arguments={"stages": list(finders), **candidates})
    # stages that are not asked for candidates change nothing
    parts = [stage(f"edd_part{k}", leave_out=(k, 2), keep=False) for k in range(2)]
    return Plan(
        planner="edd_muscle",
        trainer="edd_muscle",
        dataset="Dataset900_Tiny",
        fingerprint_hash="f" * 64,
        channel_names=["DWI"],
        labels={"background": 0, "lesion": 3},
        preprocessing=Preprocessing(spacing_mm=(None, 1.6, 1.6), normalisation=[Normalisation()]),
        networks={"main": Named(name="edd"), "muscle": Named(name="muscle", arguments=dict(WINDOWS))},
        recipe=Recipe(
            stages=[stage("edd"), *parts, stage("muscle", network="muscle", sampling=sampling)],
            inference=Inference(patch_size=[], mirror_axes=(), batch_size=2),
        ),
    )


# ---------------------------------------------------------------------------------------------------- the networks


@pytest.mark.parametrize(
    ("channels", "windows", "expected"),
    [
        (1, WINDOWS, 4),
        (1, {**WINDOWS, "probability_windows_px": [16, 32, 64]}, 6),
        (2, WINDOWS, 7),
        (1, {}, 4),
    ],
)
def test_the_channels_of_muscle_net_follow_from_its_windows(channels, windows, expected):
    arguments = {"width": 8, **windows}
    row = networks.REGISTRY.get("muscle")
    network = row.build(row.channels(channels, **arguments), 2, **arguments)
    assert network(torch.zeros(3, expected, 16, 16)).shape == (3, 2)


def test_several_kinds_of_lesion_are_refused():
    plan = make_plan().model_copy(update={"labels": {"background": 0, "old": 1, "new": 2}})
    with pytest.raises(AutosegError, match="(?s)knows lesion and background only.*3 outputs"):
        CandidateSource.check(plan, plan.stage("muscle"))


# ------------------------------------------------------------------------------------------------- the judgement


class Judge(nn.Module):
    """Says the same of every patch."""

    def __init__(self, q):
        super().__init__()
        self.q = nn.Parameter(torch.tensor(q), requires_grad=False)
        self.seen = []

    def forward(self, patches):
        self.seen.append(patches)
        return torch.stack(
            [torch.zeros(len(patches)), torch.logit(self.q).clamp(-60, 60).expand(len(patches))], 1
        )


def logits_of(probability):
    p = torch.from_numpy(np.asarray(probability)).double()
    return torch.stack([(1 - p).log(), p.log()]).float()


def two_slices():
    """A small component of known probabilities, a large one, and a pixel below the threshold."""
    p = np.full((2, 40, 40), 0.01)
    p[0, 5, 5:8] = 0.9, 0.6, 0.55
    p[1, 10:20, 10:20] = 0.8
    p[0, 30, 30] = 0.4
    return p


def judged(q, facts=None, arguments=WINDOWS, **settings):
    probability = two_slices()
    judge = Judge(q)
    companion = Companion(judge, arguments, {REAL: 7, FALSE: 7} if facts is None else facts)
    image = torch.rand(1, 2, 40, 40)
    logits = logits_of(probability)
    before = logits.clone()
    after = judge_candidates(logits, image, {"muscle": companion}, **settings)
    assert torch.equal(logits, before)
    return judge, after.softmax(0)[1].numpy(), probability


@pytest.mark.parametrize(
    ("rule", "q", "expected"),
    [
        ("component", 0.8, [0.8, 0.8, 0.8]),
        ("component", 0.3, [0.3, 0.3, 0.3]),
        ("peak", 0.8, [0.8, 0.533333, 0.488889]),
        ("peak", 0.3, [0.3, 0.2, 0.183333]),
        ("product", 0.8, [0.72, 0.48, 0.44]),
        ("odds", 0.8, [0.972973, 0.857143, 0.830189]),
    ],
)
def test_judgements_are_fused_as_published(rule, q, expected):
    judge, fused, p = judged(q, rule=rule)
    np.testing.assert_allclose(fused[0, 5, 5:8], expected, atol=2e-6)
    outside = np.ones_like(p, bool)
    outside[0, 5, 5:8] = False
    np.testing.assert_allclose(fused[outside], p[outside], atol=1e-6)
    # the large component is not asked about
    assert [patches.shape for patches in judge.seen] == [(1, 4, 16, 16)]


@pytest.mark.parametrize(("q", "stays"), [(0.49, False), (0.5, False), (0.51, True)])
def test_a_candidate_vanishes_exactly_when_it_is_not_more_likely_real_than_not(q, stays):
    judge = Companion(Judge(q), WINDOWS, {REAL: 7, FALSE: 7})
    logits = logits_of(two_slices())
    after = judge_candidates(logits, torch.rand(1, 2, 40, 40), {"muscle": judge})
    mask, before = (make_plan().label_set.decide(x.numpy()) == 3 for x in (after, logits))
    assert mask[0].any() == stays and before[0].sum() == 3
    assert np.array_equal(mask[1], before[1]) and mask[1].sum() == 100, "larger ones always stay"


def test_judgements_are_corrected_for_the_share_of_real_candidates():
    _, fused, _ = judged(0.8, facts={REAL: 1, FALSE: 4})
    assert fused[0, 5, 5] == pytest.approx(0.5, abs=1e-5)  # odds 4 times 1/4


@pytest.mark.parametrize("facts", [{}, {REAL: 5, FALSE: 0}, {REAL: 0, FALSE: 5}])
def test_a_network_that_learned_nothing_judges_nothing(facts):
    judge, fused, p = judged(0.1, facts=facts)
    np.testing.assert_allclose(fused, p, atol=1e-6)
    assert judge.seen == []


def test_nothing_found_is_nothing_to_judge():
    logits = logits_of(np.full((1, 20, 20), 0.2))
    companion = Companion(Judge(0.1), WINDOWS, {REAL: 1, FALSE: 1})
    assert judge_candidates(logits, torch.rand(1, 1, 20, 20), {"muscle": companion}) is logits


def test_a_sure_judgement_keeps_finite_logits():
    companion = Companion(Judge(1.0), WINDOWS, {REAL: 1, FALSE: 1})
    p = two_slices()
    p[0, 5, 5] = 1 - 1e-9
    after = judge_candidates(logits_of(p), torch.rand(1, 2, 40, 40), {"muscle": companion})
    assert after[:, 0, 5, 5:8].isfinite().all()


def test_the_size_that_holds_99_percent_of_the_false_components():
    """The paper: 60 pixels hold 99 %, 8.87 on average. Of 200 here 198 have at most 60, and of 10 all are needed."""
    sizes = np.array([5] * 150 + [16] * 47 + [60] + [61, 200])
    assert size_that_holds(sizes) == 60 and (sizes <= 60).mean() == 0.99
    assert size_that_holds(np.arange(1, 11)) == 10
    said = found_in_words([sizes[:100], sizes[100:], np.zeros(0, int)], 60)
    assert said.startswith(
        "200 false components, 66.67 in a case, of 9.12 px on average (median 5, largest 200)"
    )
    assert said.endswith("largest_px 60 holds 99% of them, and 60 would hold 99%")
    assert found_in_words([np.zeros(0, int)], 60) == ""


# -------------------------------------------------------------------------------------------------- the candidates


@dataclass
class StoredCase:
    image: np.ndarray
    label: np.ndarray
    foreground: np.ndarray | None = None


class Finder(nn.Module):
    """A network that finds what is bright, here or there: its logits are the image times a factor."""

    def __init__(self, gain):
        super().__init__()
        self.gain = gain

    def forward(self, image):
        return torch.cat([-self.gain * image, self.gain * image], 1)


class TinyStore:
    """In every case one real and ``n_false`` false bright spots of 2 x 2 pixels, and a large real one."""

    def __init__(self, n_false=2, n_real=1):
        self.n_false, self.n_real = n_false, n_real
        self.read_of = []

    def read(self, name):
        self.read_of.append(name)
        image = np.full((1, 3, 48, 40), -1, np.float32)
        label = np.zeros((3, 48, 40), np.int16)
        image[0, 0, 20:32, 20:32] = 1
        label[0, 20:32, 20:32] = 3
        for i in range(self.n_false):
            image[0, 1, 4 + 8 * i : 6 + 8 * i, 4:6] = 0.5
        for i in range(self.n_real):
            image[0, 2, 4 + 8 * i : 6 + 8 * i, 8:10] = 0.7
            label[2, 5 + 8 * i, 9] = 3
        return StoredCase(image, label)


def source(plan=None, store=None, gains=None, rank=0, world_size=1, cases=CASES):
    plan = plan or make_plan()
    gains = gains or dict.fromkeys(("edd", "edd_part0", "edd_part1"), 5.0)
    context = SimpleNamespace(
        plan=plan,
        stage=plan.stage("muscle"),
        cases=cases,
        store=store or TinyStore(),
        network_of=lambda name: ReadyNetwork(Finder(gains[name]), NetworkInput(divisor=(1, 1)), {}),
        seed_key=(1, 2, 3),
        device=torch.device("cpu"),
        workers=0,
        rank=rank,
        world_size=world_size,
        check_stop=lambda: None,
    )
    return CandidateSource(context)


def test_real_and_false_candidates_are_counted():
    made = source()
    assert made.facts == {REAL: 4, FALSE: 8} and not made.nothing_to_learn
    assert made.patches.shape == (12, 4, 16, 16) and made.iterations == 2
    assert made.owners == [case for case in CASES for _ in range(3)]


def test_batches_are_half_real_and_half_false_and_repeat_themselves():
    batches = list(source().batches(0))
    assert len(batches) == 2
    for batch in batches:
        assert batch.images.shape == (6, 4, 16, 16) and batch.target.tolist() == [3] * 3 + [0] * 3
        middle = batch.images[:, 0, 7:9, 7:9].amax((1, 2))  # the finest window shows the spot in its middle
        np.testing.assert_allclose(middle, [0.7] * 3 + [0.5] * 3)
        assert len(batch.cases) == 6 and set(batch.cases) <= set(CASES)
    again = list(source().batches(0, start_iteration=1))
    assert len(again) == 1 and torch.equal(again[0].images, batches[1].images)
    assert not torch.equal(next(iter(source().batches(1))).images, batches[0].images)


def test_processes_share_a_batch_and_each_sees_both_kinds(monkeypatch):
    """With one kind alone the statistics of batch normalisation would be those of that kind."""
    plan, said = make_plan(), []
    monkeypatch.setattr(messages, "info", said.append)
    plan.recipe.stages[-1].batch_size = 8
    whole = next(iter(source(plan).batches(0)))
    for rank in range(2):
        part = next(iter(source(plan, rank=rank, world_size=2).batches(0)))
        assert torch.equal(part.images, whole.images[rank::2])
        assert part.target.tolist() == whole.target[rank::2].tolist() == [3, 3, 0, 0]
    assert said[:3] == said[3:] and len(said) == 6  # the second process says nothing


@pytest.mark.parametrize("size", [1, 3])
def test_batches_of_an_odd_size_are_balanced_in_pairs(size):
    plan = make_plan()
    plan.recipe.stages[-1].batch_size = size
    batches = source(plan).batches(0)
    two = [*next(batches).target.tolist(), *next(batches).target.tolist()]
    assert sorted(two) == [0] * size + [3] * size


def test_patches_are_flipped_and_turned_in_all_eight_ways():
    made = source(store=TinyStore(n_false=1, n_real=1), cases=("a",))
    ramp = np.arange(256, dtype=np.float32).reshape(16, 16)
    made.patches[:] = ramp
    ways = {made._draw(0, index)[0][0].tobytes() for index in range(200)}
    assert len(ways) == 8


@pytest.mark.parametrize(
    ("n_real", "n_false", "words"),
    [
        (1, 0, "4 real and 0 false candidates .*without false ones"),
        (0, 2, "0 real and 8 false .*without real ones"),
    ],
)
def test_one_kind_alone_is_nothing_to_learn_from(n_real, n_false, words):
    made = source(store=TinyStore(n_false=n_false, n_real=n_real))
    assert re.search(words, made.nothing_to_learn) and made.facts == {REAL: 4 * n_real, FALSE: 4 * n_false}


def test_no_candidate_at_all():
    made = source(gains={"edd": 0.0})
    assert made.facts == {REAL: 0, FALSE: 0} and made.iterations == 0 and made.nothing_to_learn


def test_cross_fitting_asks_the_network_that_has_not_seen_the_case():
    """Part 0 left out a and c, part 1 b and d; a network that finds nothing shows who was asked."""
    plan = make_plan(finders=("edd_part0", "edd_part1"))
    assert set(source(plan).owners) == set(CASES)
    assert set(source(plan, gains={"edd_part0": 5.0, "edd_part1": 0.0}).owners) == {"a", "c"}
    assert set(source(plan, gains={"edd_part0": 0.0, "edd_part1": 5.0}).owners) == {"b", "d"}


@pytest.mark.parametrize(
    ("finders", "words"),
    [
        ((), "does not say which stages find its candidates"),
        (("edd", "nobody"), "found: +nobody"),
        (("muscle",), r"found: +muscle\n +expected: earlier stages: edd, edd_part0, edd_part1"),
        (("edd", "edd_part0"), r"do not share the cases out(?s:.*)edd: None, edd_part0: \(0, 2\)"),
        (("edd_part0", "edd_part0"), r"expected: \(0, 2\), \(1, 2\)"),
    ],
)
def test_candidates_of_every_case_are_needed_once(finders, words):
    """It is found before the first network is trained."""
    plan = make_plan(finders=finders)
    with pytest.raises(AutosegError, match=words):
        check_recipe.check_recipe(plan, TRAINER)
    with pytest.raises(AutosegError, match=words):
        source(plan)


def test_parts_of_other_cases_are_refused():
    """Left out of fewer cases, a part would hold cases that its network has learnt from."""
    plan = make_plan(finders=("edd_part0", "edd_part1"))
    check_recipe.check_recipe(plan, TRAINER)
    plan.recipe.stages[-1].leave_out = (0, 2)
    with pytest.raises(AutosegError, match=r"do not share the cases out(?s:.*)muscle: \(0, 2\)"):
        check_recipe.check_recipe(plan, TRAINER)


def test_mistakes_in_the_second_part_are_found_before_the_first_is_trained():
    with pytest.raises(AutosegError, match="do not fit the sampling 'candidates'(?s:.*)treshold"):
        check_recipe.check_recipe(make_plan(treshold=0.4), TRAINER)
    plan = make_plan()
    plan.recipe.postprocessing = [Named(name="muscle", arguments={"rul": "odds"})]
    with pytest.raises(AutosegError, match="do not fit the post-processing step 'muscle'"):
        check_recipe.check_recipe(plan, TRAINER)
    plan.recipe.postprocessing = [Named(name="muscle")]
    check_recipe.check_recipe(plan, TRAINER)
    plan.recipe.stages[-1].keep = False
    with pytest.raises(AutosegError, match=r"no stage of network muscle is kept(?s:.*)muscle=off"):
        check_recipe.check_recipe(plan, TRAINER)


def test_largest_candidates_follow_the_plan():
    assert source(make_plan(largest_px=3)).facts == {REAL: 0, FALSE: 0}
    assert source(make_plan(largest_px=144)).facts == {REAL: 8, FALSE: 8}


def test_the_trainer_brings_what_the_plan_names():
    assert [row.name for row in TRAINER.steps] == ["muscle"]
    assert [row.name for row in TRAINER.sources] == ["candidates"]

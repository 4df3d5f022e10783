"""Presets: which metrics a challenge or a paper reports, with its connectivity, matching and empties.

A preset is data. Metrics of the same name may differ between presets (``lesion_f1`` of ISLES'22 and of ISLES'24 do),
so every number is shown with the preset that it was computed by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from autoseg.errors import AutosegError, nearest_names
from autoseg.evaluation.metrics.catalogue import METRICS
from autoseg.evaluation.metrics.lesions import LesionRule, lesion_metrics
from autoseg.evaluation.metrics.metric import NAN, Empties, Metric
from autoseg.evaluation.statistics import IntervalMethod


@dataclass(frozen=True)
class FalseLesionList:
    """That the false lesions of all cases are listed with their sizes, see :mod:`autoseg.evaluation.false_lesions`.

    Attributes:
        rule: what a lesion is, when it is false, and in what its size is given.
        limit: a published size, of which it is said how many of them it holds.
        use: what a size that holds nearly all of them is for, as the end of a sentence.
    """

    rule: LesionRule
    limit: float
    use: str


@dataclass(frozen=True)
class Preset:
    """What is computed and how it is summed up.

    Attributes:
        name: as given to ``--preset``.
        title: what it is, in one line.
        metrics: computed for each case and class, in the order of the report.
        table: names of the metrics in the printed table.
        in_words: those of them whose means are also put in the words of Landis and Koch 1977.
        source: paper section or official script.
        notes: what deviates from the source and why, one sentence each; printed with the results.
        regions: region to the label values that it merges (BRATS); None takes the classes of dataset.json.
        label_words: label value of the regions to words in the names of such classes, the first of which is its name. A
            word of fewer than four letters is the whole name. Earlier ones win: ``non-enhancing`` is not ``enhancing``.
        strata: default strata, as of ``--strata`` (``voxels_truth=q4``, ``lesion_size_truth=37``).
        interval: kind of interval of the means, with its confidence of 95 %.
        resamples: of the bootstrap.
        inside: voxels are counted inside the brain in the source, for which the user gives masks.
        mean_of: column of ``--groups`` over whose groups the source takes the mean of means, such as ``fold``.
        false_lesions: how false lesions are listed one by one; None for no such list.

    Raises:
        AutosegError: two metrics have the same name, or the table names one that is not computed.
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]
    table: tuple[str, ...]
    source: str = ""
    notes: tuple[str, ...] = ()
    regions: Mapping[str, tuple[int, ...]] | None = None
    label_words: Mapping[int, tuple[str, ...]] | None = None
    strata: tuple[str, ...] = ()
    interval: IntervalMethod = "percentile"
    resamples: int = 2000
    in_words: tuple[str, ...] = ()
    inside: bool = False
    mean_of: str = ""
    false_lesions: FalseLesionList | None = None

    def __post_init__(self) -> None:
        names = [metric.name for metric in self.metrics]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise AutosegError(
                f"two metrics of the preset {self.name} have the same name", found=", ".join(twice)
            )
        odd = [name for name in (*self.table, *self.in_words) if name not in names]
        if odd:
            raise AutosegError(
                f"the table of the preset {self.name} shows metrics that it does not compute",
                found=", ".join(odd),
                expected=", ".join(names),
            )


def find_preset(name: str) -> Preset:
    """The preset called ``name``.

    Raises:
        AutosegError: there is none; the nearest names are given.
    """
    if name not in PRESETS:
        raise AutosegError(f"there is no preset {name!r}", fix=nearest_names(name, PRESETS))
    return PRESETS[name]


def metrics_named(
    names: str, *, lesions: LesionRule | None = None, empties: Mapping[str, Empties] | None = None
) -> tuple[Metric, ...]:
    """Metrics by their names.

    Args:
        names: with spaces between them, in the order of the report.
        lesions: rule of the lesion metrics; the default rule when there is none.
        empties: name to values for empty masks, where they differ from the default.

    Raises:
        AutosegError: there is no such metric.
    """
    known = METRICS | {metric.name: metric for metric in (lesion_metrics(lesions) if lesions else ())}
    wanted = names.split()
    for name in (*wanted, *(empties or {})):
        if name not in known:
            raise AutosegError(f"there is no metric {name!r}", fix=nearest_names(name, known))
    known |= {name: replace(known[name], empties=changed) for name, changed in (empties or {}).items()}
    return tuple(known[name] for name in wanted)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# ------------------------------------------------------------------------------------------------------ autoseg

AUTOSEG = Preset(
    name="autoseg",
    title="the main metrics, lesions 26-connected and matched by any shared voxel",
    metrics=metrics_named(
        "dice hd95_mm hausdorff_mm volume_truth_ml volume_prediction_ml volume_difference_ml voxels_truth "
        "voxels_prediction tp fp fn tn lesions_truth lesions_prediction lesions_found lesions_missed lesions_false "
        "lesion_f1"
    ),
    table=_words("dice hd95_mm lesion_f1 volume_truth_ml volume_prediction_ml"),
)

FULL = Preset(
    name="full",
    title="all metrics by their default definitions, lesions 26-connected and matched by any shared voxel",
    metrics=tuple(METRICS.values()),
    table=_words(
        "dice nsd_1mm hd95_mm assd_mm lesion_f1 lesion_precision lesion_recall volume_difference_ml"
    ),
)

# --------------------------------------------------------------------------------------------------- challenges

_CHALLENGE = "dice lesion_f1 lesion_count_difference_absolute volume_difference_absolute_ml"
_CHALLENGE_COUNTS = (
    "lesions_truth lesions_prediction lesions_found lesions_missed lesions_false volume_truth_ml "
    "volume_prediction_ml"
)

ISLES22 = Preset(
    name="isles22",
    title="ISLES'22, lesions 26-connected and matched by any shared voxel",
    metrics=metrics_named(f"{_CHALLENGE} {_CHALLENGE_COUNTS}", lesions=LesionRule(3, 26, "any")),
    table=_words(_CHALLENGE),
    source="utils/eval_utils.py of github.com/ezequieldlrosa/isles22",
)

ISLES24 = Preset(
    name="isles24",
    title="ISLES'24, lesions 26-connected and paired one to one by IoU >= 0.2",
    metrics=metrics_named(f"{_CHALLENGE} {_CHALLENGE_COUNTS}", lesions=LesionRule(3, 26, 0.2)),
    table=_words(_CHALLENGE),
    source="utils/eval_utils.py of github.com/ezequieldlrosa/isles24, which calls panoptica",
    notes=(
        "Until December 2025 the public script asked for an IoU of 0.5, so older lesion F1 may be lower.",
    ),
)

ATLAS2 = Preset(
    name="atlas2",
    title="ATLAS R2.0, lesions 6-connected and matched by any shared voxel",
    metrics=metrics_named(f"{_CHALLENGE} {_CHALLENGE_COUNTS}", lesions=LesionRule(3, 6, "any")),
    table=_words(_CHALLENGE),
    source="isles/scoring.py of github.com/npnl/atlas2_grand_challenge",
    notes=(
        "The public lesion F1 is 0 for boolean masks; here it is what the script describes, and gives for other masks.",
        "The public volume difference is always 0 unless called batch-wise, as it subtracts the prediction from "
        "itself; here it is prediction minus truth.",
        "The public volume difference is in voxels; here it is in ml, 0.001 ml for a voxel of 1 mm.",
    ),
)

ISLES2017 = Preset(
    name="isles2017",
    title="ISLES 2017, final infarct from perfusion",
    metrics=metrics_named(
        "dice ppv tpr hausdorff_mm assd_mm hausdorff_penalised_mm assd_penalised_mm volume_truth_ml "
        "volume_prediction_ml"
    ),
    table=_words("dice ppv tpr hausdorff_mm assd_mm"),
    source="Winzeck et al. 2018 (ISLES 2016 and 2017)",
    notes=(
        "The published tables give mean and SD; ppv is their precision, tpr their recall.",
        "Empty predictions are left out of distances; those called penalised count the diagonal of the volume.",
        "assd_mm is over surface elements by area, the challenge's is over border voxels.",
    ),
)

BRATS = Preset(
    name="brats",
    title="BRATS 2013 to 2016, regions whole, core and enhancing",
    metrics=metrics_named("dice tpr tnr ppv volume_truth_ml volume_prediction_ml"),
    table=_words("dice tpr tnr ppv"),
    source="Hu et al. 2020 (Brain SegNet), metrics of BRATS 2015",
    notes=(
        "The labels are 1 necrosis, 2 oedema, 3 non-enhancing, 4 enhancing tumour; for others give --regions.",
        "The paper's Table 1 prints ppv under the name specificity; tnr is specificity as its text defines it.",
        "Dice is 1 where neither mask has the region; tpr and ppv are left out there.",
    ),
    regions={"whole": (1, 2, 3, 4), "core": (1, 3, 4), "enhancing": (4,)},
    label_words={
        1: ("necrosis", "necro", "ncr"),
        2: ("oedema", "edema", "ed"),
        3: ("nonenhancing", "nonenhanc", "net"),
        4: ("enhancing", "enhanc", "et"),
    },
)

# ------------------------------------------------------------------------------------------------------- papers

RATLESNETV2 = Preset(
    name="ratlesnetv2",
    title="RatLesNetv2, rat brain lesions in thick slices",
    metrics=metrics_named(
        "dice dice_ratlesnetv2 hausdorff_mm hausdorff_9slices_mm hausdorff_penalised_mm "
        "compactness_9slices_prediction compactness_9slices_truth compactness_mesh_prediction "
        "compactness_mesh_truth tpr ppv tnr lesions_truth lesions_prediction volume_truth_ml volume_prediction_ml"
    ),
    table=_words("dice dice_ratlesnetv2 hausdorff_mm hausdorff_9slices_mm compactness_9slices_prediction"),
    source="Valverde et al. 2020 (RatLesNetv2) and its public code",
    notes=(
        "The paper's tables are of scans with a lesion; look at the means where truth is present.",
        "dice_ratlesnetv2 is the published rule for scans without lesion; dice counts a false alarm there as 0.",
        "hausdorff_9slices_mm and compactness_9slices are the paper's, on slices repeated 9 times; that the public "
        "distances are turned into mm by the in-plane spacing is inferred.",
        "Distances and compactness of empty masks are left out; the public code gives arbitrary numbers there. "
        "hausdorff_penalised_mm counts the diagonal of the volume.",
    ),
)

_SLICE_LESIONS = LesionRule(2, 8, "any", pixel_mm=1.6)

EDD_MUSCLE = Preset(
    name="edd_muscle",
    title="EDD Net and MUSCLE Net, lesions 8-connected in each slice and matched by any shared pixel",
    metrics=metrics_named(
        "dice detected lesions_false lesions_missed lesion_size_false lesion_size_missed lesions_truth "
        "lesions_prediction lesion_size_truth volume_truth_ml volume_prediction_ml",
        lesions=_SLICE_LESIONS,
        empties={"dice": Empties(prediction=0.0, truth=NAN, both=1.0)},
    ),
    table=_words("dice detected lesions_false lesions_missed lesion_size_false lesion_size_missed"),
    source="Chen, Bentley and Rueckert 2017 (EDD Net, MUSCLE Net)",
    notes=(
        "Means are the paper's m#FP (lesions_false), m#FN (lesions_missed), mSFP, mSFN (lesion_size_...) and DR "
        "(detected).",
        "Sizes are areas in pixels of 1.6 mm, the paper's grid, so that scanners compare; the strata are cut at 37 of "
        "them.",
        "The paper does not say how pixels are connected; 8 neighbours in the slice are assumed.",
        "A case without truth counts in lesions_false; its Dice is left out, or 1 if nothing is predicted either.",
    ),
    strata=("lesion_size_truth=37",),
    false_lesions=FalseLesionList(
        _SLICE_LESIONS,
        limit=60,
        use="largest_px, up to which MUSCLE Net judges components, if these masks are EDD Net's alone "
        "(autoseg_predict --set postprocessing.muscle=off)",
    ),
)

BRAINSEGNET = Preset(
    name="brainsegnet",
    title="Brain SegNet on ISLES 2017",
    metrics=metrics_named("dice ppv tpr volume_truth_ml volume_prediction_ml"),
    table=_words("dice ppv tpr"),
    source="Hu et al. 2020 (Brain SegNet), metrics of ISLES 2017",
    notes=("The paper gives mean and SD; its BRATS metrics, by region, are the preset brats.",),
)

DEEPMEDIC = Preset(
    name="deepmedic",
    title="DeepMedic with enhanced learning techniques on ISLES 2017",
    metrics=metrics_named(
        "dice hausdorff_mm hausdorff_penalised_mm mcc tpr tnr ppv accuracy volume_truth_ml volume_prediction_ml"
    ),
    table=_words("dice hausdorff_mm hausdorff_penalised_mm mcc tpr tnr ppv accuracy"),
    in_words=_words("dice mcc"),
    source="Pérez Malla et al. 2019 (DeepMedic on ISLES 2017) and its public code",
    notes=(
        "The paper's means are of each fold and then of the folds: give --groups with a column fold.",
        "Distances are left out where the prediction is empty; hausdorff_penalised_mm counts the diagonal of the "
        "volume there.",
        "The paper's error bars are Student's intervals too, but with 5 degrees of freedom whatever the number of "
        "cases, and so often wider.",
        "The words for the means of dice and mcc are those of Landis and Koch 1977.",
    ),
    interval="t",
    inside=True,
    mean_of="fold",
)

RESUNET = Preset(
    name="resunet",
    title="3D residual U-Net on ATLAS, with surface distances",
    metrics=metrics_named(
        "dice surface_hausdorff_mm surface_hausdorff_penalised_mm assd_mm assd_mean_mm assd_penalised_mm tpr ppv "
        "volume_truth_ml volume_prediction_ml voxels_truth"
    ),
    table=_words("dice surface_hausdorff_mm assd_mm assd_mean_mm tpr ppv"),
    source="Tomita et al. 2020 (3D residual U-Net)",
    notes=(
        "The paper does not say how the two directions of the surface distance are merged: assd_mm pools both "
        "surfaces, assd_mean_mm is the mean of the two means.",
        "The paper does not say how it counts empty predictions: they are left out of distances; those called "
        "penalised count the diagonal of the volume.",
        "The paper does not say of which kind its bootstrap interval is; this is the percentile interval.",
    ),
    strata=("voxels_truth=q4",),
    resamples=1000,
)

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        AUTOSEG,
        FULL,
        ISLES22,
        ISLES24,
        ATLAS2,
        ISLES2017,
        BRATS,
        RATLESNETV2,
        EDD_MUSCLE,
        BRAINSEGNET,
        DEEPMEDIC,
        RESUNET,
    )
}
"""All presets by name; the first is the default."""

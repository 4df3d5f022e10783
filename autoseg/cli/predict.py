"""autoseg_predict: segment scans with a trained model: image files, a table of them, BIDS or DICOM."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from autoseg.cli import common

if TYPE_CHECKING:
    from pathlib import Path

    from autoseg.dataset.part import CasesPart
    from autoseg.dataset.raw_layout import Case
    from autoseg.inference.folder import FolderReport
    from autoseg.inference.output_layout import OutputLayout
    from autoseg.inference.predictor import Predictor
    from autoseg.scans.given import GivenScans

EXAMPLES = """  autoseg_predict -i imagesTs -o masks -d 11
  autoseg_predict -i scans -o masks -m model.zip                      a folder of files, BIDS or DICOM
  autoseg_predict --channels T1=t1.nii.gz FLAIR=flair.nii.gz -o mask.nii.gz -m model.zip
  autoseg_predict -i patients -o masks -m model.zip --series T1=4 "FLAIR=*FLAIR*fs"
  autoseg_predict -i imagesTs -o masks -d RatT2 -f 0 1 2 --save_probabilities
  autoseg_predict -i rat07_0000.nii.gz -o rat07_mask.nii.gz -m model.zip -device cpu
  autoseg_predict -i imagesTs -o masks -d 11 --continue_prediction
  autoseg_predict -i imagesTs -o masks -d 11 --continue_prediction --part 3/10
  autoseg_predict -i imagesTs -o raw_masks -d 11 --set postprocessing=[]"""


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = common.parser(__doc__ or "", examples=EXAMPLES)
    command.add_argument(
        "-i",
        dest="images",
        metavar="IMAGES",
        help="folder of CASE_0000.nii.gz ..., of ordinary files (one channel), BIDS or DICOM; a table (.csv); a file",
    )
    command.add_argument(
        "--channels",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=WHAT",
        help="the file of each channel, instead of -i; with BIDS its suffix and entities, such as T1=acq-3d_T1w",
    )
    command.add_argument(
        "--series",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=WHICH",
        help="with DICOM: the series of a channel, by number or by a pattern for its description",
    )
    command.add_argument(
        "--resample_channels",
        action="store_true",
        help="put co-registered channels onto the grid of the first, linearly, by the headers",
    )
    command.add_argument(
        "-o",
        dest="output",
        required=True,
        metavar="FOLDER",
        help="where the masks go; or a file, for one case",
    )
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("-d", dest="dataset", metavar="DATASET", help="id or name; takes its model in results")
    which.add_argument(
        "-m", dest="model", metavar="BUNDLE", help="a model folder, an exported zip, or an ensemble"
    )
    command.add_argument("-p", dest="plan_name", metavar="NAME", help="with -d: the model of this plan")
    command.add_argument("-tr", dest="trainer", metavar="NAME", help="with -d: the model of this trainer")
    command.add_argument("-name", dest="model_name", metavar="NAME", help="with -d: the model of this name")
    command.add_argument(
        "-f", dest="folds", nargs="+", metavar="FOLD", help="folds to average (default: every finished one)"
    )
    command.add_argument(
        "-chk",
        dest="checkpoint",
        choices=("final", "best"),
        default="final",
        help="last weights, or those with the best validation Dice (default: %(default)s)",
    )
    command.add_argument("-device", metavar="DEVICE", help="cuda, cpu or mps (default: cuda if there is one)")
    mirroring = command.add_mutually_exclusive_group()
    mirroring.add_argument("--disable_tta", action="store_true", help="no mirroring (the default on a CPU)")
    mirroring.add_argument(
        "--enable_tta", action="store_true", help="average over mirrored copies (the default elsewhere)"
    )
    command.add_argument(
        "-step_size",
        type=float,
        metavar="SHARE",
        help="distance of tiles as a share of a tile (default: plan)",
    )
    command.add_argument(
        "--save_probabilities", action="store_true", help="also CASE.npz, float16 [class, z, y, x]"
    )
    command.add_argument(
        "--bids", action="store_true", help="write BIDS derivatives: mask, probseg, sidecars (label-L)"
    )
    command.add_argument(
        "--dicom_seg", action="store_true", help="also CASE.seg.dcm, for scans from DICOM (needs highdicom)"
    )
    command.add_argument(
        "--continue_prediction", action="store_true", help="keep what is whole and made the same way"
    )
    command.add_argument(
        "--part",
        metavar="I/N",
        help="the I-th of N parts of the cases, by sorted name; parts may run at the same time",
    )
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="replace masks that a person, another model or other options made",
    )
    common.add_set(
        command, "change how the plan predicts, such as postprocessing.STEP=off (value: JSON or text)"
    )
    common.add_folders(command, "results")
    return command


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    return common.run(
        _main,
        build_parser().parse_args(argv),
        again="run it again with --continue_prediction: what is whole is kept",
    )


def _main(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from autoseg import messages, paths
    from autoseg.bundle.opening import find_model, open_model
    from autoseg.bundle.transfer import opened
    from autoseg.dataset.part import CasesPart
    from autoseg.inference.output_file import output_file
    from autoseg.scans.given import cases_of, tell_origins

    part = CasesPart.parse(arguments.part) if arguments.part is not None else None
    given = _given(arguments)
    if arguments.model:
        source = Path(arguments.model)
    else:
        source = find_model(
            paths.root("results", arguments.results),
            arguments.dataset,
            trainer=arguments.trainer,
            plan_name=arguments.plan_name,
            model_name=arguments.model_name,
        )
    if (source / "ensemble.json").is_file():
        _predict_ensemble(source, given, arguments)
        return
    with opened(source) as folder:
        overrides = common.parse_overrides(arguments.overrides)
        model = open_model(folder, arguments.folds, arguments.checkpoint, overrides)
        cases = cases_of(given, model.info)  # wrong input is said before torch is loaded
        tell_origins(cases, list(model.info.channel_names.values()))
        cases = part.take(cases) if part is not None else cases
        file = output_file(
            Path(arguments.output),
            cases,
            continue_prediction=arguments.continue_prediction,
            overwrite=arguments.overwrite,
            part=part,
        )

        _refuse_outputs(arguments, file, cases)

        from autoseg.inference.predictor import Predictor

        _use_all_cores()
        predictor = Predictor(
            model, device=arguments.device, mirror=_mirror(arguments), step=arguments.step_size
        )
        messages.info(
            f"{_count(len(cases), 'case')}, model {source.name}, folds {', '.join(model.folds)}, "
            f"{_count(predictor.n_members, 'network')}, on {predictor.device}"
        )
        report = _predict(predictor, cases, file, part, arguments)
    kept = f", {len(report.kept)} kept" if report.kept else ""
    print(f"{_count(len(report.predicted), 'case')} predicted{kept}: {arguments.output}")


def _predict_ensemble(source: Path, given: GivenScans, arguments: argparse.Namespace) -> None:
    """A folder that autoseg_ensemble made: all models, then what they make together.

    Raises:
        AutosegError: another kind of output is asked for than masks and probabilities.
    """
    from pathlib import Path

    from autoseg.bundle.opening import open_model
    from autoseg.bundle.transfer import opened
    from autoseg.errors import AutosegError
    from autoseg.scans.given import cases_of, tell_origins
    from autoseg.study.ensemble_folder import predict_ensemble, read_ensemble

    if arguments.part:
        raise AutosegError(
            "an ensemble is not predicted in parts",
            found=f"--part {arguments.part}",
            fix="divide the images into folders, or predict parts with one of the models",
        )
    if arguments.bids or arguments.dicom_seg:
        raise AutosegError(
            "an ensemble writes masks and probabilities alone",
            found="--bids" if arguments.bids else "--dicom_seg",
            fix="leave it out, or predict with one of the models",
        )
    with opened(source / read_ensemble(source).models[0]) as folder:
        info = open_model(folder).info
    cases = cases_of(given, info)
    tell_origins(cases, list(info.channel_names.values()))
    _use_all_cores()
    options = {
        "folds": arguments.folds,
        "checkpoint": arguments.checkpoint,
        "device": arguments.device,
        "mirror": _mirror(arguments),
        "step": arguments.step_size,
        "overrides": common.parse_overrides(arguments.overrides),
    }
    names = predict_ensemble(
        source,
        cases,
        Path(arguments.output),
        options,
        save_probabilities=arguments.save_probabilities,
        overwrite=arguments.overwrite,
    )
    print(f"{_count(len(names), 'case')} predicted: {arguments.output}")


def _given(arguments: argparse.Namespace) -> GivenScans:
    """What the user gave; what needs no model to be seen is refused."""
    from pathlib import Path

    from autoseg.dataset.images_to_predict import refuse_missing_images
    from autoseg.errors import AutosegError
    from autoseg.scans.given import GivenScans

    path = Path(arguments.images) if arguments.images else None
    if path is not None:
        refuse_missing_images(path)
    elif not arguments.channels:
        raise AutosegError(
            "no scan is given", expected="-i IMAGES, or --channels NAME=FILE for each channel", fix="add -i"
        )
    channels = common.parse_pairs("--channels", arguments.channels)
    series = common.parse_pairs("--series", arguments.series)
    return GivenScans(path, channels, series, arguments.resample_channels)


def _predict(
    predictor: Predictor,
    cases: list[Case],
    file: Path | None,
    part: CasesPart | None,
    arguments: argparse.Namespace,
) -> FolderReport:
    """Into the folder that the user gave, or into one file."""
    from pathlib import Path

    from autoseg.inference.folder import predict_cases
    from autoseg.inference.output_file import folder_for

    probabilities = arguments.save_probabilities
    if file is not None:
        with folder_for(file, cases[0]) as (folder, ending):
            layout = _layout(predictor, cases, arguments, ending)
            return predict_cases(predictor, cases, folder, save_probabilities=probabilities, layout=layout)
    return predict_cases(
        predictor,
        cases,
        Path(arguments.output),
        continue_prediction=arguments.continue_prediction,
        save_probabilities=probabilities,
        overwrite=arguments.overwrite,
        layout=_layout(predictor, cases, arguments, predictor.model.info.file_ending),
        part=part,
    )


def _layout(
    predictor: Predictor, cases: list[Case], arguments: argparse.Namespace, ending: str
) -> OutputLayout:
    """How the output files are called, and which there are, as the user wants them."""
    from dataclasses import replace
    from functools import partial
    from pathlib import Path

    from autoseg.inference.output_layout import plain_layout

    model = predictor.model.folder.resolve().name
    if arguments.bids:
        from autoseg.inference.bids_output import bids_layout

        given = Path(arguments.images) if arguments.images else Path(cases[0].images[0])
        return bids_layout(cases, given, predictor.labels, model)
    layout = plain_layout(ending)
    if arguments.dicom_seg:
        from autoseg.inference.dicom_seg import seg_file

        further = partial(seg_file, labels=predictor.labels, model=model)
        layout = replace(layout, further=lambda case: (further(case),))
    return layout


def _refuse_outputs(arguments: argparse.Namespace, file: Path | None, cases: list[Case]) -> None:
    """Refuse kinds of output that do not go with each other or with the scans."""
    from autoseg.errors import AutosegError

    if arguments.bids and (arguments.dicom_seg or file is not None):
        found = "--dicom_seg" if arguments.dicom_seg else f"-o {arguments.output}"
        fix = "predict twice, into two folders" if arguments.dicom_seg else "give a folder with -o"
        raise AutosegError("--bids writes a dataset of its own", found=f"--bids and {found}", fix=fix)
    if arguments.dicom_seg:
        from autoseg.inference.dicom_seg import refuse_other_sources

        refuse_other_sources(cases)


def _mirror(arguments: argparse.Namespace) -> bool | None:
    """Whether tiles are mirrored; None for what the plan says."""
    return True if arguments.enable_tta else False if arguments.disable_tta else None


def _use_all_cores() -> None:
    """One thread for each core that this process may use, unless the environment says otherwise."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ and hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(len(os.sched_getaffinity(0)))


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


if __name__ == "__main__":
    raise SystemExit(main())

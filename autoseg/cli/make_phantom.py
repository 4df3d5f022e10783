"""autoseg_make_phantom: make a synthetic dataset of brain-like volumes with lesions, to try things out.

The phantoms are computed from formulas and random numbers; no scan of any person or animal is in them. Scores on
them say that a pipeline works, not how good it is on patients.

kinds:
  rat_t2     rat brain, T2, 256x256x18 at 0.117x0.117x1 mm; bright lesion on the right, every sixth a sham
  dwi        acute stroke, DWI, 128 or 192 in the plane, 19-23 thick slices; artefacts, two scanners
  perfusion  acute stroke, 6 maps (ADC, MTT, rCBF, rCBV, Tmax, TTP), 192 or 256 in the plane, brain-extracted
  t1         chronic stroke, T1, 197x233x189 at 1 mm, brain-extracted; dark lesion
"""

from __future__ import annotations

import argparse

from autoseg.cli import common
from autoseg.messages import count_of

EXAMPLES = """  autoseg_make_phantom rat_t2 -n 12 -o $autoseg_raw --seed 1
  autoseg_make_phantom dwi -n 24 --test 6 -o $autoseg_raw --seed 1 --scale 0.5 -id 900"""


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = common.parser(__doc__ or "", examples=EXAMPLES)
    command.add_argument("kind", metavar="KIND", help="rat_t2, dwi, perfusion or t1")
    command.add_argument(
        "-n", dest="n", type=int, required=True, metavar="N", help="number of training cases"
    )
    command.add_argument(
        "-o",
        dest="output",
        metavar="DIR",
        help="folder of raw datasets; DatasetNNN_Phantom... is made in it (default: $autoseg_raw)",
    )
    command.add_argument(
        "--test", type=int, default=0, metavar="N", help="further cases in imagesTs and labelsTs (default: 0)"
    )
    command.add_argument(
        "--seed", type=int, default=0, metavar="S", help="the same seed gives the same phantoms (default: 0)"
    )
    command.add_argument(
        "--scale",
        type=float,
        default=1.0,
        metavar="F",
        help="0.125 to 1: smaller matrix, larger voxels, same brain (default: 1, the published size)",
    )
    command.add_argument(
        "-id", dest="number", type=int, metavar="NNN", help="number of the dataset (default: 911 to 914)"
    )
    command.add_argument(
        "-np", dest="processes", type=int, metavar="N", help="processes (default: all cores)"
    )
    command.add_argument("--overwrite", action="store_true", help="replace an earlier dataset of phantoms")
    return command


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    return common.run(_main, build_parser().parse_args(argv))


def _main(arguments: argparse.Namespace) -> int:
    from autoseg import paths
    from autoseg.phantoms import make_dataset

    folder = make_dataset(
        arguments.kind,
        arguments.n,
        paths.root("raw", arguments.output),
        seed=arguments.seed,
        scale=arguments.scale,
        n_test=arguments.test,
        processes=common.default_processes() if arguments.processes is None else arguments.processes,
        number=arguments.number,
        overwrite=arguments.overwrite,
    )
    number = folder.name[len("Dataset") :].partition("_")[0]
    print(f"{count_of(arguments.n + arguments.test, 'synthetic phantom')} ({arguments.kind}) in {folder}")
    print(f"next: autoseg_plan_and_preprocess -d {number}{common.folder_options(raw=folder.parent)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

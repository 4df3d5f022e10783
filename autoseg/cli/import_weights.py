"""autoseg_import_weights: turn weights that others trained into a model that autoseg_predict uses.

Which network it is follows from the files. Several files are members of one ensemble. Nothing in a file is executed:
what is more than tensors is refused.

Taken are the weights of RatLesNetv2 as released by its authors (github.com/jmlipman/RatLesNetv2, trained_models), its
ablations, RatLesNet, and what their code trains; installed packages may take others.
"""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

from autoseg.cli import common

if TYPE_CHECKING:
    from autoseg.bundle.card import ModelCard
    from autoseg.plan import Plan

EXAMPLES = """  autoseg_import_weights homogeneous/model-1 homogeneous/model-2 homogeneous/model-3 -o rat --license MIT
  autoseg_import_weights densenet_heterogeneous/model-1 -o densenet.zip
  autoseg_predict -i scans -o masks -m rat"""


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = common.parser(__doc__ or "", examples=EXAMPLES)
    command.add_argument("files", nargs="+", metavar="FILE", help="state dicts of torch, one for each member")
    command.add_argument(
        "-o", dest="output", required=True, metavar="BUNDLE", help="model folder, or FILE.zip, to write"
    )
    command.add_argument(
        "--license",
        metavar="NAME|FILE",
        help="licence of the weights, such as MIT, or a file whose text goes onto the model card",
    )
    command.add_argument("--overwrite", action="store_true", help="replace an earlier import")
    return command


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    return common.run(_main, build_parser().parse_args(argv))


def _main(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from autoseg import messages
    from autoseg.bundle import transfer
    from autoseg.bundle.foreign import NO_LICENCE, import_weights
    from autoseg.bundle.opening import read_plan

    output = Path(arguments.output)
    if not arguments.license:
        messages.warn("the model card will not state a licence; give one with --license")
    card = import_weights(
        [Path(file) for file in arguments.files],
        output,
        licence=_licence(arguments.license) if arguments.license else NO_LICENCE,
        overwrite=arguments.overwrite,
    )
    with transfer.opened(output) as folder:
        _report(card, read_plan(folder))
    print(f"\n{output}\nnext: autoseg_predict -i IMAGES -o MASKS -m {shlex.quote(str(output))}")


def _licence(given: str) -> str:
    """The text of the file, or what was given."""
    from pathlib import Path

    from autoseg.errors import AutosegError

    try:
        return Path(given).read_text(encoding="utf-8").strip() if Path(given).is_file() else given
    except (OSError, UnicodeDecodeError) as error:
        raise AutosegError(
            "the licence cannot be read", where=given, found=error, expected="text", fix="give another file"
        ) from None


def _report(card: ModelCard, plan: Plan) -> None:
    """What was recognised, and what a prediction will do."""
    network = plan.networks["main"]
    print(", ".join([network.name, *(f"{key} {value}" for key, value in network.arguments.items())]))
    for file in card.imported.files if card.imported else ():
        facts = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in file.facts.items())
        print(f"  member {file.member}  {file.name}  SHA-256 {file.sha256[:12]}  {facts}")
    for reason in plan.reasons:
        print(f"  {reason.what:<18}{reason.value}")


if __name__ == "__main__":
    raise SystemExit(main())

"""From a folder to report.html: collect, draw, fill the template, write."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.errors import AutosegError
from autoseg.files import read_json, write_bytes, write_json, write_text
from autoseg.messages import count_of
from autoseg.report import bland_altman, charts, lesion_sizes, method_charts, score_tables, sections
from autoseg.report.bland_altman import Sign
from autoseg.report.blocks import Absent, CaseCards, Figure, Page, Records, Section
from autoseg.report.case_cards import (
    Drawn,
    ShownCase,
    compared_files,
    group_files,
    picture_files,
    show_cases,
    show_compared,
    show_groups,
)
from autoseg.report.collect import Material, collect
from autoseg.report.drawing import Panel, page_svg, paper_files
from autoseg.report.viewer import SLIDER_PX

REPORT, FILES, LISTING = "report.html", "_files", "files.json"
SHOWN_CASES = 3
MOST_CASES = 30
"""Each takes 1 to 2 MB; a browser opens no page of hundreds."""


@dataclass(frozen=True)
class PageOptions:
    """What of a report the user chooses.

    Attributes:
        cases: how many are shown.
        viewers: whether shown cases have a slice viewer.
        channel: of the images that are shown.
        volume_sign: what is subtracted from what where volumes are compared (Bland-Altman).
        command: as it was typed; empty from Python.
    """

    cases: int = SHOWN_CASES
    viewers: bool = True
    channel: int = 0
    volume_sign: Sign = "pred_minus_gt"
    command: str = ""


def make_report(
    folder: Path | str,
    out: Path | str | None = None,
    *,
    images: Path | None = None,
    truths: Path | None = None,
    options: PageOptions | None = None,
) -> Path:
    """Write a report and, beside it, its figures and tables for a paper.

    Args:
        folder: see :func:`autoseg.report.collect.collect`.
        out: a file ``*.html``, or the folder for ``report.html``; None is ``folder``.
        images, truths: where images and true masks have moved to.
        options: see there.

    Returns:
        The path of the page.

    Raises:
        AutosegError: there is nothing to report on, or it cannot be written.
    """
    options = options or PageOptions()
    if not 0 <= options.cases <= MOST_CASES:
        raise AutosegError(
            "so many cases cannot be shown", found=options.cases, expected=f"0 to {MOST_CASES}"
        )
    material = collect(folder, images=images, truths=truths)
    path = report_path(Path(folder), Path(out) if out else None)
    shown, problems = show_cases(material, options.cases, channel=options.channel, viewers=options.viewers)
    compared, not_compared = show_compared(material, options.cases, channel=options.channel)
    groups, not_grouped = show_groups(material, channel=options.channel) if options.cases else ([], [])
    not_compared = list(dict.fromkeys([*not_compared, *not_grouped]))
    page = make_page(
        material, shown, problems, options, compared=compared, groups=groups, not_compared=not_compared
    )
    files, beside = _files(page, shown), path.with_name(f"{path.stem}{FILES}")
    files |= compared_files(compared) | group_files(groups)
    html = render(page, beside.name if files else "")
    _write_files(beside, files)
    write_text(path, html)
    return path


def report_path(folder: Path, out: Path | None) -> Path:
    """Where the page goes."""
    if out is None:
        return folder / REPORT
    return out if out.suffix.lower() in (".html", ".htm") else out / REPORT


def make_page(
    material: Material,
    shown: list[ShownCase],
    problems: list[str],
    options: PageOptions,
    *,
    compared: Sequence[tuple[str, Drawn]] = (),
    groups: Sequence[tuple[str, Drawn]] = (),
    not_compared: Sequence[str] = (),
) -> Page:
    """All sections, in order: what was found, then what it was made from."""
    cautions = sections.warnings(material, problems if shown else [])
    made = [
        *([cautions] if isinstance(cautions, Section) else []),
        sections.leaderboard(material),
        sections.comparison(material),
        sections.method_means(material),
        sections.method_volumes(material, options.volume_sign),
        sections.grouped_cases(material, groups),
        sections.compared_cases(material, compared, options.cases, not_compared),
        sections.scores(material),
        sections.distributions(material),
        sections.volumes(material, options.volume_sign),
        sections.precision_recall(material),
        sections.against_volume(material),
        lesion_sizes.section(material),
        sections.shown_cases(material, shown, options.cases, problems),
        sections.data_and_plan(material),
        sections.training(material),
        sections.provenance(material, options.command),
        *([cautions] if isinstance(cautions, Absent) else []),
    ]
    summary = material.summary
    return Page(
        title=material.dataset or material.folder.resolve().name,
        subtitle=_subtitle(material),
        facts=tuple(_facts(material)),
        tiles=sections.tiles(summary) if summary else (),
        sections=tuple(one for one in made if isinstance(one, Section)),
        absent=tuple(one for one in made if isinstance(one, Absent)),
        tables=_records(material, options),
    )


def _records(material: Material, options: PageOptions) -> dict[str, Records]:
    """Tables for programs, by file name."""
    made = score_tables.records(material)
    if material.comparison is not None:
        made["method_means.csv"] = method_charts.mean_records(material.comparison)
        made["method_volumes.csv"] = bland_altman.volume_records(material.comparison, options.volume_sign)
    if curves := charts.fold_records(material.trainings):
        made["training_folds.csv"] = curves
    return made


def _subtitle(material: Material) -> str:
    if material.plan is not None:
        return f"{material.kind}, plan {material.plan.planner}, trainer {material.plan.trainer}"
    return material.kind


def _facts(material: Material) -> list[tuple[str, str]]:
    facts = [("made on", f"{datetime.date.today():%Y-%m-%d}"), ("folder", material.folder.resolve().name)]
    if material.plan is None and (models := dict.fromkeys(r.model for r in material.predicted_by if r.model)):
        facts.append(("model", ", ".join(models)))
    if material.summary is not None:
        n, folds = len(material.summary.cases), [name for name in material.scored if name]
        among = (
            f" in {count_of(len(folds), 'fold')}" if len(folds) > 1 else f" of {folds[0]}" if folds else ""
        )
        facts.append(("scored", f"{count_of(n, 'case')}{among}"))
        facts.append(("preset", material.summary.preset.name))
    if material.comparison is not None:
        facts.append(("methods", ", ".join(method.name for method in material.comparison.methods)))
        facts.append(("compared", count_of(len(material.comparison.cases), "case")))
        facts.append(("preset", material.comparison.preset.name))
    return facts


# ------------------------------------------------------------------------------------------------------- rendering


def render(page: Page, files: str) -> str:
    """The page as HTML that loads nothing.

    Args:
        page: what it says.
        files: name of the folder with figures and tables; empty without any.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    prefixes = iter(range(10_000))

    def svg(panel: Panel) -> Markup:
        return Markup(page_svg(panel, f"f{next(prefixes)}-"))

    environment = Environment(
        loader=PackageLoader("autoseg.report", "."),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = lambda content: (
        f"data:image/webp;base64,{base64.b64encode(content).decode()}"
    )
    environment.globals.update(svg=svg, slider_px=SLIDER_PX)
    return environment.get_template("report.html.j2").render(page=page, files=files)


# --------------------------------------------------------------------------------------------- figures and tables


def _files(page: Page, shown: list[ShownCase]) -> dict[str, bytes]:
    """Figures, montages and tables for a paper, by file name."""
    blocks = [block for section in page.sections for block in section.blocks]
    files: dict[str, bytes] = {}
    for block in blocks:
        if isinstance(block, Figure):
            files.update(paper_files(block.chart))
        elif isinstance(block, CaseCards):
            files.update(picture_files(shown))
    files.update({name: table.as_csv().encode() for name, table in page.tables.items()})
    return files


def _write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files and remove those of an earlier report that this one does not have."""
    listing = folder / LISTING
    earlier: Any = read_json(listing) if listing.is_file() else []
    for name in earlier if isinstance(earlier, list) else []:
        if isinstance(name, str) and Path(name).name == name and name not in files:
            (folder / name).unlink(missing_ok=True)
    for name, content in files.items():
        write_bytes(folder / name, content)
    if files or earlier:
        write_json(listing, sorted(files))

"""The files of a comparison: comparison.json, two CSV files and the figure."""

from __future__ import annotations

from pathlib import Path

from autoseg.comparison.comparison_schema import JSON_NAME, Comparison
from autoseg.comparison.comparison_text import format_differences_csv, format_scores_csv
from autoseg.comparison.figure import draw_comparison
from autoseg.comparison.method_table import format_methods_csv
from autoseg.files import write_json, write_text

CSV_NAME, SCORES_NAME, TABLE_NAME = "comparison.csv", "comparison_cases.csv", "comparison_table.csv"


def write_comparison(comparison: Comparison, folder: Path | str) -> list[Path]:
    """Write all files, the JSON last, and return their paths.

    Raises:
        AutosegError: the folder cannot be written to.
    """
    folder = Path(folder)
    texts = {
        CSV_NAME: format_differences_csv(comparison),
        SCORES_NAME: format_scores_csv(comparison),
        TABLE_NAME: format_methods_csv(comparison),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    figures = draw_comparison(comparison, folder)
    write_json(folder / JSON_NAME, comparison)
    return [folder / name for name in (JSON_NAME, *texts)] + figures

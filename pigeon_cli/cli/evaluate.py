"""``pigeon evaluate``: folders of images to tables, plots and a page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pigeon_cli.cli import options
from pigeon_cli.cli.errors import reports_errors
from pigeon_cli.cli.talk import emit, print_note, print_warning, progress_display
from pigeon_cli.core.errors import UsageError
from pigeon_cli.report.files import prepare, write_all

if TYPE_CHECKING:
    from pigeon_cli.core.evaluation import EvaluationRequest, EvaluationTable, RowFolder
    from pigeon_cli.evaluation.tools import WeightFolders

NAMES: Final = ("table.md", "table.csv", "plots.png", "page.html", "table.json")
"""``table.json`` last, for it speaks of the others."""
WEIGHTS: Final = "Weights of the encoders"

Data = Annotated[
    Path,
    typer.Option(
        "--data", metavar="JSONL|DIR", help="The request file, or the folder that holds requests.jsonl; see README.",
        rich_help_panel=options.INPUTS,
    ),
]  # fmt: skip
Rows = Annotated[
    list[str] | None,
    typer.Option(
        "--row", metavar="NAME=DIR", help="A row of the table: a folder of images named by request id. The others are "
        "compared with the first.", rich_help_panel=options.INPUTS,
    ),
]  # fmt: skip
Baselines = Annotated[
    list[str] | None,
    typer.Option(
        "--baseline", metavar="NAME=DIR", help="The same for images of any other program.",
        rich_help_panel=options.INPUTS,
    ),
]  # fmt: skip
Clip = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="CLIP for CS, CIS and FD; default: clip-vit-h-14 of the download cache.",
        rich_help_panel=WEIGHTS,
    ),
]  # fmt: skip
Dino = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="DINOv2 for DIS and FD; default: dinov2-large of the download cache.",
        rich_help_panel=WEIGHTS,
    ),
]  # fmt: skip
Lpips = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="alexnet.pth and lpips.pth for LPIPS.", rich_help_panel=WEIGHTS),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out", metavar="DIR", help="Folder for tables, plots and page.html.", rich_help_panel=options.OUTPUT
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print table.json instead of the paths.", rich_help_panel=options.OUTPUT)
]


@reports_errors
def evaluate(
    data: Data,
    out: Out,
    row: Rows = None,
    baseline: Baselines = None,
    clip: Clip = None,
    dino: Dino = None,
    lpips: Lpips = None,
    device: options.Device = "auto",
    force: options.Force = False,
    json: Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Score folders of images against references, histories and right answers, by the metrics of the paper.

    Example: pigeon evaluate --data requests.jsonl --row ours=drawn/ --baseline ip-adapter=other/ --out scores/
    """
    if not row and not baseline:
        raise UsageError("there is nothing to evaluate", "add --row NAME=DIR")
    from pigeon_cli.evaluation.requests import read_requests, read_rows, request_file

    rows = read_rows(row or [], baseline or [])
    requests, digest = read_requests(data)
    prepare(out, NAMES, force, [request_file(data)])
    # Not at the top: it loads torch, and mistakes should be told at once.
    from pigeon_cli.evaluation.tools import WeightFolders

    table = _measure(requests, digest, rows, WeightFolders(clip, dino, lpips), device, quiet)
    _tell(table, quiet)
    contents = _contents(requests, rows, table)
    written = write_all(out, list(zip(NAMES, contents, strict=True)))
    emit(contents[-1] if json else b"".join(os.fsencode(path) + b"\n" for path in written), "the tables and the page")


def _measure(
    requests: list[EvaluationRequest],
    digest: str,
    rows: list[RowFolder],
    folders: WeightFolders,
    device: str,
    quiet: bool,
) -> EvaluationTable:
    from pigeon_cli.engine.devices import choose_device
    from pigeon_cli.evaluation.evaluate import evaluate as measure
    from pigeon_cli.evaluation.tools import open_toolbox

    box = open_toolbox(folders, choose_device(device).device)
    with progress_display(quiet) as progress:
        return measure(requests, digest, rows, box, progress)


def _tell(table: EvaluationTable, quiet: bool) -> None:
    from pigeon_cli.report.evaluation_text import by_reason

    for row in table.rows:
        if row.missing:
            print_warning(f"{row.row}: {len(row.missing)} of {table.requests} images are missing or unreadable")
    for names, reason in () if quiet else by_reason(table.not_computed):
        print_note(f"not computed: {names} ({reason})")


def _contents(requests: list[EvaluationRequest], rows: list[RowFolder], table: EvaluationTable) -> list[bytes]:
    """The bytes of NAMES."""
    from pigeon_cli.evaluation.pictures import open_drawn, open_shown
    from pigeon_cli.report.bars import draw_bars
    from pigeon_cli.report.evaluation_page import PAGE_REQUESTS, evaluation_page, shown_request
    from pigeon_cli.report.evaluation_text import csv_text, markdown
    from pigeon_cli.report.json_report import report_bytes
    from pigeon_cli.report.overlay import png_bytes

    shown = []
    for request in requests[:PAGE_REQUESTS]:
        images, drawn = open_shown(request), open_drawn(rows, request)
        shown.append(shown_request(request.id, images.words, images.history, images.reference, drawn, images.target))
    # A row's name may hold bytes of the command line that are no text.
    texts = [text.encode(errors="backslashreplace") for text in (markdown(table), csv_text(table))]
    plot = draw_bars(table)
    page = evaluation_page(table, plot, shown)
    return [*texts, png_bytes(plot), page, report_bytes(table)]

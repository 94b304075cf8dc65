"""``pigeon inspect-mask``: which tokens of the liked images and of the reference the mask keeps, in pictures."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pigeon_cli.cli import options
from pigeon_cli.cli.errors import reports_errors
from pigeon_cli.cli.imports import without_collecting
from pigeon_cli.cli.inputs import (
    Inputs,
    check_alpha,
    check_model,
    choose_sources,
    parse_reference_mask,
    read_inputs,
)
from pigeon_cli.cli.talk import emit, print_note, print_warning, progress_display
from pigeon_cli.core.errors import UsageError
from pigeon_cli.report.files import prepare, reference_stem, write_all

if TYPE_CHECKING:
    from pigeon_cli.core.records import GenerateRequest, MaskReport
    from pigeon_cli.pipeline.run import InspectResult

SHEET_NAME: Final = "masks.png"
MASKS_NAME: Final = "masks.json"

Dial = Annotated[
    str,
    typer.Option(
        "--ref-mask",
        metavar="0..1",
        help="Share of the reference that is hidden: 0 follows the reference, 1 the taste.",
        rich_help_panel=options.TASTE,
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out", metavar="DIR", help="Folder for the overlays and masks.json.", rich_help_panel=options.OUTPUT
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print masks.json instead of the paths.", rich_help_panel=options.OUTPUT),
]


@reports_errors
def inspect_mask(
    more: options.MoreHistory = None,
    history: options.History = None,
    null: options.NullSeparated = False,
    ref: options.Ref = None,
    caption: options.Caption = None,
    prompt: options.Prompt = None,
    sample: options.Sample = False,
    history_size: options.HistorySize = 5,
    order: options.OrderBy = "name",
    recursive: options.Recursive = False,
    alpha: options.Alpha = "white",
    ref_mask: Dial = "0.5",
    history_mask: options.HistoryMask = None,
    mask: options.Mask = None,
    seed: options.Seed = 0,
    model: options.Model = "mini",
    alignment: options.Alignment = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    max_tokens: options.MaxTokens = None,
    device: options.Device = "auto",
    out: Out = Path("pigeon-masks"),
    force: options.Force = False,
    json: Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Show which parts of your images are kept and dropped, and why; the masks are those of generate.

    Example: pigeon inspect-mask --history liked/ --ref cat.png --out masks/
    """
    from pigeon_cli.core.records import GenerateRequest

    dial, background = one_dial(ref_mask), check_alpha(alpha)
    sources = choose_sources(history or [], more or [], ref, caption, prompt, sample)
    use_name = check_model(model, history_size)
    inputs = read_inputs(sources, history_size, order, recursive, null, use_name)
    for warning in inputs.warnings:
        print_warning(warning)
    names = overlay_names(inputs, sources.stem)
    prepare(out, [*names, SHEET_NAME, MASKS_NAME], force, inputs.paths)
    request = GenerateRequest(
        inputs.history, inputs.reference, inputs.prompt, seed=seed, reference_mask=dial, history_mask=history_mask,
        mask=mask, model=model, device=device, alpha=background, temperature=temperature, top_k=top_k,
        max_tokens=max_tokens, alignment=str(alignment) if alignment else None,
    )  # fmt: skip
    result = _run(request, quiet)
    images = tuple(replace(image, overlay=name) for image, name in zip(result.report.images, names, strict=True))
    warnings = (*inputs.warnings, *result.report.warnings)
    report = replace(result.report, images=images, sheet=SHEET_NAME, warnings=warnings)
    written, document = _save(out, result, report)
    if not quiet:
        for line in table(report):
            print_note(line)
    emit(document if json else b"".join(os.fsencode(path) + b"\n" for path in written), "the pictures and masks.json")


def one_dial(text: str) -> float:
    """A share from 0 to 1; raises :class:`UsageError` for anything else, ``auto`` included."""
    dial = parse_reference_mask(text)
    if dial is None:
        raise UsageError("--ref-mask auto is for generate; inspect-mask looks at one position", "try --ref-mask 0.5")
    return dial


def overlay_names(inputs: Inputs, stem: str) -> list[str]:
    """``history-01-NAME.png`` for every used image in order, then ``reference-NAME.png``."""
    from pigeon_cli.core.records import HistoryStatus

    used = [image.path for image in inputs.history if image.status is HistoryStatus.USED]
    names = [f"history-{number:02d}-{reference_stem(path)}.png" for number, path in enumerate(used, 1)]
    return [*names, f"reference-{stem}.png"]


def table(report: MaskReport) -> list[str]:
    """Lines of plain text: what became of the patches of every image."""
    import io

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pigeon_cli.report.masks_sheet import is_recalled, name_of

    columns = Table("image", box=None, pad_edge=False)
    for header in ("patches", "merged", "kept", "dropped", "scores"):
        columns.add_column(header, justify="right", no_wrap=True)
    patches = report.grid**2
    for image in report.images:
        mask, recalled = image.mask, is_recalled(image, report)
        imagined = image.name is None and not recalled
        read = ("-", "-") if imagined else (str(patches), str(patches - mask.placed))
        name = name_of(image, report) + (" (recalled)" if recalled else "")
        scores = f"{min(mask.scores):.3g} to {max(mask.scores):.3g}" if mask.scores else "-"
        counts = (*read, str(len(mask.kept)), str(len(mask.dropped)), scores)
        columns.add_row(Text(f"{image.role} {name}", overflow="fold"), *counts)
    # Drawn to text first: rich ends the process when nobody reads stderr.
    page = Console(file=io.StringIO(), width=Console(stderr=True).width, color_system=None)
    with page.capture() as captured:
        page.print(columns)
    return [line.rstrip() for line in captured.get().splitlines()]


def _run(request: GenerateRequest, quiet: bool) -> InspectResult:
    """Runs the pipeline, whose import is the slow part of a cold start."""
    with without_collecting():
        from pigeon_cli.pipeline.run import inspect_masks

    with progress_display(quiet) as progress:
        result = inspect_masks(request, progress)
    for warning in result.report.warnings:
        print_warning(warning)
    return result


def _save(folder: Path, result: InspectResult, report: MaskReport) -> tuple[list[Path], bytes]:
    """Writes overlays, sheet and document; returns the pictures' paths and the document's bytes."""
    from pigeon_cli.report.json_report import report_bytes
    from pigeon_cli.report.masks_sheet import draw_masks_sheet, draw_overlays
    from pigeon_cli.report.overlay import png_bytes

    overlays = draw_overlays(result.images, report)
    sheet = draw_masks_sheet(result.images, overlays, report)
    contents = [(image.overlay, png_bytes(drawn)) for image, drawn in zip(report.images, overlays, strict=True)]
    document = report_bytes(report)
    *written, _ = write_all(folder, [*contents, (SHEET_NAME, png_bytes(sheet)), (MASKS_NAME, document)])
    return written, document

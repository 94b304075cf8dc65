"""``pigeon study``: a blind pairwise page for people, and the count of their votes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pigeon_cli.cli import options
from pigeon_cli.cli.errors import reports_errors
from pigeon_cli.cli.talk import emit, print_note, progress_display
from pigeon_cli.core.errors import UsageError
from pigeon_cli.report.files import prepare, write_all
from pigeon_cli.report.terminal import clean

if TYPE_CHECKING:
    from pigeon_cli.core.evaluation import StudyCount

PAGE_NAME: Final = "study.html"
KEY_NAME: Final = "key.json"
SEVERAL_RATERS: Final = (
    "The intervals take every vote as independent; several raters voted on the same pairs, so they are too narrow."
)

app = typer.Typer(help="Ask people which of two rows they prefer, blindly.", no_args_is_help=True)

Requests = Annotated[
    Path,
    typer.Option("--requests", metavar="JSONL|DIR", help="The request file, or the folder that holds requests.jsonl."),
]
Rows = Annotated[
    list[str],
    typer.Option("--row", metavar="NAME=DIR", help="Twice: a name and a folder of images named by request id."),
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for study.html and key.json.")]
Count = Annotated[int | None, typer.Option(min=1, help="Pairs to ask; default: every request that both rows answer.")]
Seed = Annotated[int, typer.Option(min=0, help="Decides which pairs, their order and their sides.")]
Key = Annotated[Path, typer.Option("--key", metavar="FILE", help="The key.json of the study.")]
Answers = Annotated[list[Path], typer.Argument(metavar="ANSWERS.json", help="Files that study.html saved.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of lines.")]
Force = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; warnings stay.")]


@app.command("make")
@reports_errors
def make(
    requests: Requests,
    row: Rows,
    out: Out,
    count: Count = None,
    seed: Seed = 0,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Write a page that shows pairs of drawings without their makers, and the key to it in another file.

    Hand out study.html alone. Example: pigeon study make --requests r.jsonl --row a=a/ --row b=b/ --out study/
    """
    from pigeon_cli.evaluation.requests import read_requests, read_rows
    from pigeon_cli.evaluation.study import make_study
    from pigeon_cli.report.json_report import report_bytes

    if len(row) != 2:
        raise UsageError(f"a study compares two rows, and there are {len(row)}", "give --row NAME=DIR twice")
    first, second = read_rows(row)
    asked, digest = read_requests(requests)
    prepare(out, [PAGE_NAME, KEY_NAME], force, [requests])
    with progress_display(quiet) as progress:
        page, key = make_study(asked, digest, (first, second), count, seed, progress)
    document = report_bytes(key)
    written = write_all(out, [(PAGE_NAME, page), (KEY_NAME, document)])
    if count is not None and len(key.pairs) < count and not quiet:
        print_note(f"{len(key.pairs)} pairs: no more requests have an image in both rows")
    emit(document if json else b"".join(os.fsencode(path) + b"\n" for path in written), "the page and its key")


@app.command("count")
@reports_errors
def count(key: Key, answers: Answers, json: Json = False, debug: options.Debug = False) -> None:
    """Print how often each row won, with Wilson's 95% interval; answers of "no difference" stand apart.

    Example: pigeon study count --key study/key.json answers-*.json
    """
    from pigeon_cli.evaluation.study import count_votes, read_key
    from pigeon_cli.report.json_report import report_bytes

    result = count_votes(read_key(key), answers)
    emit(report_bytes(result) if json else "".join(f"{line}\n" for line in lines(result)).encode())


def lines(result: StudyCount) -> list[str]:
    """One tab-separated line a row: name, wins, share of the votes and its interval; then what is no vote, and what
    the interval leaves out."""
    found = ["row\twins\tshare\tlow\thigh"]
    for row, wins in result.wins.items():
        share = result.shares[row]
        numbers = "-\t-\t-" if share is None else f"{share.mean:.3f}\t{share.low:.3f}\t{share.high:.3f}"
        found.append(f"{clean(row)}\t{wins}\t{numbers}")
    found.append(f"no difference\t{result.ties}\t-\t-\t-")
    found.append(f"{result.answers} answers by {result.raters} raters")
    return found if result.raters == 1 else [*found, SEVERAL_RATERS]

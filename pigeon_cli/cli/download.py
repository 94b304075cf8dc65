"""``pigeon download``: published weights into the cache, and what is there."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pigeon_cli.cli.errors import reports_errors
from pigeon_cli.cli.options import Debug
from pigeon_cli.cli.shelf import (
    about,
    ask_consent,
    bundled_folder,
    find_folders,
    model_document,
    model_state,
    not_complete,
    other_users,
    plan_document,
    plan_lines,
    say_plan,
    show,
)
from pigeon_cli.cli.talk import print_note
from pigeon_cli.cli.transfer import transfer_display

DEFAULT = "get"
"""What ``pigeon download MODEL`` is short for."""


class _ModelOrCommand(TyperGroup):
    """A group whose first word may be a model: then it is that of :data:`DEFAULT`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        model = self.commands[DEFAULT].params[0]
        return [*super().shell_complete(ctx, incomplete), *model.shell_complete(ctx, incomplete)]


app = typer.Typer(
    cls=_ModelOrCommand,
    no_args_is_help=True,
    subcommand_metavar="MODEL|COMMAND [ARGS]...",
    help="Fetch published weights into the cache: pigeon download MODEL is short for pigeon download get MODEL.",
)


def complete_name(incomplete: str) -> list[str]:
    """The models of the catalog that begin with ``incomplete``, for the shell."""
    from pigeon_cli.weights.catalog import load_catalog

    return [name for name in load_catalog().models if name.startswith(incomplete)]


Name = Annotated[
    str, typer.Argument(metavar="MODEL", autocompletion=complete_name, help="A name of 'pigeon download list'.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be fetched, and fetch nothing.")]
Sources = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        metavar="[PART=]SOURCE",
        help="Where to take a part from instead: hub:REPO@REV, drive:FOLDER-ID, or a local folder. May be repeated; "
        "PART= says which part of a model of several.",
    ),
]
Endpoint = Annotated[str | None, typer.Option(metavar="URL", help="Another hub; default: HF_ENDPOINT, or the hub.")]
Token = Annotated[str | None, typer.Option(help="For the hub; default: HF_TOKEN, or what 'hf auth login' stored.")]
Offline = Annotated[bool, typer.Option("--offline", help="Use only what is on this machine, as HF_HUB_OFFLINE does.")]
AcceptLicense = Annotated[bool, typer.Option("--accept-license", help="Accept the licences that are shown.")]
KeepOriginal = Annotated[bool, typer.Option("--keep-original", help="Keep the pickles beside what is made of them.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of lines.")]


@app.command(DEFAULT)
@reports_errors
def get(
    model: Name,
    dry_run: DryRun = False,
    source: Sources = None,
    endpoint: Endpoint = None,
    token: Token = None,
    offline: Offline = False,
    accept_license: AcceptLicense = False,
    keep_original: KeepOriginal = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Fetch, verify and convert a model; goes on where an earlier run stopped. Prints its folders.

    Example: pigeon download lavit-7b-v2 --dry-run
    """
    from pigeon_cli.weights.cache import cache_root
    from pigeon_cli.weights.catalog import load_catalog
    from pigeon_cli.weights.download import Settings, carry_out
    from pigeon_cli.weights.plan import make_plan, named_sources
    from pigeon_cli.weights.sources import Access, parse_token

    chosen = load_catalog().model(model)
    sources = named_sources(chosen, source or [])
    if not chosen.parts:
        print_note(f"{model} is in the package: there is nothing to download")
        show(json, model_document(chosen), [bundled_folder(chosen)])
        return
    access = Access(endpoint.rstrip("/") if endpoint else None, parse_token(token), offline)
    with transfer_display() as listener:
        plan = make_plan(chosen, cache_root(), sources, access, keep_original, listener.note)
    say_plan(plan)
    if dry_run:
        show(json, plan_document(plan), plan_lines(plan))
        plan.check_space()
        return
    accepted = ask_consent(plan, accept_license)
    with transfer_display() as listener:
        carry_out(plan, Settings(accepted, keep_original), listener)
    show(json, model_document(chosen), [str(part.folder.path) for part in plan.parts])


@app.command("list")
@reports_errors
def list_models(json: Json = False, debug: Debug = False) -> None:
    """Print every model: name, whether it is here, about how large it is, what it is."""
    from pigeon_cli.weights.catalog import load_catalog

    models = load_catalog().models.values()
    lines = [f"{model.name}\t{model_state(model)}\t{about(model)}\t{model.summary}" for model in models]
    show(json, [model_document(model) for model in models], lines)


@app.command()
@reports_errors
def path(model: Name, json: Json = False, debug: Debug = False) -> None:
    """Print the folders of a complete model, one a line."""
    chosen, folders = find_folders(model)
    if not folders:
        show(json, model_document(chosen), [bundled_folder(chosen)])
        return
    for folder in folders:
        if folder.manifest is None:
            raise not_complete(chosen, folder)
    show(json, model_document(chosen), [str(folder.path) for folder in folders])


@app.command()
@reports_errors
def verify(model: Name, json: Json = False, debug: Debug = False) -> None:
    """Hash every file again and compare; what is damaged is fetched anew by the next download."""
    from pigeon_cli.core.errors import UsageError, WeightsError

    chosen, folders = find_folders(model)
    if not folders:
        raise UsageError(
            f"{model} is in the package, which has no hashes of its files", "if it fails, reinstall pigeon-cli"
        )
    results: dict[str, str] = {}
    lacking = []
    with transfer_display() as listener:
        for folder in folders:
            if (manifest := folder.sealed) is None:
                lacking.append(folder)
                continue
            problems = folder.verify(manifest, listener)
            results |= {str(folder.path / file.path): problems.get(file.path, "") for file in manifest.files}
    bad = {name: problem for name, problem in results.items() if problem}
    files = [{"path": name, "ok": not problem, "problem": problem} for name, problem in results.items()]
    lines = [f"{'damaged' if problem else 'ok'}\t{name}" for name, problem in results.items()]
    lines += [f"{folder.state}\t{folder.path}" for folder in lacking]
    parts = [{"part": folder.part, "state": folder.state, "path": str(folder.path)} for folder in lacking]
    show(json, {"model": chosen.name, "ok": not bad and not lacking, "files": files, "lacking": parts}, lines)
    if bad:
        name, problem = next(iter(bad.items()))
        more = f" ({len(bad) - 1} more)" if len(bad) > 1 else ""
        raise WeightsError(
            f"the file {name} is damaged: {problem}{more}", f"fetch it again with: pigeon download {chosen.name}"
        )
    if lacking:
        raise not_complete(chosen, lacking[0])


@app.command()
@reports_errors
def remove(model: Name, json: Json = False, debug: Debug = False) -> None:
    """Delete a model from the cache, except parts that another complete model needs."""
    from pigeon_cli.core.errors import UsageError
    from pigeon_cli.weights.disk import readable

    chosen, folders = find_folders(model)
    if not folders:
        raise UsageError(f"{model} is in the package and cannot be removed", "remove the package pigeon-cli instead")
    removed, freed = [], 0
    with transfer_display() as listener:
        for folder in folders:
            if (users := other_users(chosen, folder.part)) and len(folders) == 1:
                commands = " and ".join(f"pigeon download remove {user}" for user in users)
                raise UsageError(f"{model} stays: {', '.join(users)} needs it", f"it goes with: {commands}")
            if users:
                print_note(f"{folder.part} stays: {', '.join(users)} needs it")
            elif folder.state != "absent":
                with folder.locked(listener):
                    freed += folder.remove()
                removed.append(str(folder.path))
    print_note(f"{readable(freed)} freed")
    show(json, {"model": chosen.name, "removed": removed, "bytes": freed}, removed)

"""Public folders of Google Drive: gdown reads the folder's page and the page that warns of large files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.weights.hub import is_offline
from pigeon_cli.weights.retry import TIMEOUT, answer, asking, offline
from pigeon_cli.weights.sources import Access, Listing, Source, SourceFile

SITE = "https://drive.google.com"


def list_drive(source: Source, access: Access, note: Callable[[str], None]) -> Listing:
    """Names and ids of all files below a folder; Drive tells neither sizes nor hashes.

    Raises :class:`WeightsError` without gdown, offline, or when the folder's page cannot be read.
    """
    if is_offline(access):
        raise offline(str(source))
    gdown = _gdown()
    note(f"{source}: reading the folder's page")
    try:
        files = gdown.download_folder(
            id=source.name, skip_download=True, quiet=True, use_cookies=False, timeout=TIMEOUT
        )
    except (gdown.DownloadError, OSError) as error:
        raise WeightsError(
            f"cannot read the folder {source}: {error}", "fetch it in a browser and pass its folder as --source"
        ) from error
    found = {
        file.path: SourceFile(file.path, f"drive:{file.id}", address=partial(_address, file.id, file.path))
        for file in files
    }
    return Listing(str(source), found)


def _address(identifier: str, name: str) -> str:
    """The URL that gives the bytes: the plain one, or the one behind the page that asks about a large file."""
    url = f"{SITE}/uc?id={identifier}&export=download"
    with asking(name, url, {}) as response:
        if response.status_code != 200:
            raise answer(response.status_code, response.headers, name)
        if not response.headers.get("Content-Type", "").startswith("text/html"):
            return url
        page = response.read().decode(errors="replace")
    from gdown.download import get_url_from_gdrive_confirmation

    try:
        return str(get_url_from_gdrive_confirmation(page))
    except _gdown().DownloadError as error:
        raise WeightsError(
            f"cannot fetch {name}: Google Drive does not give it out ({error})",
            "try again tomorrow, or fetch it in a browser and pass its folder as --source",
        ) from error


def _gdown() -> Any:
    try:
        import gdown
    except ImportError as error:
        raise WeightsError(
            "Google Drive needs the package gdown",
            "pip install 'pigeon-cli[drive]', or fetch the folder in a browser and pass it as --source",
        ) from error
    return gdown

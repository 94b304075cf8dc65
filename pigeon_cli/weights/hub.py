"""Repositories of the hub: huggingface_hub lists them, knows hashes, URLs and tokens, and what its cache holds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import CacheNotFound, HFValidationError
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # used by transformers likewise

from pigeon_cli import __version__
from pigeon_cli.core.errors import UsageError, WeightsError
from pigeon_cli.weights.digests import Digest
from pigeon_cli.weights.retry import TIMEOUT, PassingFailure, Patience, network_errors, offline
from pigeon_cli.weights.sources import FORMS, Access, Listing, Source, SourceFile

if TYPE_CHECKING:
    from huggingface_hub import CachedRevisionInfo
    from huggingface_hub.hf_api import ModelInfo, RepoSibling


def is_offline(access: Access) -> bool:
    """``--offline``, or huggingface_hub's own switch (``HF_HUB_OFFLINE``)."""
    return access.offline or huggingface_hub.is_offline_mode()


def list_hub(source: Source, access: Access, note: Callable[[str], None]) -> Listing:
    """Names, sizes and hashes as the hub tells them; offline: what the hub's own cache holds of that revision.

    Raises :class:`WeightsError` when the hub refuses, cannot be reached or is none, :class:`UsageError` for a name that
    cannot be a repository.
    """
    if is_offline(access):
        return _list_cache(source)
    info = _model_info(source, access, note)
    commit = info.sha or ""
    headers = build_hf_headers(token=access.token, library_name="pigeon", library_version=__version__)
    found = {}
    for sibling in info.siblings or []:
        name = sibling.rfilename
        url = huggingface_hub.hf_hub_url(source.name, name, revision=commit, endpoint=access.endpoint)
        digest = _digest(sibling)
        found[name] = SourceFile(
            name,
            str(digest) if digest else f"{source.name}@{commit}/{name}",
            sibling.size,
            digest,
            _cached(source.name, name, commit),
            partial(str, url),
            headers,
        )
    return Listing(str(source), found, commit)


def _model_info(source: Source, access: Access, note: Callable[[str], None]) -> ModelInfo:
    api = huggingface_hub.HfApi(endpoint=access.endpoint, token=access.token)
    what = f"the list of files of {source}"
    patience = Patience(what, note)
    while True:
        try:
            with network_errors(what):
                return api.model_info(source.name, revision=source.revision, files_metadata=True, timeout=TIMEOUT)
        except HFValidationError as error:
            raise UsageError(f"{source} is no source: {error}", FORMS) from error
        except (JSONDecodeError, UnicodeDecodeError, TypeError, KeyError) as error:
            raise WeightsError(
                f"cannot fetch {what}: {api.endpoint} answered, but not as a hub does",
                "check --endpoint, and whether this network wants a login in a browser first",
            ) from error
        except PassingFailure as failure:
            patience.wait(failure)


def _digest(sibling: RepoSibling) -> Digest | None:
    if sibling.lfs is not None:
        return Digest("sha256", sibling.lfs.sha256)
    # Git's hash covers the size, so without one it cannot be checked.
    return Digest("git-sha1", sibling.blob_id) if sibling.blob_id and sibling.size is not None else None


def _cached(repository: str, name: str, commit: str) -> Path | None:
    found = huggingface_hub.try_to_load_from_cache(repository, name, revision=commit)
    return Path(found) if isinstance(found, str) else None


def _list_cache(source: Source) -> Listing:
    revision = _snapshot(source)
    found = {}
    for cached in revision.files:
        name = cached.file_path.relative_to(revision.snapshot_path).as_posix()
        # The cache names its blobs by the hash that the hub gave.
        digest = _blob_digest(cached.blob_path.name)
        identity = str(digest) if digest else f"{source.name}@{revision.commit_hash}/{name}"
        found[name] = SourceFile(name, identity, cached.file_path.stat().st_size, digest, cached.file_path)
    return Listing(str(source), found, revision.commit_hash)


def _snapshot(source: Source) -> CachedRevisionInfo:
    try:
        repositories = huggingface_hub.scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        repositories = frozenset()
    for repository in repositories:
        if (repository.repo_type, repository.repo_id) == ("model", source.name):
            for revision in repository.revisions:
                if source.revision in revision.refs or revision.commit_hash.startswith(source.revision):
                    return revision
    raise offline(str(source))


def _blob_digest(name: str) -> Digest | None:
    kind = {64: "sha256", 40: "git-sha1"}.get(len(name))
    if kind is None or set(name) - set("0123456789abcdef"):
        return None
    return Digest("sha256" if kind == "sha256" else "git-sha1", name)

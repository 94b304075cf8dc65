"""What to do when a server does not answer as hoped: try again with patience, or say what the user can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import sleep
from typing import Final

import httpx2
import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from pigeon_cli.core.errors import WeightsError

WAITS: Final = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each further try of a request that brought nothing new."""
LONGEST_WAIT: Final = 300.0
"""A server that wants more seconds than this is not waited for."""
TIMEOUT: Final = 30.0
"""Seconds without a byte after which a connection counts as dead."""
PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
RESUME: Final = "run the same command again: what is there is kept and resumed"


class PassingFailure(Exception):
    """Something that may be gone at the next try; ``wait`` is what the server asked for, in seconds."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class Patience:
    """Counts tries of one file and waits between them."""

    def __init__(self, what: str, note: Callable[[str], None]) -> None:
        self._what = what
        self._note = note
        self.restart()

    def restart(self) -> None:
        """Something new came: count from the start."""
        self._left = list(WAITS)

    def wait(self, failure: PassingFailure) -> None:
        """Raises :class:`WeightsError` when the tries are used up or the server wants too long a wait."""
        if not self._left:
            raise WeightsError(f"cannot fetch {self._what}: {failure} ({len(WAITS) + 1} tries)", RESUME)
        own = self._left.pop(0)
        seconds = own if failure.wait is None else failure.wait
        if seconds > LONGEST_WAIT:
            raise WeightsError(
                f"cannot fetch {self._what}: {failure}; the server asks to wait {seconds:.0f} s", f"later {RESUME}"
            )
        self._note(f"{self._what}: {failure}; trying again in {seconds:.0f} s")
        sleep(seconds)


@contextmanager
def network_errors(what: str) -> Iterator[None]:
    """Turns what the HTTP client and huggingface_hub raise into the two kinds of failure: passing, or for the user."""
    try:
        yield
    except HfHubHTTPError as error:
        raise answer(error.response.status_code, error.response.headers, what) from error
    except OfflineModeIsEnabled as error:
        raise offline(what) from error
    except (httpx2.LocalProtocolError, UnicodeEncodeError):
        # Their words quote the wrong header, which may be that of the token: not even a traceback may hold them.
        raise WeightsError(
            f"cannot fetch {what}: no such request can be sent", "check --endpoint, --token and HF_TOKEN"
        ) from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        if isinstance(error, httpx2.TransportError) and not isinstance(error, httpx2.UnsupportedProtocol):
            raise PassingFailure(f"the connection failed ({str(error) or type(error).__name__})") from error
        raise WeightsError(f"cannot fetch {what}: {error}", "check --endpoint and --source") from error


@contextmanager
def asking(what: str, url: str, headers: Mapping[str, str]) -> Iterator[httpx2.Response]:
    """GET ``url`` by huggingface_hub's client (its proxies, certificates, offline switch); the body is to be read.

    A token among ``headers`` does not follow a redirect to another origin.
    """
    session = huggingface_hub.get_session()
    with (
        network_errors(what),
        session.stream("GET", url, headers=dict(headers), timeout=TIMEOUT, follow_redirects=True) as response,
    ):
        yield response


def answer(status: int, headers: Mapping[str, str], what: str) -> Exception:
    """What an answer other than success means: to be raised."""
    if status in PASSING:
        return PassingFailure(f"the server answered {status}", retry_after(headers.get("Retry-After", "")))
    message = f"cannot fetch {what}: the server answered {status}"
    if status == 401:
        return WeightsError(f"{message} (who are you?)", "check the name, log in with 'hf auth login' or pass --token")
    if status == 403:
        return WeightsError(f"{message} (not allowed)", "accept the model's terms on its page, or pass another --token")
    if status == 404:
        return WeightsError(f"{message} (not there)", "check --source, its revision and --endpoint")
    return WeightsError(message, f"check --endpoint, or later {RESUME}")


def retry_after(value: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, in either of its forms; ``None`` for anything else."""
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (moment.astimezone(UTC) - now()).total_seconds())


def offline(what: str) -> WeightsError:
    """No request may be made, and what is here does not suffice."""
    return WeightsError(
        f"cannot fetch {what} offline", "run it once with a network, without --offline and HF_HUB_OFFLINE"
    )

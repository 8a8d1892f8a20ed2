"""What can go wrong with the hub, as errors that say what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.constants import is_offline_mode
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from mm_gateway.errors import DownloadError

_HTTP_LIBRARIES = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")


@contextmanager
def hub_failures(name: str, revision: str | None = None) -> Iterator[None]:
    """What the library raises inside comes out as DownloadError.

    Args:
        name: of the repository, or what else is asked for; begins the message.
    """
    try:
        yield
    except GatedRepoError as error:
        raise DownloadError(f"{name} is gated on the hub: accept its terms there, then set HF_TOKEN to your access token") from error
    except RevisionNotFoundError as error:
        raise DownloadError(f"{name} has no revision {revision!r} on the hub", missing=True) from error
    except RepositoryNotFoundError as error:
        raise DownloadError(
            f"{name} is not on the hub (or is private): check the name, `mm-gateway search` finds models; "
            "for a folder of your own set path; for a private one set HF_TOKEN",
            missing=True,
        ) from error
    except LocalEntryNotFoundError as error:
        raise _unreachable(name) from error
    except OSError as error:
        raise _of_os_error(error, name) from error
    except Exception as error:  # the HTTP library's own errors of connection
        if type(error).__module__.split(".")[0] in _HTTP_LIBRARIES:
            raise _broken_off(name) from error
        raise


def _unreachable(name: str) -> DownloadError:
    why = ", because HF_HUB_OFFLINE is set. Unset it" if is_offline_mode() else ". Check the network"
    return DownloadError(
        f"{name} is not in the local cache and the hub cannot be reached{why}, or download the model elsewhere and set path to its folder",
        retryable=not is_offline_mode(),
    )


def _broken_off(name: str) -> DownloadError:
    return DownloadError(
        f"{name}: the hub cannot be reached, or broke off. Try again; if it stays so, check the network",
        retryable=True,
    )


def _of_os_error(error: OSError, name: str) -> DownloadError:
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return DownloadError(f"{name}: the hub refused access ({status}). Check the name, and that HF_TOKEN holds a valid token")
        return DownloadError(f"{name}: the hub answered {status}. Try again later", retryable=True)
    if error.errno == errno.ENOSPC:
        return DownloadError(f"{name}: the disk is full. Free some space, or set HF_HOME to a larger disk", retryable=True)
    if isinstance(error, OfflineModeIsEnabled):
        return DownloadError(f"{name}: HF_HUB_OFFLINE is set, so the hub is not asked. Unset it")
    if error.errno is None or isinstance(error, ConnectionError | TimeoutError):
        return _broken_off(name)
    return DownloadError(f"{name}: {error.strerror}: {error.filename}. The cache of the hub must be writable; HF_HOME names another place")

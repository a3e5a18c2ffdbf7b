"""One call at a time, where two would spoil each other's work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hitfinder.errors import HitfinderError

__all__ = ["BusyError", "only_one"]


class BusyError(HitfinderError):
    """Another call is at work on the same thing."""


@contextmanager
def only_one(lock: Path, *, what: str, seconds: float) -> Iterator[None]:
    """Hold a lock file; wait for it at most `seconds`.

    The file stays, empty; the operating system lets go of the lock when a process ends, however it ends.

    Raises
    ------
    BusyError
        Another call holds it for longer.
    HitfinderError
        The place knows no locks.

    Examples
    --------
    >>> import tempfile
    >>> with only_one(Path(tempfile.mkdtemp()) / ".lock", what="the registry", seconds=0):
    ...     "alone"
    'alone'
    """
    # Readable by all who may share the folder: the lock says nothing.
    held = FileLock(lock, timeout=seconds, mode=0o666)
    try:
        held.acquire()
    except Timeout:
        raise BusyError(f"{what}: another call has been at work on it for {seconds:.0f} s; try again later") from None
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise HitfinderError(f"{what}: can't be locked ({reason}); keep it on a disk that knows locks") from None
    try:
        yield
    finally:
        held.release()

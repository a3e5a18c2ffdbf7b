"""Files are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hitfinder.errors import HitfinderError

__all__ = ["replacing"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a file beside `path` to write to, and put it in the place of `path` where nothing went wrong.

    Raises
    ------
    HitfinderError
        It can't be written.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "list.csv"
    >>> with replacing(target) as partial:
    ...     _ = partial.write_text("rank")
    >>> target.read_text(), [file.name for file in target.parent.iterdir()]
    ('rank', ['list.csv'])
    """
    # Not tempfile: its files can be read by their owner only, and these are made to be shared.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise HitfinderError(
            f"{path}: can't be written ({error.strerror or error}); close it where it is open, or choose another place"
        ) from None
    finally:
        with suppress(OSError):  # its folder may be none
            partial.unlink(missing_ok=True)

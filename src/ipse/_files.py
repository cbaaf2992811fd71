"""Writing files so that a reader, or a killed process, never leaves half of one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ipse.errors import DataError


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a binary file that appears under `path` only when the block ends without an error.

    Missing parent folders are made. Data goes to a hidden file in the same folder, is synchronized to the disk and
    renamed over `path`; on an error the hidden file is removed and `path` is as it was.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name[:64]}.{secrets.token_hex(8)}.part")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_whole(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write a file by `atomic_write`, and give its path.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    try:
        with atomic_write(path) as file:
            file.write(data)
    except OSError as error:
        raise DataError(
            f"Cannot write {os.fspath(path)}: {error.strerror or error}.", "Choose a folder that you may write to."
        ) from error
    return Path(path)

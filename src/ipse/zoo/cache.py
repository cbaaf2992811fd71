"""A folder for what is made once and used often (converted networks), safe to delete at any time."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ipse._files import atomic_write


def cache_dir() -> Path:
    """The cache folder, which may not exist yet: ``$IPSE_CACHE``, or ``ipse`` where the system keeps its caches."""
    if override := os.environ.get("IPSE_CACHE"):
        return Path(override).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "ipse"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "ipse"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ipse"


def cached(name: str, make: Callable[[], bytes]) -> bytes:
    """The bytes stored in the cache as ``name``, or those of ``make()``, which are then stored.

    A checksum lies beside each file: one that was cut short or changed is made again. Files appear whole or not at
    all, so several processes may ask at once. Where the folder cannot be written, the bytes are made each time.
    """
    path = cache_dir() / name
    digest_path = path.with_name(path.name + ".sha256")
    with suppress(OSError):  # not there yet: made below
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest().encode() == digest_path.read_bytes():
            return data
    data = make()
    # A cache that cannot be written costs time, not the result.
    with suppress(OSError):
        for target, content in ((path, data), (digest_path, hashlib.sha256(data).hexdigest().encode())):
            with atomic_write(target) as file:
                file.write(content)
    return data

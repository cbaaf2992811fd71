"""ipse: human identity in images. Recognize, generate, measure, guard.

This module is the front door: everything below is imported when it is first used, so that ``import ipse`` is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ipse import attributes, catalogue, encoders, errors, faces, gallery, identity, images, measure, world, zoo
    from ipse.errors import (
        ConsentError,
        DataError,
        FingerprintMismatch,
        GalleryError,
        ImageError,
        IpseError,
        WeightsError,
        WorldError,
    )
    from ipse.gallery import Gallery
    from ipse.identity import Identity
    from ipse.images import read_image

_ROOMS = frozenset(
    (
        "attributes",
        "catalogue",
        "encoders",
        "errors",
        "faces",
        "gallery",
        "identity",
        "images",
        "measure",
        "world",
        "zoo",
    )
)
_HOMES = {
    "Gallery": "ipse.gallery",
    "Identity": "ipse.identity",
    "read_image": "ipse.images",
    "ConsentError": "ipse.errors",
    "DataError": "ipse.errors",
    "FingerprintMismatch": "ipse.errors",
    "GalleryError": "ipse.errors",
    "ImageError": "ipse.errors",
    "IpseError": "ipse.errors",
    "WeightsError": "ipse.errors",
    "WorldError": "ipse.errors",
}

__all__ = [  # noqa: RUF022 - what users start from comes first
    "Identity",
    "Gallery",
    "read_image",
    "ConsentError",
    "DataError",
    "FingerprintMismatch",
    "GalleryError",
    "ImageError",
    "IpseError",
    "WeightsError",
    "WorldError",
    "attributes",
    "catalogue",
    "encoders",
    "errors",
    "faces",
    "gallery",
    "identity",
    "images",
    "measure",
    "world",
    "zoo",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"ipse.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ipse' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

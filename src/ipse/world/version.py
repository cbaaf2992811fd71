"""The version of the world: the same number gives the same Person, Look and Shot for as long as it stays."""

from __future__ import annotations

VERSION = "1"

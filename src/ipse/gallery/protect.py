"""Template protection: vectors turned by a secret rotation that only the holder of a passphrase can repeat.

A rotation keeps every distance, so search works as before for whoever turns the query the same way; without the
passphrase a stored vector cannot be compared with any vector from outside. It does not hide distances *within* the
gallery, and whoever learns as many pairs of plain and stored vectors as a vector has numbers can solve for it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ipse.errors import GalleryError

# 32 MiB and about 0.1 s per guess.
_COST = {"n": 2**15, "r": 8, "p": 1}
_MEMORY = 128 * 2**20


@dataclass(frozen=True)
class Protection:
    """A secret rotation and what a gallery stores to recognize its key: never the key itself.

    Attributes
    ----------
    rotation
        (D, D) float64, orthogonal.
    record
        JSON values: the kind of key derivation with its cost, the salt and a check value.
    """

    rotation: npt.NDArray[np.float64] = field(repr=False)
    record: dict[str, Any]

    @classmethod
    def new(cls, key: str | bytes, dim: int) -> Protection:
        """A protection with a fresh salt.

        Parameters
        ----------
        key
            The passphrase, not empty; its strength is the protection's.
        dim
            D, the length of the vectors.

        Raises
        ------
        ValueError
            If the key is empty.
        """
        record: dict[str, Any] = {"kdf": "scrypt", **_COST, "salt": secrets.token_hex(16)}
        seed, record["check"] = _derive(key, record)
        return cls(_rotation(seed, dim), record)

    @classmethod
    def unlock(cls, key: str | bytes, dim: int, record: dict[str, Any]) -> Protection:
        """The protection that `record` describes.

        Raises
        ------
        GalleryError
            If the key is another (reason ``wrong-key``).
        """
        seed, check = _derive(key, record)
        if not hmac.compare_digest(check, record["check"]):
            raise GalleryError(
                "The key does not fit this gallery.",
                "Give the passphrase it was protected with; without it the templates cannot be used.",
                reason="wrong-key",
            )
        return cls(_rotation(seed, dim), record)

    def hide(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Turn plain (N, D) vectors into stored ones."""
        return (vectors @ self.rotation).astype(np.float32)

    def reveal(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Turn stored (N, D) vectors back into plain ones, up to rounding."""
        return (vectors @ self.rotation.T).astype(np.float32)


def _derive(key: str | bytes, record: dict[str, Any]) -> tuple[bytes, str]:
    """The seed of the rotation, and the value that recognizes the key without telling it."""
    secret = key.encode() if isinstance(key, str) else bytes(key)
    if not secret:
        raise ValueError("A key cannot be empty.")
    derived = hashlib.scrypt(
        secret,
        salt=bytes.fromhex(record["salt"]),
        n=record["n"],
        r=record["r"],
        p=record["p"],
        maxmem=_MEMORY,
        dklen=64,
    )
    return derived[:32], hmac.new(derived[32:], b"ipse.gallery/check", "sha256").hexdigest()


def _rotation(seed: bytes, dim: int) -> npt.NDArray[np.float64]:
    """An orthogonal matrix, uniform over all of them, the same for a seed on every machine and in every version.

    The normal numbers come from a hash in place of NumPy's generators, whose streams may change between versions.
    """
    count = dim * dim + dim * dim % 2
    bits = np.frombuffer(hashlib.shake_256(seed).digest(8 * count), "<u8")
    radius, angle = ((bits >> 11) + 0.5).reshape(2, -1) / 2**53
    radius = np.sqrt(-2 * np.log(radius))
    normal = np.concatenate([radius * np.cos(2 * np.pi * angle), radius * np.sin(2 * np.pi * angle)])[: dim * dim]
    q, r = np.linalg.qr(normal.reshape(dim, dim))
    # QR leaves the signs open; a positive diagonal of R makes the result unique and uniform.
    return q * np.where(np.diag(r) < 0, -1.0, 1.0)

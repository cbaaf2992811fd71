"""`Identity`: who somebody is, as a value that every part of ipse can make, read or test."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ipse._files import write_whole
from ipse.errors import ConsentError, DataError, FingerprintMismatch

Metric = Literal["cosine", "l2"]

_FORMAT = "ipse.identity/1"
_TEXTS = ("name", "encoder", "fingerprint", "metric")
# A vector shorter than this has no direction worth comparing.
_TINY = 1e-6


@dataclass(frozen=True, eq=False)
class Identity:
    """One person's templates, with what made them, where they come from and what they may be used for.

    An identity is a value: nothing changes it, `add` and `merge` make new ones, two with equal content are equal.

    Parameters
    ----------
    name
        Who it is; not empty.
    templates
        (N, D) or (D,), N ≥ 1: one encoder output per image. Stored as read-only `float32`.
    encoder
        Name of the encoder that made the templates.
    fingerprint
        The encoder's fingerprint (sha256, hexadecimal); only templates of one fingerprint are compared.
    metric
        ``"cosine"`` (templates are directions) or ``"l2"`` (templates are points).
    quality
        (N,) from 0 to 1, how well each image serves recognition; 1 for all where it is not known.
    provenance
        One dictionary per template, of JSON values: by convention ``source``, ``sha256`` of the image file, ``box``
        (left, top, right, bottom) and ``date`` (ISO 8601). Empty dictionaries where it is not known.
    consent
        ``{"purposes": {"recognize": True, "generate": False}, "date": ..., "source": ...}``. A purpose that is not
        named is not allowed.

    Raises
    ------
    ValueError
        If a part is missing, of the wrong shape, or not finite; the message says which.
    """

    name: str
    templates: npt.NDArray[np.float32]
    encoder: str
    fingerprint: str
    metric: Metric = "cosine"
    quality: npt.NDArray[np.float32] | None = None
    provenance: Sequence[Mapping[str, Any]] = ()
    consent: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part in _TEXTS:
            value = getattr(self, part)
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"An identity needs a {part}; got {value!r}.")
        if self.metric not in ("cosine", "l2"):
            raise ValueError(f"The metric is 'cosine' or 'l2', not {self.metric!r}.")
        templates = _template_rows(self.templates)
        if self.metric == "cosine" and (np.linalg.norm(templates, axis=1) < _TINY).any():
            raise ValueError("A template of zeros has no direction, so the cosine metric cannot use it.")
        quality = _quality(self.quality, len(templates))
        provenance = tuple(_json_value(entry, "provenance") for entry in self.provenance) or ({},) * len(templates)
        if len(provenance) != len(templates):
            raise ValueError(f"{len(provenance)} provenance entries for {len(templates)} templates; give one for each.")
        if not all(isinstance(entry, dict) for entry in provenance):
            raise ValueError("Each provenance entry is a dictionary.")
        consent = _json_value(self.consent, "consent")
        purposes = consent.get("purposes", {}) if isinstance(consent, dict) else None
        if not isinstance(purposes, dict) or not all(isinstance(allowed, bool) for allowed in purposes.values()):
            raise ValueError("Consent is a dictionary whose 'purposes' maps names to True or False.")
        for array in (templates, quality):
            array.flags.writeable = False
        for part, value in (
            ("templates", templates),
            ("quality", quality),
            ("provenance", provenance),
            ("consent", consent),
        ):
            object.__setattr__(self, part, value)

    @property
    def dim(self) -> int:
        """D, the length of a template."""
        return self.templates.shape[1]

    def __len__(self) -> int:
        """N, the number of templates."""
        return len(self.templates)

    def __repr__(self) -> str:
        count = f"{len(self)} template{'s' if len(self) > 1 else ''}"
        return f"Identity({self.name!r}, {count} of {self.encoder} {self.fingerprint[:12]})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Identity):
            return NotImplemented
        return (
            all(getattr(self, part) == getattr(other, part) for part in (*_TEXTS, "provenance", "consent"))
            and np.array_equal(self.templates, other.templates)
            and np.array_equal(self.quality, other.quality)
        )

    __hash__ = None  # type: ignore[assignment] # its dictionaries cannot be hashed

    def centroid(self, *, by_quality: bool = False) -> npt.NDArray[np.float32]:
        """The one vector that stands for all templates.

        Parameters
        ----------
        by_quality
            Weight templates by their quality; plain mean where all qualities are 0.

        Returns
        -------
        numpy.ndarray
            (D,) `float32`: the mean template for ``l2``; for ``cosine`` the mean of the unit templates, of length 1.

        Raises
        ------
        ValueError
            If the templates of a ``cosine`` identity cancel each other out, as opposite directions do.
        """
        rows = self.templates.astype(np.float64)
        if self.metric == "cosine":
            rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        weights = self.quality if by_quality and self.quality.any() else None
        mean = np.average(rows, axis=0, weights=weights)
        if self.metric == "cosine":
            length = np.linalg.norm(mean)
            if length < _TINY:
                raise ValueError(f"The templates of {self.name} point in opposite directions: are they one person's?")
            mean = mean / length
        return mean.astype(np.float32)

    def distance(self, other: Identity) -> float:
        """Distance of the two centroids: 1 − cosine (0 to 2), or Euclidean for ``l2``.

        Raises
        ------
        FingerprintMismatch
            If the two come from different encoders.
        """
        self.require_same_encoder(other)
        ours, theirs = self.centroid().astype(np.float64), other.centroid().astype(np.float64)
        if self.metric == "cosine":
            return float(np.clip(1 - ours @ theirs, 0, 2))
        return float(np.linalg.norm(ours - theirs))

    def similarity(self, other: Identity) -> float:
        """Likeness of the two centroids, larger meaning closer: the cosine (−1 to 1), or 1 / (1 + distance) for ``l2``.

        Raises
        ------
        FingerprintMismatch
            If the two come from different encoders.
        """
        distance = self.distance(other)
        return 1 - distance if self.metric == "cosine" else 1 / (1 + distance)

    def add(
        self,
        templates: npt.ArrayLike,
        *,
        quality: npt.ArrayLike | None = None,
        provenance: Sequence[Mapping[str, Any]] = (),
    ) -> Identity:
        """A new identity with more templates of the same encoder.

        Parameters
        ----------
        templates
            (M, D) or (D,).
        quality
            (M,) from 0 to 1; 1 by default.
        provenance
            M dictionaries; empty ones by default.

        Raises
        ------
        ValueError
            If shapes do not fit.
        """
        return self.merge(replace(self, templates=templates, quality=quality, provenance=provenance))

    def merge(self, other: Identity) -> Identity:
        """A new identity with the templates of both, under this one's name.

        A purpose is allowed afterwards only where both allow it, since the templates cannot be told apart in use; the
        rest of the consent record is this one's, with the other's under ``merged`` if it differs.

        Raises
        ------
        FingerprintMismatch
            If the two come from different encoders.
        ValueError
            If their templates differ in length.
        """
        self.require_same_encoder(other)
        if self.dim != other.dim:
            raise ValueError(f"Templates of length {other.dim} cannot join templates of length {self.dim}.")
        return replace(
            self,
            templates=np.concatenate([self.templates, other.templates]),
            quality=np.concatenate([self.quality, other.quality]),
            provenance=(*self.provenance, *other.provenance),
            consent=_common_consent(self.consent, other.consent),
        )

    def permits(self, purpose: str) -> bool:
        """Whether the recorded consent allows a purpose, such as ``"recognize"`` or ``"generate"``."""
        return self.consent.get("purposes", {}).get(purpose, False)

    def require(self, purpose: str) -> None:
        """Refuse a purpose that the recorded consent does not allow.

        Raises
        ------
        ConsentError
            Naming the person and the purpose.
        """
        if not self.permits(purpose):
            known = "refuses it" if purpose in self.consent.get("purposes", {}) else "does not mention it"
            raise ConsentError(
                f"{self.name} may not be used to {purpose}: the recorded consent {known}.",
                f"Ask {self.name}, then record the answer with its date and source in the identity's consent.",
            )

    def require_same_encoder(self, other: Identity) -> None:
        """Refuse an identity whose templates come from another encoder.

        Raises
        ------
        FingerprintMismatch
            Naming both encoders.
        """
        if self.fingerprint != other.fingerprint:
            raise FingerprintMismatch((self.encoder, self.fingerprint), (other.encoder, other.fingerprint))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a safetensors file; it appears whole or not at all, and replaces an older one.

        Returns
        -------
        pathlib.Path
            `path`.

        Raises
        ------
        DataError
            If the file cannot be written there.
        """
        from safetensors.numpy import save

        record = {part: getattr(self, part) for part in (*_TEXTS, "provenance", "consent")}
        data = save(
            {"templates": self.templates, "quality": self.quality},
            metadata={"format": _FORMAT, "identity": json.dumps(record, ensure_ascii=False, sort_keys=True)},
        )
        return write_whole(path, data)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Identity:
        """Read what `save` wrote. No code is ever run from the file.

        Raises
        ------
        DataError
            If the file is missing, damaged, or not an identity.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(os.fspath(path), framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != _FORMAT:
                    raise DataError(
                        f"{os.fspath(path)} is not an identity of a format that this version reads "
                        f"({metadata.get('format', 'none')} instead of {_FORMAT}).",
                        "Write it with Identity.save of the same version of ipse.",
                    )
                record = json.loads(metadata["identity"])
                arrays = {part: file.get_tensor(part) for part in ("templates", "quality")}
            return cls(**record, **arrays)
        except OSError as error:
            raise DataError(f"Cannot read {os.fspath(path)}: {error}.", "Check the path.") from error
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{os.fspath(path)} is damaged: {error}", "Restore it from a backup, or enroll the person again."
            ) from error


def _template_rows(templates: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Copy templates to an (N, D) array of finite float32."""
    rows = np.array(templates, dtype=np.float32, ndmin=2)
    if rows.ndim != 2 or rows.size == 0:
        raise ValueError(f"Templates have shape (N, D) with N and D at least 1, not {np.shape(templates)}.")
    if not np.isfinite(rows).all():
        raise ValueError("Templates hold values that are not finite.")
    return rows


def _quality(quality: npt.ArrayLike | None, count: int) -> npt.NDArray[np.float32]:
    values = np.ones(count, np.float32) if quality is None else np.array(quality, dtype=np.float32, ndmin=1)
    if values.shape != (count,):
        raise ValueError(f"Quality has shape {values.shape} for {count} templates; give one value for each.")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("Quality goes from 0 to 1.")
    return values


def _json_value(value: Any, part: str) -> Any:
    """Copy a value as JSON would bring it back, so that saving and loading changes nothing."""
    try:
        plain = dict(value) if isinstance(value, Mapping) else value
        return json.loads(json.dumps(plain, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"The {part} of an identity holds JSON values only: {error}.") from error


def _common_consent(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    if ours == theirs:
        return dict(ours)
    mine, other = ours.get("purposes", {}), theirs.get("purposes", {})
    both = {purpose: mine.get(purpose, False) and other.get(purpose, False) for purpose in {**mine, **other}}
    return copy.deepcopy({**ours, "purposes": both, "merged": theirs})

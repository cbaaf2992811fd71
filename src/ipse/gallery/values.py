"""What a gallery takes and answers, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ipse.identity import Metric

if TYPE_CHECKING:
    from ipse.encoders import Encoder

UNKNOWN = "unknown"
"""The name of whoever is not in the gallery."""

Grouping = Literal["best", "mean", "top3"]
"""How the distances to a person's templates become the distance to the person: the nearest, the mean of all, or the
mean of the three nearest."""

# By its author; the start of the name, so that averaged forms of the network are meant too.
_THRESHOLDS = {"dlib-face-128": 0.6}


@dataclass(frozen=True)
class EncoderSpec:
    """What a gallery has to know of an encoder.

    Attributes
    ----------
    name, fingerprint, metric, dim
        As in `ipse.encoders.Encoder`.
    modality
        What the encoder looks at, such as ``"face"``.
    threshold
        The distance that its author calls the same person; None where nobody said.
    """

    name: str
    fingerprint: str
    metric: Metric
    dim: int
    modality: str = "face"
    threshold: float | None = None

    @classmethod
    def of(cls, encoder: Encoder | EncoderSpec) -> EncoderSpec:
        """The spec of an encoder."""
        if isinstance(encoder, EncoderSpec):
            return encoder
        known = next((value for name, value in _THRESHOLDS.items() if encoder.name.startswith(name)), None)
        threshold = getattr(encoder, "threshold", known)
        return cls(encoder.name, encoder.fingerprint, encoder.metric, int(encoder.dim), encoder.modality, threshold)


@dataclass(frozen=True)
class Match:
    """A person of the gallery and how near the query comes to them.

    Attributes
    ----------
    name
        Who.
    distance
        0 and up: Euclidean for ``l2``; 1 − cosine, 0 to 2, for ``cosine``.
    similarity
        Larger is closer: 1 / (1 + distance) for ``l2``, the cosine for ``cosine``.
    template_id
        The person's template nearest to the query.
    known
        Whether the distance is within the threshold.
    confidence
        0–1: the share of strangers who come out farther from everybody in the gallery than this query from this person;
        None until the gallery is calibrated.
    provenance
        Of the nearest template: where it comes from.
    """

    name: str
    distance: float
    similarity: float
    template_id: str
    known: bool
    confidence: float | None
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """Who a query is.

    Attributes
    ----------
    matches
        People, nearest first, known or not; empty where nobody is enrolled (or the filter leaves nobody).
    threshold
        The distance up to which somebody is known; None if there is none, and then nobody is.
    """

    matches: tuple[Match, ...]
    threshold: float | None

    @property
    def nearest(self) -> Match | None:
        """The nearest person, known or not; None where nobody is enrolled."""
        return self.matches[0] if self.matches else None

    @property
    def known(self) -> bool:
        """Whether the nearest person is within the threshold."""
        return bool(self.matches) and self.matches[0].known

    @property
    def name(self) -> str:
        """The nearest person's name if they are within the threshold, else ``"unknown"``."""
        return self.matches[0].name if self.known else UNKNOWN


@dataclass(frozen=True)
class PersonInfo:
    """One line of the list of people.

    Attributes
    ----------
    name
        Who.
    templates
        How many templates they have.
    purposes
        What every one of their templates may be used for, sorted.
    enrolled
        When the first template came in, ISO 8601, UTC.
    """

    name: str
    templates: int
    purposes: tuple[str, ...]
    enrolled: str


@dataclass(frozen=True)
class Threshold:
    """Up to which distance somebody is known, and why.

    Attributes
    ----------
    value
        The distance; None where neither a calibration nor the encoder's author gives one.
    source
        ``"calibrated"``, ``"encoder"`` or ``"none"``.
    note
        What to know before relying on it; empty if there is nothing.
    """

    value: float | None
    source: Literal["calibrated", "encoder", "none"]
    note: str


@dataclass(frozen=True)
class Migration:
    """What `Gallery.migrate` did.

    Attributes
    ----------
    templates
        How many templates the new encoder made.
    dropped
        Templates lost per person: those without a stored crop, or in whose crop the new encoder's face was not found.
    to_enroll_again
        People of whom nothing is left.
    """

    templates: int
    dropped: dict[str, int]
    to_enroll_again: tuple[str, ...]

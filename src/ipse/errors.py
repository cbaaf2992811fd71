"""The exceptions that users see. Each message says what happened; its hint says what to do about it."""

from __future__ import annotations


class IpseError(Exception):
    """Base of every error that ipse raises on purpose.

    Parameters
    ----------
    message
        What happened, in one sentence.
    hint
        What the user can do about it; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class ImageError(IpseError):
    """An image cannot be read, cut or written.

    Parameters
    ----------
    message, hint
        As in `IpseError`.
    reason
        A stable code for programs: ``missing``, ``directory``, ``unreadable``, ``empty``, ``not-an-image``,
        ``unsupported``, ``truncated``, ``corrupt``, ``too-large``, ``no-pixels``, ``bad-array``, ``bad-box`` or
        ``unwritable``.
    """

    def __init__(self, message: str, hint: str = "", *, reason: str) -> None:
        super().__init__(message, hint)
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process borders by calling the class on `args`, which loses keyword-only arguments.
        return _image_error, (self.message, self.hint, self.reason)


def _image_error(message: str, hint: str, reason: str) -> ImageError:
    return ImageError(message, hint, reason=reason)


class FingerprintMismatch(IpseError):
    """Two sets of templates come from different encoders, so their distance would mean nothing.

    Parameters
    ----------
    ours, theirs
        Name and fingerprint of the two encoders.
    """

    def __init__(self, ours: tuple[str, str], theirs: tuple[str, str]) -> None:
        Exception.__init__(self, ours, theirs)
        self.ours = ours
        self.theirs = theirs
        mine, other = (f"{name} ({fingerprint[:12]})" for name, fingerprint in (ours, theirs))
        self.message = f"Templates of two encoders cannot be compared: {mine} and {other}."
        self.hint = f"To migrate, encode the original images again with {mine}; templates cannot be converted."


class ConsentError(IpseError):
    """The recorded consent does not allow what was asked for."""


class WeightsError(IpseError):
    """Model weights are missing, damaged or not the ones that were asked for."""


class WorldError(IpseError):
    """A person, look or shot of the world cannot exist: an impossible parameter, an unknown garment."""


class DataError(IpseError):
    """Data on disk cannot be read or written as asked: a damaged file, an unknown format, an unwritable folder."""


class TrainingError(IpseError):
    """A training cannot start or go on: a recipe that asks for what there is not, a loss that is no number."""


class GalleryError(DataError):
    """A gallery cannot do what was asked: an unknown person, a name clash, a wrong key, an unwritable folder.

    Parameters
    ----------
    message, hint
        As in `IpseError`.
    reason
        A stable code for programs: ``missing``, ``exists``, ``damaged``, ``unwritable``, ``busy``, ``unknown-person``,
        ``name-clash``, ``bad-name``, ``needs-key``, ``wrong-key``, ``bad-filter``, ``no-crops`` or ``too-few``.
    """

    def __init__(self, message: str, hint: str = "", *, reason: str) -> None:
        super().__init__(message, hint)
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return _gallery_error, (self.message, self.hint, self.reason)


def _gallery_error(message: str, hint: str, reason: str) -> GalleryError:
    return GalleryError(message, hint, reason=reason)

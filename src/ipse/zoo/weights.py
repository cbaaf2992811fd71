"""Where weights come from: inside ipse, inside another installed package, or a file of the user's.

Whatever the place, `Weights` names one file with its checksum and license, and hands out its bytes only when they are
the right ones.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from ipse.errors import WeightsError


@dataclass(frozen=True)
class Weights:
    """One weight file.

    Attributes
    ----------
    name
        What errors call it.
    file
        Its path inside `package`, or a path on this machine where `package` is None.
    license
        The terms of the weights.
    package
        The installed package that carries the file (``"ipse"`` for shipped weights). It is located, never imported.
    sha256
        Checksum of the content in hexadecimal; None for a user's own file, whose content is its own truth.
    """

    name: str
    file: str
    license: str
    package: str | None = None
    sha256: str | None = None

    def path(self) -> Path:
        """The file's place on this machine.

        Raises
        ------
        WeightsError
            If the package or the file is missing; says what to install.
        """
        if self.package is None:
            path = Path(self.file).expanduser()
            if not path.is_file():
                raise WeightsError(f"{self.name}: there is no file {path}.", "Give the path of an existing file.")
            return path
        spec = importlib.util.find_spec(self.package)
        command = f"pip install {self.package}"
        if spec is None or not spec.submodule_search_locations:
            raise WeightsError(
                f"{self.name} comes with the package {self.package}, which is not installed.", f"Run: {command}"
            )
        for folder in spec.submodule_search_locations:
            if (path := Path(folder) / self.file).is_file():
                return path
        raise WeightsError(
            f"{self.name}: the package {self.package} lacks {self.file}.", f"Run: {command} --force-reinstall"
        )

    def read(self) -> bytes:
        """The content of the file.

        Raises
        ------
        WeightsError
            If the file is missing, cannot be read, or its checksum is wrong.
        """
        path = self.path()
        try:
            data = path.read_bytes()
        except OSError as error:
            raise WeightsError(f"{self.name}: {path} cannot be read ({error.strerror}).") from error
        found = hashlib.sha256(data).hexdigest()
        if self.sha256 is not None and found != self.sha256:
            raise WeightsError(
                f"{self.name}: the checksum of {path} ({len(data):,} bytes) is {found[:16]}…, not {self.sha256[:16]}….",
                "The file is cut short, damaged or another version: install it again.",
            )
        return data

    def checked_path(self) -> Path:
        """Like `path`, for libraries that read the file themselves: the content has been checked.

        Raises
        ------
        WeightsError
            As `read`.
        """
        self.read()
        return self.path()


DLIB_FACE_NETWORK = Weights(
    name="the public-domain face network",
    file="models/dlib_face_recognition_resnet_model_v1.dat",
    license="public domain (CC0)",
    package="face_recognition_models",
    sha256="55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
)

DLIB_FIVE_POINTS = Weights(
    name="the five-point landmark predictor",
    file="models/shape_predictor_5_face_landmarks.dat",
    license="public domain (CC0)",
    package="face_recognition_models",
    sha256="c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888",
)

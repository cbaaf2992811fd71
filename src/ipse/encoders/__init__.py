"""Image to embedding: the encoder contract and the encoders that come with ipse."""

from ipse.encoders.contract import ChipSpec, Encoder
from ipse.encoders.dlib_face import DlibFaceEncoder

__all__ = ["ChipSpec", "DlibFaceEncoder", "Encoder"]

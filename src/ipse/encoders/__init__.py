"""Image to embedding: the encoder contract and the encoders that come with ipse."""

from ipse.encoders.averaged import AveragedEncoder
from ipse.encoders.contract import ChipSpec, Encoder
from ipse.encoders.dlib_face import DlibFaceEncoder
from ipse.encoders.onnx_face import OnnxContract, OnnxFaceEncoder
from ipse.encoders.opening import encoder_names, open_encoder
from ipse.encoders.shipped import ShippedEncoder, ShippedNetwork

__all__ = [
    "AveragedEncoder",
    "ChipSpec",
    "DlibFaceEncoder",
    "Encoder",
    "OnnxContract",
    "OnnxFaceEncoder",
    "ShippedEncoder",
    "ShippedNetwork",
    "encoder_names",
    "open_encoder",
]

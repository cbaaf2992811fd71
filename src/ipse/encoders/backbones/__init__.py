"""Networks that turn pictures into embeddings, defined without weights: one file per family.

::

    from ipse.encoders.backbones import backbone

    network = backbone("osnet_ain", width=0.25)
    network(pixels)  # (N, 3, 256, 128) normalized floats -> (N, 512)

Every network is a `Backbone`: it has a `dim`, gives its feature map, and has slots where blocks of attention go.
"""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from ipse.encoders.backbones.common import Backbone
from ipse.errors import WeightsError

#: Where each network is defined: ``module:function`` of this package; the function takes the options.
BACKBONES: dict[str, str] = {
    "osnet": "osnet:osnet",
    "osnet_ibn": "osnet:osnet_ibn",
    "osnet_ain": "osnet:osnet_ain",
    "resnet50": "resnet:resnet50",
    "resnet50_ibn_a": "resnet:resnet50_ibn_a",
    "resnet50_ibn_b": "resnet:resnet50_ibn_b",
    "iresnet": "iresnet:IResNet",
    "iresnet18": "iresnet:iresnet18",
    "iresnet50": "iresnet:iresnet50",
    "iresnet100": "iresnet:iresnet100",
    "nested_iresnet": "nested:NestedIResNet",
    "split_iresnet": "split:SplitIResNet",
    "mobilefacenet": "mobilefacenet:mobilefacenet",
    "vit_small": "vit:vit_small",
    "vit_base": "vit:vit_base",
    "made": "made:MadeTransformer",
    "contour": "contour:ContourNetwork",
    "kpr": "kpr:KeypointPrompted",
    "gaitset": "gaitset:GaitSet",
}


def backbone(name: str, **options: Any) -> Backbone:
    """Build a network with random weights.

    Parameters
    ----------
    name
        One of `BACKBONES`.
    **options
        Those of the function in the table, such as ``width``, ``dim``, ``size`` or ``attention``.

    Raises
    ------
    WeightsError
        For an unknown name, or options that the network does not take.
    """
    if name not in BACKBONES:
        near = difflib.get_close_matches(name, BACKBONES, 1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise WeightsError(f"There is no backbone {name!r}.", f"{hint}There are {', '.join(BACKBONES)}.")
    module, _, function = BACKBONES[name].partition(":")
    build = getattr(importlib.import_module(f"{__name__}.{module}"), function)
    try:
        return build(**options)
    except TypeError as error:
        raise WeightsError(
            f"{name} cannot be built with {options}: {error}.", f"See {function} in {module}.py."
        ) from error


__all__ = ["BACKBONES", "Backbone", "backbone"]

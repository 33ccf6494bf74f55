"""Networks: what CAM and freezing need of a classifier, and the two used on the embedded data."""

from .adapter import Adapter, errors_of, layout_of, module_errors, second_derivatives, shares_weights
from .architecture import Architecture
from .base import CamClassifier, Standardise, WithCamHead, predict, split
from .checkpoint import fitting, recalibrate
from .copies import copied
from .functional import called_with
from .resnet13 import ResNet13, ResNet13Model
from .small_resnet import SmallResNet, SmallResNetModel
from .stack import Way, batch_norms, feasible, stacked
from .two_layer import TwoLayerModel, TwoLayerNet

ALL: tuple[type[Architecture], ...] = (SmallResNetModel, ResNet13Model, TwoLayerModel)
"""Every network that a case can name."""

__all__ = [
    "ALL",
    "Architecture",
    "ResNet13Model",
    "SmallResNetModel",
    "TwoLayerModel",
    "Adapter",
    "CamClassifier",
    "ResNet13",
    "SmallResNet",
    "Standardise",
    "TwoLayerNet",
    "Way",
    "WithCamHead",
    "batch_norms",
    "called_with",
    "copied",
    "errors_of",
    "feasible",
    "fitting",
    "layout_of",
    "module_errors",
    "predict",
    "recalibrate",
    "second_derivatives",
    "shares_weights",
    "split",
    "stacked",
]

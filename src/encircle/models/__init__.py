"""Networks: what CAM and freezing need of a classifier, and the two used on the embedded data."""

from .adapter import Adapter, errors_of, layout_of, module_errors, second_derivatives, shares_weights
from .base import CamClassifier, Standardise, WithCamHead, predict, split
from .checkpoint import fitting, recalibrate
from .copies import copied
from .functional import called_with
from .mlp import TwoLayerNet
from .resnet import ResNet13, SmallResNet
from .stack import Way, batch_norms, feasible, stacked

__all__ = [
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

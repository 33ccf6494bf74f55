"""Networks: what CAM and freezing need of a classifier, and the two used on the embedded data."""

from .base import CamClassifier, Standardise, WithCamHead, predict, split
from .checkpoint import fitting, recalibrate
from .mlp import TwoLayerNet
from .resnet import ResNet13, SmallResNet
from .stack import Way, batch_norms, stacked

__all__ = [
    "CamClassifier",
    "ResNet13",
    "SmallResNet",
    "Standardise",
    "TwoLayerNet",
    "Way",
    "WithCamHead",
    "batch_norms",
    "fitting",
    "predict",
    "recalibrate",
    "split",
    "stacked",
]

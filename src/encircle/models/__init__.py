"""Networks: what CAM and freezing need of a classifier, and the two used on the embedded data."""

from .base import CamClassifier, Standardise, WithCamHead, predict, split
from .mlp import TwoLayerNet
from .resnet import SmallResNet

__all__ = ["CamClassifier", "SmallResNet", "Standardise", "TwoLayerNet", "WithCamHead", "predict", "split"]

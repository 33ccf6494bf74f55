"""Data: samples read in batches, the embedded sets, and poison as files."""

from .base import DataSet, DatasetSamples, Kind, Samples, TensorSamples, split_rows
from .embedded import breast_cancer, digits

__all__ = ["DataSet", "DatasetSamples", "Kind", "Samples", "TensorSamples", "breast_cancer", "digits", "split_rows"]

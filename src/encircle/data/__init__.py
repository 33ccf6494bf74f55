"""Data: samples read in batches, the embedded sets, Stanford Dogs, tables in files, and poison as files."""

from .base import DataSet, DatasetSamples, Kind, Samples, TensorSamples, split_rows
from .embedded import breast_cancer, digits
from .pictures import PictureFiles
from .stanford_dogs import stanford_dogs
from .table_file import Missing, Schema, table_file

__all__ = [
    "DataSet",
    "DatasetSamples",
    "Kind",
    "Missing",
    "PictureFiles",
    "Samples",
    "Schema",
    "TensorSamples",
    "breast_cancer",
    "digits",
    "split_rows",
    "stanford_dogs",
    "table_file",
]

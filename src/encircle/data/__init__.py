"""Data: samples read in batches, the embedded sets, Stanford Dogs, tables in files, and poison as files."""

from .base import DataSet, DatasetSamples, Kind, Samples, TensorSamples, split_rows
from .breast_cancer import BreastCancer, breast_cancer
from .digits import Digits, digits
from .pictures import PictureFiles
from .source import DataSource
from .stanford_dogs import StanfordDogs, stanford_dogs
from .table_file import Missing, Schema, TableFile, table_file

ALL: tuple[type[DataSource], ...] = (Digits, BreastCancer, StanfordDogs, TableFile)
"""Every data set that a case can name."""

__all__ = [
    "ALL",
    "BreastCancer",
    "DataSource",
    "Digits",
    "StanfordDogs",
    "TableFile",
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

"""Images in: sources, their order, and the DataModule that serves every domain."""

from lsap.data.batches import EvaluationBatch, TrainingBatch
from lsap.data.folder import ImageFolder
from lsap.data.module import ImageDataModule
from lsap.data.opening import open_images, open_test_images
from lsap.data.source import Source, UnreadableImage
from lsap.data.storage import SUFFIXES, Photographs

__all__ = [
    "SUFFIXES",
    "EvaluationBatch",
    "ImageDataModule",
    "ImageFolder",
    "Photographs",
    "Source",
    "TrainingBatch",
    "UnreadableImage",
    "open_images",
    "open_test_images",
]

"""Images in: sources, their order, and the DataModule that serves every domain."""

from lsap.data.batches import EvaluationBatch, TrainingBatch
from lsap.data.folder import ImageFolder
from lsap.data.module import ImageDataModule
from lsap.data.source import Source, UnreadableImage

__all__ = ["EvaluationBatch", "ImageDataModule", "ImageFolder", "Source", "TrainingBatch", "UnreadableImage"]

"""What `lsap.data` offers; each name is imported when it is first asked for."""

from .batches import EvaluationBatch as EvaluationBatch
from .batches import TrainingBatch as TrainingBatch
from .folder import ImageFolder as ImageFolder
from .module import ImageDataModule as ImageDataModule
from .opening import open_images as open_images
from .opening import open_test_images as open_test_images
from .source import Source as Source
from .source import UnreadableImage as UnreadableImage
from .storage import SUFFIXES as SUFFIXES
from .storage import Photographs as Photographs

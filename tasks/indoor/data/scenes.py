"""The base of all data sets of indoor scenes: images with depth and surface normals."""

from lincon.tasks.experiments.data.picture_sets import Pictures
from lincon.tasks.indoor.data.augment import Augment
from lincon.tasks.indoor.data.batch import Batch as Batch


class Scenes(Pictures):
    """Indoor scenes in two parts, ``train_set`` and ``test_set``, whose batches are `Batch`.

    Args:
        size: height and width of the images, in pixels.
    """

    evaluation_batch = 64
    augmentation = Augment

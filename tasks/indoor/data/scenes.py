"""What every data set of indoor scenes is: images with depth and surface normals, as far as they are known."""

from lincon.tasks.experiments.data.picture_sets import Pictures
from lincon.tasks.indoor.data.augment import Augment


class Scenes(Pictures):
    """Indoor scenes in two parts, ``train_set`` and ``test_set``, whose batches are `batch.Batch`.

    Args:
        size: height and width of the images, in pixels.
    """

    evaluation_batch = 64
    augmentation = Augment

"""The base of all data sets of people: a picture around each person, with its joints."""

from pathlib import Path

from lincon.tasks.experiments.data.picture_sets import Pictures
from lincon.tasks.pose.data.augment import Augment
from lincon.tasks.pose.data.batch import Batch as Batch


class People(Pictures):
    """People in two parts, ``train_set`` and ``test_set``, whose batches are `Batch`.

    The pictures of a split may be larger than `size`, so that the augmentation can move their
    surroundings into view; a model sees the central `size` x `size` pixels.

    Args:
        size: height and width in pixels of the pictures that a model sees.
    """

    evaluation_batch = 128
    augmentation = Augment

    def __init__(
        self,
        seed: int = 0,
        batch: int = 64,
        root: Path | None = None,
        limit: int | None = None,
        *,
        size: int = 256,
    ) -> None:
        super().__init__(seed, batch, root, limit, size=size)

    def framed(self, batch: Batch) -> Batch:
        return central(batch, self.size)


def central(batch: Batch, size: int) -> Batch:
    """The central ``size`` x ``size`` pixels of every picture."""
    edge = (batch.images.shape[-1] - size) // 2
    images = batch.images[..., edge : edge + size, edge : edge + size]
    return batch._replace(images=images, joints=batch.joints - edge * batch.known.unsqueeze(-1))

"""Data sets by name, each a LightningDataModule that describes its images."""

from lincon.tasks.classification.data.cifar import Cifar10, Cifar100
from lincon.tasks.classification.data.class_folders import Folder
from lincon.tasks.classification.data.digits import Digits
from lincon.tasks.classification.data.folders import ImageNet
from lincon.tasks.classification.data.idx import FashionMNIST
from lincon.tasks.classification.data.images import Batch, Images

__all__ = ["DATA", "Batch", "Digits", "Images"]

DATA: dict[str, type[Images]] = {
    data.name: data for data in (Digits, FashionMNIST, Cifar10, Cifar100, ImageNet, Folder)
}
"""Data sets by name."""

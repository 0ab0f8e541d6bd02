"""Readers of data sets and medical volumes in local folders, checked before use; nothing is downloaded."""

from tilewright.vision.datasets.folders import DatasetFolder, ImageFolder
from tilewright.vision.datasets.pictures import CIFAR10, CIFAR100, KMNIST, MNIST, FashionMNIST, VisionDataset, read_idx
from tilewright.vision.datasets.volumes import Volume, read_dicom_series, read_nifti

__all__ = [
    "CIFAR10", "CIFAR100", "KMNIST", "MNIST", "DatasetFolder", "FashionMNIST", "ImageFolder", "VisionDataset", "Volume",
    "read_dicom_series", "read_idx", "read_nifti",
]

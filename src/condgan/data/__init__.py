"""Labelled images in memory: from arrays, folders, published files, or drawn."""

from condgan.data.dataset import ArrayDataset, check_disjoint
from condgan.data.folder import ImageFolder
from condgan.data.kermany import (
    Kermany,
    kermany_case,
    kermany_held_out,
    kermany_label,
    kermany_patient,
    kermany_test_apart,
)
from condgan.data.medmnist import MedMNIST, download_medmnist
from condgan.data.phantom import ChestPhantom
from condgan.data.splits import group_split

__all__ = [
    "ArrayDataset",
    "ChestPhantom",
    "ImageFolder",
    "Kermany",
    "MedMNIST",
    "check_disjoint",
    "download_medmnist",
    "group_split",
    "kermany_case",
    "kermany_held_out",
    "kermany_label",
    "kermany_patient",
    "kermany_test_apart",
]

"""Labelled images in memory: from arrays, folders, published files, or drawn."""

from condgan.data.folder import ImageFolder
from condgan.data.kermany import Kermany, kermany_case, kermany_held_out, kermany_label, kermany_patient
from condgan.data.medmnist import MedMNIST, download_medmnist
from condgan.data.phantom import ChestPhantom
from condgan.data.splits import group_split
from condgan.data.store import ArrayDataset

__all__ = [
    "ArrayDataset",
    "ChestPhantom",
    "ImageFolder",
    "Kermany",
    "MedMNIST",
    "download_medmnist",
    "group_split",
    "kermany_case",
    "kermany_held_out",
    "kermany_label",
    "kermany_patient",
]

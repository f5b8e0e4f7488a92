"""The trainer behind `mipverify train`: presets, exact resume, and the record of what made a network."""

from mipverify.models.training.data import Images, read_images
from mipverify.models.training.files import Trained, onnx_bytes, read_network, write_network
from mipverify.models.training.loop import Progress, train
from mipverify.models.training.options import TrainingOptions
from mipverify.models.training.presets import NAMES, preset

__all__ = [
    "NAMES",
    "Images",
    "Progress",
    "Trained",
    "TrainingOptions",
    "onnx_bytes",
    "preset",
    "read_images",
    "read_network",
    "train",
    "write_network",
]

"""Asks a released model about images that it has not seen, brought to its input as its data set's loader would."""

from hbdp_fed.inference.answers import Answer, answers_of, outlined
from hbdp_fed.inference.finding import ImageFile, find_images
from hbdp_fed.inference.masks import MaskWriter
from hbdp_fed.inference.reading import ModelInput, ReadImage, Unusable, readers_for
from hbdp_fed.inference.released import ReleasedModel

__all__ = [
    "Answer",
    "ImageFile",
    "MaskWriter",
    "ModelInput",
    "ReadImage",
    "ReleasedModel",
    "Unusable",
    "answers_of",
    "find_images",
    "outlined",
    "readers_for",
]

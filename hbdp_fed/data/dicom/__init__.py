"""Reads DICOM with pydicom: a file as an image, a folder as a volume.

What pydicom finds odd and reads all the same is no news here: it says so of every file of a scanner, and may quote what
stands in it. What means damage is looked for, and told as a :class:`hbdp_fed.data.defects.Defect`.
"""

import logging
import warnings

warnings.filterwarnings("ignore", module=r"pydicom\.")
logging.getLogger("pydicom").propagate = False

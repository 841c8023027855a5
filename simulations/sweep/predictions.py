"""What a finished run's model said of each test record, as it was written down."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from hbdp_fed.errors import DataFileError
from hbdp_fed.training.bootstrap import Judged
from hbdp_fed.training.metrics import IntArray
from simulations.run_folder import RunFolder

_ABOUT_RECORDS = ("names", "groups")


def read_predictions(folder: RunFolder, summary: Mapping[str, Any]) -> tuple[Judged, IntArray | None]:
    """The evidence with the run's operating point, and the groups of the test records.

    Raises:
        DataFileError: if ``predictions.npz`` is not there or cannot be read.
    """
    path = folder.predictions_file
    try:
        # Never unpickle: a data file must not be able to run code.
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise DataFileError(path, "there is no such file") from error
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataFileError(path, f"cannot be read ({error})") from error
    evidence = {name: values for name, values in arrays.items() if name not in _ABOUT_RECORDS}
    return (evidence, summary["utility"]["point"]), arrays.get("groups")

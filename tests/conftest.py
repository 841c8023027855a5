"""What every test shares: a quiet environment, one thread for arithmetic, and the way to the real images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Read when Flower, Ray and matplotlib are first imported, so set before any test module is.
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["MPLBACKEND"] = "Agg"
# Tests run beside each other already: threads that wait for a processor cost a quarter of all the time.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import pytest
from hypothesis import settings

# A deadline per example measures the machine's other load, not the code.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    """Another thread count gives other bits, and small tensors only lose by more threads."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs of tests keep no prepared records beside the runs of whoever tests."""
    from simulations import data_cache

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(data_cache, "AUTO_FOLDER", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture(scope="session")
def hbdp_data() -> Path:
    """The folder with the real images; the test is skipped where there is none."""
    if not os.environ.get("HBDP_DATA"):
        pytest.skip("HBDP_DATA is not set")
    folder = Path(os.environ["HBDP_DATA"]).resolve()
    assert folder.is_dir(), f"HBDP_DATA names no folder: {folder}"
    return folder

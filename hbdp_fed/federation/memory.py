"""What a hospital's Flower state holds beyond a round, as plain values and arrays, and back again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.app import ConfigRecord, RecordDict

from hbdp_fed.federation.secure_client import OF_A_ROUND
from hbdp_fed.federation.wire import from_arrays, to_arrays
from hbdp_fed.types import Weights


def kept_records(state: RecordDict) -> dict[str, dict[str, Any]]:
    """Its records as plain JSON values, but for the secrets of a sum, which are of no use once the round is over."""
    return {name: dict(record) for name, record in state.config_records.items() if name not in OF_A_ROUND}


def kept_arrays(state: RecordDict) -> dict[str, Weights]:
    """Its arrays, by record and name."""
    return {record: from_arrays(arrays) for record, arrays in state.array_records.items()}


def put_back(state: RecordDict, records: Mapping[str, Mapping[str, Any]], arrays: Mapping[str, Weights]) -> None:
    """The inverse of :func:`kept_records` and :func:`kept_arrays`; ``state`` is changed in place."""
    for name, record in records.items():
        state[name] = ConfigRecord(dict(record))
    for name, weights in arrays.items():
        state[name] = to_arrays(weights)

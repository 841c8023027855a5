"""A small consortium to change in tests."""

from __future__ import annotations

import copy
from typing import Any

SMALL: dict[str, Any] = {
    "name": "three",
    "task": "binary",
    "image": {"size": 28},
    "model": {"name": "cnn", "width": 16},
    "training": {"rounds": 10, "local_steps": 5, "expected_batch": 20},
    "budgets": [8, 1e9],
    "hospitals": [
        {"name": "a", "records": 400, "records_per_s": 100, "download_mbit_s": 80, "upload_mbit_s": 16},
        {"name": "b", "records": 200, "records_per_s": 50, "latency_s": 1.0},
        {"name": "c", "records": 100, "records_per_s": 200},
    ],
}


def small(**changes: Any) -> dict[str, Any]:
    """The consortium with other values; ``training__rounds=3`` changes a field, ``a__ceiling`` a hospital's."""
    value = copy.deepcopy(SMALL)
    for key, change in changes.items():
        section, _, field = key.partition("__")
        hospital = next((entry for entry in value["hospitals"] if entry["name"] == section), None)
        if not field:
            value[key] = change
        elif hospital is not None:
            hospital[field] = change
        else:
            value.setdefault(section, {})[field] = change
    return value

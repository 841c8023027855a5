"""The released model on the test split: overall, by hospital, by subgroup, and beside the hospitals' own models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from hbdp_fed.audit import worst
from hbdp_fed.data import Records
from hbdp_fed.data.partition import NATURAL
from hbdp_fed.errors import TrainingDiverged
from hbdp_fed.models import build_model, load_weights
from hbdp_fed.seeding import generator
from hbdp_fed.training.bootstrap import confidence_intervals
from hbdp_fed.training.tasks import Evidence, Point, figures, select
from hbdp_fed.types import Weights
from simulations.prepare import Prepared
from simulations.run_folder import RunFolder
from simulations.schema import RunConfig
from simulations.selection import Chosen

RELEASED = "released"
ELSEWHERE = "elsewhere"
"""The scheme of a federation whose hospitals hold their own records."""


def measure_utility(prepared: Prepared, chosen: Chosen, folder: RunFolder) -> dict[str, Any]:
    """The summary's entries about utility; the test split is used here, for the first and only time.

    What is known about each test record is written to ``predictions.npz``, so that runs can be compared record by
    record.

    Returns:
        ``utility`` over all test records with 95% intervals, ``utility_per_hospital`` over those dealt to each hospital
        and the ``worst_hospital`` of those with at least ``smallest_count`` of them (of all, if none has as many),
        ``utility_by_subgroup`` for ``data.subgroups``, and ``utility_matrix``.
    """
    test, site = prepared.federated.test, prepared.federated.test_site.numpy()
    evidence = _judge(prepared, chosen.weights, test, thorough=True)
    folder.write_predictions(evidence, names=test.names, groups=None if test.groups is None else test.groups.numpy())
    whole = _figures(prepared, evidence, chosen.point, np.ones(len(test), dtype=np.bool_), purpose="all")
    hospitals = [
        {"name": name, **_figures(prepared, evidence, chosen.point, site == number, purpose=f"hospital {name}")}
        for number, name in enumerate(prepared.federated.sites)
    ]
    subgroups = [
        {"attribute": attribute, "value": value, **_figures(prepared, evidence, chosen.point, rows, purpose=purpose)}
        for attribute, value, rows, purpose in _subgroups(test, prepared.config.data.subgroups)
    ]
    deciding = prepared.task.selection[0]
    # Of a few test records a figure says little: they count only where no hospital has more.
    enough = [entry for entry in hospitals if entry["records"] >= prepared.config.smallest_count]
    least = worst(deciding, enough) or worst(deciding, hospitals)
    return {
        "utility": {**whole, "point": chosen.point, "round": chosen.round},
        "utility_per_hospital": hospitals,
        "worst_hospital": None
        if least is None
        else {"name": least["name"], "metric": deciding, "value": least[deciding]},
        "utility_by_subgroup": subgroups,
        "utility_matrix": _matrix(prepared, chosen, evidence, deciding),
    }


def _subgroups(test: Records, attributes: Sequence[str]) -> Iterator[tuple[str, str, NDArray[np.bool_], str]]:
    for attribute in attributes:
        words = test.attributes[attribute]
        for value in sorted(set(words.tolist())):
            yield attribute, value, words == value, f"subgroup {attribute} {value}"


def _figures(
    prepared: Prepared, evidence: Evidence, point: Point, rows: NDArray[np.bool_], *, purpose: str
) -> dict[str, Any]:
    """The figures of some test records with their intervals, and on how many records and patients they rest."""
    groups = prepared.federated.test.groups
    own = None if groups is None else groups.numpy()[rows]
    chosen = select(evidence, rows)
    found: dict[str, Any]
    if not rows.any():
        # A figure over no record does not exist, whichever it is.
        found = {**dict.fromkeys(figures(prepared.task, evidence, point)), "records": 0, "ci95": {}}
    else:
        replicates = prepared.config.evaluation.bootstrap
        found = {
            **figures(prepared.task, chosen, point),
            "ci95": confidence_intervals(
                prepared.task,
                chosen,
                point,
                own,
                replicates=replicates,
                generator=generator(prepared.config.seed, "bootstrap", purpose),
            )
            if replicates
            else {},
        }
    return {**found, "groups": None if own is None else len(np.unique(own))}


def _matrix(prepared: Prepared, chosen: Chosen, evidence: Evidence, deciding: str) -> dict[str, Any] | None:
    """The released model and each hospital's own model of its round, at each hospital's test records.

    The hospitals' own models are judged at the released model's operating point: there is one for the federation.
    None where the federation is larger than ``evaluation.matrix``. A hospital whose own model has diverged, which the
    average of all need not have, has a row without figures.
    """
    if not chosen.local:
        return None
    test, site = prepared.federated.test, prepared.federated.test_site.numpy()

    def row(model: str, known: Evidence | None) -> dict[str, Any]:
        values = [
            figures(prepared.task, select(known, site == number), chosen.point)[deciding]
            if known is not None and (site == number).any()
            else None
            for number in range(len(prepared.federated.sites))
        ]
        return {"model": model, "values": values}

    def own(weights: Weights) -> Evidence | None:
        try:
            return _judge(prepared, weights, test, thorough=False)
        except TrainingDiverged:
            return None

    rows = [row(RELEASED, evidence), *(row(name, own(weights)) for name, weights in chosen.local.items())]
    return {"metric": deciding, "hospitals": list(prepared.federated.sites), "rows": rows}


def _judge(prepared: Prepared, weights: Weights, records: Records, *, thorough: bool) -> Evidence:
    model: nn.Module = build_model(prepared.architecture).to(prepared.device)
    load_weights(model, weights)
    return prepared.task.judge(
        model, records, device=prepared.device, spacing=prepared.dataset.spacing, thorough=thorough
    )


def scheme_of(config: RunConfig) -> str:
    """By what it is decided who holds what: ``partition.scheme``, or real hospitals' own word."""
    return ELSEWHERE if config.federation.elsewhere else config.partition.scheme


def partition_summary(prepared: Prepared) -> dict[str, Any]:
    """The ``partition`` entry of the summary: who holds what. Settings that the scheme does not look at are None."""
    federated, settings = prepared.federated, prepared.config.partition
    natural = settings.scheme == NATURAL
    elsewhere = bool(prepared.config.federation.elsewhere)
    splits = {"val": federated.val_site, "test": federated.test_site}
    return {
        "scheme": scheme_of(prepared.config),
        "column": settings.column if natural else None,
        "sizes": None if natural or elsewhere else settings.sizes,
        "group": prepared.dataset.group if federated.hospitals[0].records.groups is not None else "record",
        "hospitals": [
            {
                "name": hospital.name,
                "train": hospital.size,
                **{split: int(np.isin(owner.numpy(), hospital.sites).sum()) for split, owner in splits.items()},
                "groups": None if hospital.records.groups is None else len(hospital.records.groups.unique()),
                "classes": {}
                if elsewhere
                else _classes(hospital.records, prepared.dataset.task, prepared.dataset.class_names),
            }
            for hospital in federated.hospitals
        ],
    }


def _classes(records: Records, task: str, class_names: Sequence[str]) -> Mapping[str, int]:
    """Records of each class; of each finding where a record may have several; nothing for a class a voxel."""
    if task == "segmentation":
        return {}
    several = task == "multilabel"
    counts = records.labels.sum(dim=0) if several else records.labels.bincount(minlength=len(class_names))
    return dict(zip(class_names, counts.tolist(), strict=True))

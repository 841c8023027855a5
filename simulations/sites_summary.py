"""What each hospital is like: its kind, scanner, computer and line, in the summary and on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hbdp_fed.data import Hospital
from simulations.prepare import Prepared
from simulations.site_kinds import kinds_of_sites

_SCANNER = ("resolution", "gamma", "bias_field", "noise")
_ROWS = 20


def sites_summary(prepared: Prepared) -> dict[str, Any]:
    """The ``sites`` entry of the summary.

    Returns:
        ``name``, as ``sites=`` has it, and for each of ``hospitals`` its ``kind`` (null where all are alike, and of one
        place that holds the records of all), its ``scanner`` (null where several sites' records are pooled) and the
        fields of its profile.
    """
    config, kinds = prepared.config, kinds_of_sites(prepared.config)

    def entry(place: int, hospital: Hospital) -> dict[str, Any]:
        alone = len(hospital.sites) == 1
        scanner = prepared.federated.scanners[hospital.sites[0]]
        return {
            "name": hospital.name,
            "kind": kinds[hospital.sites[0]].name if kinds and alone else None,
            "scanner": {name: getattr(scanner, name) for name in _SCANNER} if alone else None,
            **vars(prepared.profiles[place]),
        }

    hospitals = [entry(place, hospital) for place, hospital in enumerate(prepared.federated.hospitals)]
    return {"name": config.sites.name, "hospitals": hospitals}


def show_sites(console: Console, prepared: Prepared) -> None:
    """A line a hospital, where the settings say that hospitals differ in kind or profile."""
    config, sites = prepared.config, sites_summary(prepared)
    if not config.sites.kinds and not config.federation.profiles:
        return
    table = Table(title=escape(f"Sites: {sites['name']}"), title_justify="left", title_style="bold")
    for name in ("hospital", "kind", "scanner: width", "gamma", "bias", "noise", "records/s", "Mbit/s", "s", "there"):
        table.add_column(name, justify="left" if name in ("hospital", "kind") else "right")
    for own in sites["hospitals"][:_ROWS]:
        table.add_row(escape(own["name"]), escape(own["kind"] or "-"), *_figures(own))
    if len(sites["hospitals"]) > _ROWS:
        table.add_row(f"... {len(sites['hospitals']) - _ROWS} more")
    console.print(table)


def _figures(own: Mapping[str, Any]) -> list[str]:
    scanner = own["scanner"] or {}
    return [
        *(f"{scanner[name]:.2f}" if scanner else "-" for name in _SCANNER),
        f"{own['records_per_s']:g}",
        f"{own['download_mbit_s']:g}/{own['upload_mbit_s']:g}",
        f"{own['latency_s']:g}",
        f"{own['availability']:.0%}",
    ]

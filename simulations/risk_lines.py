"""What a person reads of the attacks: a few lines each, by kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hbdp_fed.audit.numbers import show_percent

Entry = Mapping[str, Any]


def attack_lines(entry: Entry) -> Iterator[str]:
    """The lines of one attack's entry in a summary."""
    yield from _LINES[entry["kind"]](entry)
    if entry.get("above_bound"):
        yield "WARNING: that is above the bound, beyond its interval: please report it, one of the two is wrong"


def bound_line(entry: Entry) -> str:
    """The bound of a threat model for everything that is ever sent."""
    if entry["bound"] is None:
        return "theory gives no bound"
    bound, guess = float(entry["bound"]), f"a guess alone: {entry['prior']:.3g}"
    # A bound this near to 1 is no news in its digits.
    return f"no protection: bound above 0.999 ({guess})" if bound > 0.999 else f"at most {bound:.3g} ({guess})"


def _reconstruction(entry: Entry) -> Iterator[str]:
    name = _name(entry)
    if entry["success_rate"] is None:
        yield f"{name}: no record was in the attacked batches"
        return
    best = "nothing to show" if entry["ssim_max"] is None else f"best SSIM {entry['ssim_max']:.2f}"
    yield f"{name}: {entry['success_rate']:.1%} of {entry['records']} records rebuilt ({_interval(entry)}); {best}"
    control = entry["control_success_rate"]
    chance = "" if control is None else f"; records that were not in the batch score {control:.1%}"
    share = "" if entry["share"] is None else f"; share of the gradient norm {entry['share']:.3f}"
    yield f"a guess from public images scores {entry['baseline_success_rate']:.1%}{chance}{share}"
    denoised = entry.get("denoised")
    if denoised and denoised["ssim_max"] is not None:
        yield (
            f"after the denoiser {denoised['success_rate']:.1%} rebuilt; SSIM {denoised['ssim_gain']:+.2f} on average, "
            f"best {denoised['ssim_max']:.2f}"
        )
    law = entry.get("law")
    if entry.get("bound") is not None:
        ratio = "" if not law or law["mse_ratio"] is None else f"; squared error {law['mse_ratio']:.3g} times the law's"
        yield f"bound for a record that the step drew: {show_percent(entry['bound'])}{ratio}"


def _identification(entry: Entry) -> Iterator[str]:
    yield (
        f"{_name(entry)}: {entry['success_rate']:.1%} of {entry['records']} {_units(entry)} named among "
        f"{entry['candidates']} candidates ({_interval(entry)})"
    )
    yield (
        f"bound {show_percent(entry['bound'])}, best possible detector {show_percent(entry['optimal'])}, a guess "
        f"{show_percent(entry['baseline_success_rate'])}; {entry['steps']} steps seen"
    )


def _membership(entry: Entry) -> Iterator[str]:
    yield (
        f"{_name(entry)}: {entry['success_rate']:.1%} of {entry['records']} {_units(entry)} recognised at "
        f"{entry['baseline_success_rate']:.0%} false alarms ({_interval(entry)})"
    )
    area = "" if entry["auc"] is None else f", area under the curve {entry['auc']:.3f}"
    yield f"bound {show_percent(entry['bound'])}{area}; {entry['steps']} steps seen"


def _property(entry: Entry) -> Iterator[str]:
    low, high = entry["auc_ci95"]
    small, large = (f"{share:.0%}" for share in entry["shares"])
    yield (
        f"{_name(entry)}: hospitals with {large} of {entry['property']} told from ones with {small}, area under the "
        f"curve {entry['auc']:.3f} (95% interval {low:.3f} to {high:.3f}; a coin 0.5)"
    )
    yield (
        f"{entry['success_rate']:.1%} of {entry['records']} populations on the right side ({_interval(entry)}); "
        f"{entry['shadows']} shadow hospitals, {entry['steps']} steps seen"
    )


def _queries(entry: Entry) -> Iterator[str]:
    yield (
        f"{_name(entry)}: {entry['success_rate']:.1%} of {entry['records']} bits ({entry['property']}) told at the "
        f"run's budget ({_interval(entry)}); the more common one scores {entry['baseline_success_rate']:.1%}"
    )
    told = {point["noise"]: show_percent(point["success_rate"]) for point in entry["points"]}
    yield f"without noise {told['none']}, with noise of 3 sqrt(m) {told['failing']}; {entry['queries']} queries asked"


def _units(entry: Entry) -> str:
    """What games were about. Of patients, each had all records that a step takes."""
    return f"{entry.get('unit', 'record')}s"


def _name(entry: Entry) -> str:
    name, seen = (str(entry[key]).replace("_", " ") for key in ("name", "surface"))
    return name + ("" if seen == "gradient" else f" on the {seen}")


def _interval(entry: Entry) -> str:
    low, high = entry["success_rate_ci95"]
    return f"95% interval {low:.1%} to {high:.1%}"


_LINES: Mapping[str, Callable[[Entry], Iterator[str]]] = {
    "reconstruction": _reconstruction,
    "identification": _identification,
    "membership": _membership,
    "property": _property,
    "queries": _queries,
}

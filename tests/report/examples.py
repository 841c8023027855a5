"""A sweep, a recommendation and a plan as the programs write them, with figures like those that were measured."""

from __future__ import annotations

import math
from typing import Any

BUDGETS: tuple[float | str, ...] = (1.0, 8.0, 1e3, 1e6, 1e9, "inf")
MCC = (0.61, 0.705, 0.716, 0.722, 0.724, 0.728)
REBUILT = (0.0, 0.0, 0.002, 0.41, 0.954, 0.96)


def interval(rate: float, count: int) -> list[float]:
    """Wilson's, written out here."""
    z = 1.96
    middle = (rate + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return [max(middle - half, 0.0), min(middle + half, 1.0)]


def attack(name: str, kind: str, rate: float | None, records: int = 1400, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "kind": kind, "surface": "gradient", "seeds": 3, "records": records,
        "successes": None if rate is None else round(rate * records), "probes": 45, "success_rate": rate,
        "success_rate_ci95": None if rate is None else interval(rate, records), "criterion": f"what counts for {name}",
        "baseline_success_rate": 0.01, "control_success_rate": None, "bound": None, "optimal": None,
        "above_bound": None, "ssim_max": None, "share": None, **more,
    }  # fmt: skip


def _utility(place: int, eps: float | str) -> dict[str, Any]:
    mean = MCC[place]
    difference = {
        "mean": mean - MCC[-1], "low": mean - MCC[-1] - 0.02, "high": mean - MCC[-1] + 0.02, "p_value": 0.2, "n": 3,
    }  # fmt: skip
    return {
        "mcc": {"mean": mean, "sd": 0.012, "values": [mean - 0.01, mean, mean + 0.01],
                "difference": None if eps == "inf" else difference},
        "auroc": {"mean": mean + 0.22, "sd": 0.004, "values": [mean + 0.22] * 3,
                  "difference": None if eps == "inf" else {**difference, "p_value": None}},
    }  # fmt: skip


def _risk(place: int) -> dict[str, Any]:
    rate, bound = REBUILT[place], (0.021, 0.24, 1.0, 1.0, 1.0, 1.0)[place]
    named = min(bound * 0.8, 0.99)
    return {
        "worst_case": {"bound": bound, "attacks": [
            attack("candidate_matching", "identification", named, bound=bound, optimal=bound * 0.95, above_bound=False),
            attack("membership", "membership", min(named + 0.1, 1.0), bound=min(bound + 0.3, 1.0), above_bound=False),
        ]},
        "relaxed": {"bound": bound * 0.9, "attacks": [
            attack("linear_probe", "reconstruction", rate, control_success_rate=0.001, bound=bound * 0.9,
                   above_bound=False, ssim_max=0.9),
        ]},
        "realistic": {"bound": None, "attacks": [
            attack("imprint", "reconstruction", rate, control_success_rate=0.004, ssim_max=0.99, share=0.99),
            attack("trap_weights", "reconstruction", rate * 0.8, control_success_rate=0.004, ssim_max=0.97, share=0.8),
        ]},
    }  # fmt: skip


def hospitals(names: tuple[str, ...], sizes: tuple[int, ...], eps: float | str) -> list[dict[str, Any]]:
    return [
        {"name": name, "records": [size, size], "noise_multiplier": 0.1, "eps_tight": eps, "bound_worst_case": 0.24,
         "bound_relaxed": 0.2}
        for name, size in zip(names, sizes, strict=True)
    ]  # fmt: skip


def budget(place: int, *, names: tuple[str, ...], sizes: tuple[int, ...]) -> dict[str, Any]:
    eps = BUDGETS[place]
    mean = {"mean": MCC[place], "sd": 0.02}
    finite = not isinstance(eps, str)
    return {
        "eps": eps, "seeds": [0, 1, 2], "runs": [f"eps-{eps}_seed-{seed}" for seed in (0, 1, 2)],
        "noise_multiplier": [4.9, 5.1] if finite else [0.0, 0.0], "eps_rdp": [eps, eps],
        "eps_tight": [eps * 0.9, eps * 0.95] if isinstance(eps, float) else ["inf", "inf"],
        "utility": _utility(place, eps),
        "compared": {"pooled": {"mcc": {"mean": MCC[place] + 0.01, "sd": 0.01, "values": [0.7] * 3}},
                     "alone": {"mcc": {"mean": MCC[place] - 0.08, "sd": 0.03, "values": [0.6] * 3}}},
        "joining": [
            {"name": name, "records": size, "federated": {"mcc": mean}, "alone": {"mcc": {"mean": 0.6, "sd": 0.05}},
             "pooled": {"mcc": mean}, "gain": {"mcc": {"mean": 0.1, "low": -0.01, "high": 0.21}}}
            for name, size in zip(names, sizes, strict=True)
        ],
        "risk": _risk(place),
        "hospitals": hospitals(names, sizes, eps),
        "time_s": {"mean": 61.2, "sd": 2.5},
    }  # fmt: skip


def sweep(
    *,
    names: tuple[str, ...] = ("hospital-01", "hospital-02", "hospital-03", "hospital-04"),
    sizes: tuple[int, ...] = (941, 944, 62, 7),
    dataset: str = "pneumoniamnist",
    groups: int = 1,
) -> dict[str, Any]:
    def group(number: int) -> dict[str, Any]:
        values = {} if groups == 1 else {"clients": 5 * (number + 1)}
        return {"values": values, "budgets": [budget(i, names=names, sizes=sizes) for i in range(len(BUDGETS))]}

    return {
        "schema": 1, "kind": "sweep", "name": "pneumonia_budgets", "task": "binary", "dataset": dataset,
        "model": "cnn", "clients": len(names), "class_names": ["normal", "pneumonia"], "metrics": ["mcc", "auroc"],
        "selection": ["mcc"], "units": {}, "seeds": [0, 1, 2],
        "settings": [f"data={dataset}", f"clients={len(names)}", "adversary.probes=3"],
        "axes": {"eps": list(BUDGETS)}, "control": "inf", "groups": [group(number) for number in range(groups)],
        "failures": [{"run": "eps-1e9_seed-1", "eps": 1e9, "seed": 1, "reason": "round 3: <hospital-02> failed"}],
        "pending": 1, "time": {"wall_s": 4210.0, "runs_s": 7900.0, "parallel": 2},
    }  # fmt: skip


def recommendation(verdict: str = "recommended") -> dict[str, Any]:
    verdicts = {1.0: "fails", 8.0: "meets", 1e3: "undecided", 1e6: "fails", 1e9: "fails", "inf": "fails"}
    if verdict != "recommended":
        verdicts[8.0] = "undecided" if verdict == "undecided" else "fails"
    return {
        "verdict": verdict, "eps": 8.0 if verdict == "recommended" else None,
        "policy": {"margin": 0.03, "metric": "mcc", "risk": 0.01, "least_records": 400, "threat_model": "realistic",
                   "max_worst_case_bound": None},
        "policy_in_words": "The smallest budget at which MCC is non-inferior and fewer than 1% of records are rebuilt.",
        "budgets": [
            {"eps": eps, "verdict": own, "reasons": [f"a reason at {eps}", "and <another>"],
             "loss": {"metric": "mcc", "mean": 0.02, "lower": 0.0, "upper": 0.025, "margin": 0.03, "verdict": own},
             "risk": {"attack": "imprint", "records": 1400, "rate": 0.0, "upper": 0.003, "limit": 0.01, "verdict": own}}
            for eps, own in verdicts.items()
        ],
        "what_would_change": ["eps=1000 is undecided, and would be recommended after 800 more attacked records"],
        "not_covered": ["attacks that nobody has published"],
    }  # fmt: skip


def _planned(records: int) -> list[dict[str, Any]]:
    rows = []
    for place, eps in enumerate(BUDGETS):
        finite = isinstance(eps, float)
        bound = min(1.0, (0.012, 0.05, 0.9, 1.0, 1.0, 1.0)[place] * (1 + 20 / records))
        rows.append(
            {"eps": eps, "noise_multiplier": 4.9 / (place + 1) if finite else 0.0, "eps_rdp": eps,
             "eps_tight": [eps * 0.8, eps * 0.9] if isinstance(eps, float) else ["inf", "inf"], "worst_case": bound,
             "relaxed": bound * 0.9, "best_psnr": 10.0 * place if finite else "inf", "allowed": finite,
             "problem": None if finite else "the control protects nobody"}
        )  # fmt: skip
    return rows


def plan(
    *,
    names: tuple[str, ...] = ("Nord", "Sued", "West", "Ost"),
    sizes: tuple[int, ...] = (1400, 900, 120, 7),
    advice: dict[str, Any] | None = None,
    dataset: str | None = "pneumoniamnist",
) -> dict[str, Any]:
    total = sum(sizes)
    return {
        "schema": 1, "kind": "plan", "name": "four_clinics", "description": "Four clinics and one question.",
        "task": "binary", "dataset": dataset, "model": "resnet9", "image_shape": [1, 224, 224], "parameters": 2_440_194,
        "delta": 1e-5, "accountant": "rdp", "prior": 0.01,
        "training": {"rounds": 100, "local_steps": 5, "steps": 500, "expected_batch": 32.0, "batch_per": "hospital",
                     "max_grad_norm": 1.0, "multiplicity": 4, "learning_rate": 0.1},
        "hospitals": [
            {"name": name, "records": size, "patients": size // 2, "ceiling": "inf",
             "speed": {"records_per_s": 90.5, "source": "calibrated"}, "download_mbit_s": 100.0, "upload_mbit_s": 20.0,
             "latency_s": 0.05, "availability": 0.95, "watts": 250.0, "sample_rate": min(1.0, 32 / size),
             "expected_batch": 32.0, "steps": 500, "budgets": _planned(size)}
            for name, size in zip(names, sizes, strict=True)
        ],
        "cost": {
            "round": {"seconds": 12.5, "gigabytes": 0.08, "watt_hours": 3.4, "waits_for": names[0]},
            "total": {"hours": 0.35, "gigabytes": 7.9, "kilowatt_hours": 0.34},
            "hospitals": [
                {"name": name, "compute_s": 7.1, "transfer_s": 5.3, "round_s": 12.4, "gigabytes": 2.0,
                 "kilowatt_hours": 0.08}
                for name in names
            ],
            "simulation": {"seconds": 540.0, "workers": 2}, "calibration": None,
        },
        "leaving": [
            {"name": name, "records_lost_share": size / total, "round_s": 11.0, "hours": 0.31,
             "noise_factor": 1 + size / total, "weakest": names[-1]}
            for name, size in zip(names, sizes, strict=True)
        ],
        "weakest": {"name": names[-1], "why": f"{names[-1]} holds the fewest {sizes[-1]} records", "per_budget": []},
        "frontier": None, "recommendation": advice,
    }  # fmt: skip

"""What a recommendation says nothing about: always, and because of what this sweep did and did not measure."""

from __future__ import annotations

from collections.abc import Iterator

from hbdp_fed.planning.frontier import Frontier
from hbdp_fed.planning.policy import Policy

_FEW_SEEDS = 3


def not_covered(frontier: Frontier, policy: Policy) -> tuple[str, ...]:
    """A line for each gap."""
    return (*_of_this_sweep(frontier, policy), *_always())


def _of_this_sweep(frontier: Frontier, policy: Policy) -> Iterator[str]:
    tried = sorted(
        {attack.name for budget in frontier.budgets for attack in budget.attacks.get(policy.threat_model, ())}
    )
    if tried:
        yield (
            f"attacks that were not tried: the {policy.threat_model} risk is that of {', '.join(tried)}, and theory "
            "gives no bound for others"
        )
    else:
        yield f"{policy.threat_model} attacks: none was run, so that the risk is unknown"
    for name in ("realistic", "relaxed"):
        attacked = any(budget.attacks.get(name) for budget in frontier.budgets)
        if name != policy.threat_model and attacked:
            yield f"the {name} threat model: its attacks are reported, but this policy does not ask for them"
    if policy.max_worst_case_bound is None:
        yield (
            "an adversary who holds candidates or only wants to know who took part (membership): the policy sets no "
            "max_worst_case_bound, and at large budgets nothing is hidden from such a person"
        )
    yield (
        "chance: the policy looks at raw success rates; what a guess or records that were not there score is told "
        "beside them and not taken off"
    )
    seeds = min(budget.seeds for budget in frontier.budgets)
    if seeds < _FEW_SEEDS:
        yield f"how results vary between trainings: some budgets have {seeds} seed{'s' * (seeds != 1)} only"
    if frontier.incomplete:
        yield f"{frontier.incomplete} runs of the sweep that failed or are still to come"
    where = ", ".join(part for part in (frontier.dataset, frontier.model, frontier.task) if part)
    size = f" over {frontier.clients} hospitals" if frontier.clients else ""
    measured = f"{where or 'one setting'}{size}"
    yield f"other data, images of another size, other models and longer training: measured was {measured}"


def _always() -> Iterator[str]:
    yield "the search for hyperparameters, if it looked at hospitals' records: it is outside epsilon"
    yield "what leaves hospitals besides updates: losses, logs, timing and other side channels"
    yield "patients with several records, at one hospital or at several: the guarantee is for one record"
    yield "a server that alters the clients' software: clipping and noise are the hospitals' own only if their code is"
    yield "noise that can be predicted: a simulation's follows from its seed, and protects nobody"

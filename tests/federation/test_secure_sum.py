"""A sum that nobody sees the summands of: right to the last step, with hospitals missing, and closed to the curious."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy import stats

from hbdp_fed.errors import HospitalFailure
from hbdp_fed.federation.secure_sum import (
    FIELD_PRIME,
    Enrolment,
    FixedPoint,
    HospitalKeys,
    MaskedUpdate,
    ReleasedShares,
    Share,
    _pairwise_masks,
    _with_masks,
    add_masked,
    enrol,
    masked_update,
    recover_secret,
    release_shares,
    safe_threshold,
    seeded_bytes,
    split_secret,
    unmask_sum,
)
from hbdp_fed.seeding import generator
from hbdp_fed.types import ModelUpdate, Weights

SHAPES = {"z": (3, 4), "a": (5,), "scalar": (), "empty": (0, 2)}
HOSPITALS = tuple(f"hospital-{number:02}" for number in range(10))
SECRETS = st.integers(0, FIELD_PRIME - 1)


def update(hospital: str, *, size: float = 1.0, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> ModelUpdate:
    draw = generator(0, hospital, "update")
    delta = {
        name: (torch.rand(shape, generator=draw, dtype=torch.float64) * 2 - 1) * size for name, shape in shapes.items()
    }
    return ModelUpdate(hospital=hospital, round=1, delta=delta, num_records=7)


def enrolled(
    hospitals: Sequence[str] = HOSPITALS, threshold: int = 7, seed: int = 0
) -> tuple[Enrolment, Mapping[str, HospitalKeys]]:
    return enrol(hospitals, round=1, threshold=threshold, source_of=lambda name: seeded_bytes(seed, name, "secure sum"))


def flat(weights: Weights) -> torch.Tensor:
    return torch.cat([value.reshape(-1) for value in weights.values()])


# The grid.


@pytest.mark.parametrize("bits", [8, 20, 54])
@pytest.mark.parametrize("summands", [1, 10, 63])
@pytest.mark.parametrize("bound", [1e-7, 0.3, 1.0, 2.0, 1e12])
def test_no_sum_leaves_the_grid_and_no_finer_power_of_two_would_do(bits: int, summands: int, bound: float) -> None:
    grid = FixedPoint(bound=bound, summands=summands, bits=bits)
    assert math.frexp(grid.step)[0] == 0.5
    assert Fraction(bound) <= Fraction(grid.step) * grid.largest
    assert Fraction(bound) > Fraction(grid.step) / 2 * grid.largest
    assert grid.largest * summands < grid.modulus // 2
    for sign in (-1, 1):
        end = torch.full((1,), sign * bound, dtype=torch.float64)
        total = (grid.encode(end) * summands) % grid.modulus
        assert abs(grid.decode(total).item() - sign * bound * summands) <= grid.max_error(summands) * (1 + 1e-12)


@examples(max_examples=200, deadline=None)
@given(
    values=st.lists(st.floats(-1, 1), min_size=1, max_size=20),
    exponent=st.integers(-60, 60),
    summands=st.integers(1, 1000),
    bits=st.integers(12, 54),
)
def test_a_value_comes_back_to_half_a_step(values: list[float], exponent: int, summands: int, bits: int) -> None:
    bound = 2.0**exponent
    grid = FixedPoint(bound=bound, summands=summands, bits=bits)
    scaled = torch.tensor(values, dtype=torch.float64) * bound
    words = grid.encode(scaled)
    assert int(words.min()) >= 0
    assert int(words.max()) < grid.modulus
    found = grid.decode(words)
    for sent, received in zip(scaled.tolist(), found.tolist(), strict=True):
        assert abs(Fraction(sent) - Fraction(received)) <= Fraction(grid.step) / 2
    # What is on the grid stays as it is.
    multiples = torch.arange(-3, 4).double() * grid.step
    inside = multiples[multiples.abs() <= bound]
    assert torch.equal(grid.decode(grid.encode(inside)), inside)


@pytest.mark.parametrize("value", [1.0000001, -1.0000001, math.inf, -math.inf, math.nan])
def test_what_would_overflow_is_refused_and_not_wrapped(value: float) -> None:
    grid = FixedPoint(bound=1.0, summands=10)
    with pytest.raises(OverflowError, match="exceeds the bound of 1"):
        grid.encode(torch.tensor([0.0, value], dtype=torch.float64))
    grid.encode(torch.tensor([1.0, -1.0]))


@pytest.mark.parametrize(
    ("bound", "summands", "bits", "words"),
    [
        (1.0, 10, 55, "bits must be from 2 to 54"),
        (1.0, 10, 1, "bits must be from 2 to 54"),
        (1.0, 0, 54, "summands must be at least 1"),
        (1.0, 128, 8, "8 bits cannot hold the sum of 128 numbers"),
        (0.0, 10, 54, "bound must be positive"),
        (math.nan, 10, 54, "bound must be positive"),
        (math.inf, 10, 54, "bound must be positive"),
        (1e308, 10, 54, "its sums finite"),
        (1e-300, 10, 54, "too small"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(bound: float, summands: int, bits: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FixedPoint(bound=bound, summands=summands, bits=bits)


def test_noise_of_ten_steps_survives_and_noise_below_one_does_not() -> None:
    grid = FixedPoint(bound=1.0, summands=10, bits=20)
    draw = torch.randn(40_000, generator=generator(0, "noise"), dtype=torch.float64)
    value = 0.3
    for ratio, survives in ((10.0, True), (0.1, False)):
        std = ratio * grid.step
        assert grid.noise_to_step(std) == pytest.approx(ratio)
        received = grid.decode(grid.encode(value + draw * std)) - value
        if survives:
            # Rounding adds the variance of a uniform step, and the distribution stays normal to a fine eye.
            assert float(received.var()) == pytest.approx(std**2 + grid.step**2 / 12, rel=0.03)
            centred = received + (torch.rand(len(draw), generator=generator(0, "u"), dtype=torch.float64) - 0.5) * (
                grid.step
            )
            assert stats.kstest(centred.numpy() / math.hypot(std, grid.step / math.sqrt(6)), "norm").pvalue > 0.01
        else:
            assert len(received.unique()) <= 2
    with pytest.raises(ValueError, match="not negative"):
        grid.noise_to_step(-1.0)


# Shares.


def test_the_field_is_the_smallest_above_every_secret() -> None:
    assert sympy.nextprime(2**256) == FIELD_PRIME


def test_shares_by_hand() -> None:
    # 1234 + 166 x + 94 x^2 modulo 1613, its coefficients served as bytes.
    numbers = iter([(166).to_bytes(2, "little"), (94).to_bytes(2, "little")])
    shares = split_secret(1234, threshold=3, count=6, source=lambda _: next(numbers), prime=1613)
    assert [share.y for share in shares] == [1494, 329, 965, 176, 1188, 775]
    assert [share.x for share in shares] == [1, 2, 3, 4, 5, 6]
    for three in itertools.permutations(shares, 3):
        assert recover_secret(three, threshold=3, prime=1613) == 1234


@examples(max_examples=50, deadline=None)
@given(data=st.data(), secret=SECRETS, count=st.integers(1, 12))
def test_any_threshold_of_shares_give_the_secret(data: st.DataObject, secret: int, count: int) -> None:
    threshold = data.draw(st.integers(1, count))
    source = seeded_bytes(data.draw(st.integers(0, 2**32)), "shares")
    shares = split_secret(secret, threshold=threshold, count=count, source=source)
    chosen = data.draw(st.permutations(shares))[: data.draw(st.integers(threshold, count))]
    assert recover_secret(chosen, threshold=threshold) == secret
    if threshold > 1:
        with pytest.raises(ValueError, match=f"{threshold - 1} different shares"):
            recover_secret(chosen[: threshold - 1], threshold=threshold)
        with pytest.raises(ValueError, match="different shares"):
            recover_secret([chosen[0]] * threshold, threshold=threshold)


def test_fewer_shares_than_the_threshold_fit_every_secret_equally_often() -> None:
    """Every polynomial over a small field: two of three shares have the same distribution whatever the secret."""
    prime = 7
    seen: dict[int, Counter[tuple[int, int]]] = {}
    for secret in range(prime):
        seen[secret] = Counter()
        for coefficients in itertools.product(range(prime), repeat=2):
            numbers = iter(bytes([number]) for number in coefficients)
            shares = split_secret(secret, threshold=3, count=5, source=lambda _, n=numbers: next(n), prime=prime)
            seen[secret][shares[1].y, shares[4].y] += 1
    assert all(counts == seen[0] for counts in seen.values())
    assert set(seen[0].values()) == {1}
    assert len(seen[0]) == prime**2


def test_coefficients_are_drawn_without_favouring_small_numbers() -> None:
    # Three bits for seven elements: a 7 is drawn again, not taken for a 0.
    numbers = iter([b"\x07", b"\x0f", b"\x0d"])
    (share,) = split_secret(0, threshold=2, count=2, source=lambda _: next(numbers), prime=7)[:1]
    assert share.y == 5


@examples(max_examples=30, deadline=None)
@given(secret=SECRETS, other=SECRETS, seed=st.integers(0, 2**32))
def test_any_secret_is_possible_behind_one_share_too_few(secret: int, other: int, seed: int) -> None:
    shares = split_secret(secret, threshold=4, count=6, source=seeded_bytes(seed, "shares"))
    # One more point, chosen freely, makes them shares of any other secret: solve for it.
    few = list(shares[:3])
    low, high = (recover_secret([*few, Share(x=6, y=y)], threshold=4) for y in (0, 1))
    y = (other - low) * pow(high - low, -1, FIELD_PRIME) % FIELD_PRIME
    assert recover_secret([*few, Share(x=6, y=y)], threshold=4) == other


@pytest.mark.parametrize(("threshold", "count", "secret"), [(0, 3, 1), (4, 3, 1), (2, 3, -1), (2, 3, FIELD_PRIME)])
def test_shares_that_cannot_be_are_refused(threshold: int, count: int, secret: int) -> None:
    with pytest.raises(ValueError, match=r"threshold must be|no element"):
        split_secret(secret, threshold=threshold, count=count, source=seeded_bytes(0, "s"))


# The sum.


@pytest.mark.parametrize("missing", [0, 1, 2, 3])
@pytest.mark.parametrize("bits", [24, 54])
def test_the_sum_is_the_plain_one_whoever_drops_out(missing: int, bits: int) -> None:
    enrolment, keys = enrolled()
    grid = FixedPoint(bound=1.0, summands=10, bits=bits)
    weights = {name: 0.5 / (place + 1) for place, name in enumerate(HOSPITALS)}
    dropped = HOSPITALS[1 : 3 * missing : 3] if missing else ()
    survivors = [name for name in HOSPITALS if name not in dropped]
    assert len(dropped) == missing
    sent = [
        masked_update(update(name), weight=weights[name], keys=keys[name], enrolment=enrolment, grid=grid)
        for name in survivors
    ]
    total = add_masked(iter(sent), enrolment=enrolment, grid=grid)
    released = [release_shares(keys[name], enrolment, total.hospitals) for name in survivors]
    found = unmask_sum(total, released, enrolment=enrolment, grid=grid)
    assert list(found) == list(SHAPES)
    bound = Fraction(grid.max_error(len(survivors)))
    for name, shape in SHAPES.items():
        assert found[name].shape == shape
        assert found[name].dtype == torch.float64
        summands = [(update(hospital).delta[name] * weights[hospital]).reshape(-1) for hospital in survivors]
        for place, value in enumerate(found[name].reshape(-1).tolist()):
            exact = sum(Fraction(float(summand[place])) for summand in summands)
            assert abs(Fraction(value) - exact) <= bound
        # To the last bit, it is the sum of the values as they stand on the grid.
        on_grid = sum(grid.decode(grid.encode(summand)) for summand in summands)
        assert torch.equal(found[name].reshape(-1), on_grid)


def test_neither_order_nor_who_helps_changes_a_bit() -> None:
    enrolment, keys = enrolled()
    grid = FixedPoint(bound=1.0, summands=10)
    sent = [
        masked_update(update(name), weight=1.0, keys=keys[name], enrolment=enrolment, grid=grid)
        for name in HOSPITALS[1:]
    ]
    results = []
    for order, helpers in ((sent, HOSPITALS[:7]), (sent[::-1], HOSPITALS[2:9][::-1]), (sent[4:] + sent[:4], HOSPITALS)):
        total = add_masked(order, enrolment=enrolment, grid=grid)
        released = [release_shares(keys[name], enrolment, total.hospitals) for name in helpers]
        results.append(flat(unmask_sum(total, released, enrolment=enrolment, grid=grid)))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_too_few_survivors_leave_the_sum_masked() -> None:
    enrolment, keys = enrolled()
    grid = FixedPoint(bound=1.0, summands=10)
    names = HOSPITALS[:7]
    sent = [masked_update(update(name), weight=1.0, keys=keys[name], enrolment=enrolment, grid=grid) for name in names]
    total = add_masked(sent, enrolment=enrolment, grid=grid)
    released = [release_shares(keys[name], enrolment, total.hospitals) for name in names]
    with pytest.raises(HospitalFailure, match="stays masked: 6 of 10 hospitals gave their shares, and 7 are needed"):
        unmask_sum(total, released[:6], enrolment=enrolment, grid=grid)
    # The same answer twice is one answer.
    with pytest.raises(HospitalFailure, match="6 of 10"):
        unmask_sum(total, [*released[:6], released[0]], enrolment=enrolment, grid=grid)
    unmask_sum(total, released, enrolment=enrolment, grid=grid)
    with pytest.raises(HospitalFailure, match="no hospital sent"):
        add_masked([], enrolment=enrolment, grid=grid)
    # A hospital gives nothing away for a sum of too few.
    with pytest.raises(PermissionError, match="at least 7 of the enrolled"):
        release_shares(keys[names[0]], enrolment, names[:6])
    with pytest.raises(PermissionError, match="nobody else"):
        release_shares(keys[names[0]], enrolment, [*names, "stranger"])
    with pytest.raises(PermissionError, match="at least 7"):
        release_shares(keys[names[0]], enrolment, [names[0]] * 7)


# What the curious see.


def uniform(words: torch.Tensor, grid: FixedPoint) -> bool:
    """By Kolmogorov and Smirnov on the numbers, and by chi-square on each of their low six bytes."""
    values = words.numpy()
    bytes_ = values.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :6]
    counts = [np.bincount(column, minlength=256) for column in bytes_.T]
    pvalues = [stats.chisquare(count).pvalue for count in counts]
    return min(stats.kstest(values / grid.modulus, "uniform").pvalue, *pvalues) > 1e-3


def test_what_one_hospital_sends_is_uniform_whatever_its_update() -> None:
    enrolment, keys = enrolled()
    grid = FixedPoint(bound=1.0, summands=10)
    shapes = {"w": (50_000,)}
    name = HOSPITALS[3]
    for weight in (0.0, 1e-6, 1.0):
        sent = masked_update(
            update(name, shapes=shapes), weight=weight, keys=keys[name], enrolment=enrolment, grid=grid
        )
        assert uniform(sent.words["w"], grid)
        plain = grid.encode(update(name, shapes=shapes).delta["w"] * weight)
        assert uniform((sent.words["w"] - plain) % grid.modulus, grid)
    # The test has teeth: without masks an update does not pass for uniform.
    assert not uniform(grid.encode(update(name, shapes=shapes).delta["w"]), grid)


def test_with_one_secret_of_a_hospital_its_update_stays_masked_and_with_both_it_lies_open() -> None:
    enrolment, keys = enrolled()
    grid = FixedPoint(bound=1.0, summands=10)
    name, shapes = HOSPITALS[3], {"w": (50_000,)}
    sent = masked_update(update(name, shapes=shapes), weight=1.0, keys=keys[name], enrolment=enrolment, grid=grid)
    plain = grid.encode(update(name, shapes=shapes).delta["w"])
    own = keys[name].own
    others = [other for other in HOSPITALS if other != name]
    pairwise = [(seed, -sign) for seed, sign in _pairwise_masks(name, own.private_key, others, enrolment)]
    known = {
        "self seed": [(own.self_seed, -1)],
        "key": pairwise,
        "all but one pair": [(own.self_seed, -1), *pairwise[1:]],
    }
    for masks in known.values():
        left = _with_masks(sent.words, masks, grid)["w"]
        assert uniform(left, grid)
        assert uniform((left - plain) % grid.modulus, grid)
    assert torch.equal(_with_masks(sent.words, [(own.self_seed, -1), *pairwise], grid)["w"], plain)


def test_a_survivor_never_tells_both_secrets_of_anybody() -> None:
    enrolment, keys = enrolled()
    survivors = HOSPITALS[2:]
    answer = release_shares(keys[HOSPITALS[5]], enrolment, survivors)
    assert set(answer.self_seed) == set(survivors)
    assert set(answer.private_key) == set(HOSPITALS[:2])
    share = Share(x=1, y=1)
    with pytest.raises(ValueError, match="both secrets of a"):
        ReleasedShares("h", self_seed={"a": share, "b": share}, private_key={"a": share})


@pytest.mark.parametrize("count", range(2, 40))
def test_the_safe_threshold_keeps_both_secrets_apart_unless_a_third_help(count: int) -> None:
    threshold = safe_threshold(count)
    assert threshold <= count
    helpers = math.ceil(count / 3) - 1
    assert count + helpers < 2 * threshold


def test_other_seeds_give_other_secrets_and_the_same_seed_the_same() -> None:
    first, second, other = (enrolled(seed=seed) for seed in (0, 0, 1))
    assert first == second
    assert set(first[0].public_keys).isdisjoint(other[0].public_keys)
    assert len({own.own.self_seed for own in first[1].values()}) == len(HOSPITALS)
    assert "private_key" not in repr(first[1][HOSPITALS[0]].own)
    assert str(first[1][HOSPITALS[0]].held[HOSPITALS[1]].self_seed.y) not in repr(first[1])


# Who and what does not belong.


def test_masks_serve_one_hospital_and_one_round() -> None:
    enrolment, keys = enrolled()
    grid = FixedPoint(bound=1.0, summands=10)
    name = HOSPITALS[0]
    for wrong in (replace(update(name), round=2), update(HOSPITALS[1])):
        with pytest.raises(ValueError, match="enrolled for round 1"):
            masked_update(wrong, weight=1.0, keys=keys[name], enrolment=enrolment, grid=grid)
    narrow = FixedPoint(bound=1.0, summands=9)
    with pytest.raises(ValueError, match="too narrow for 10"):
        masked_update(update(name), weight=1.0, keys=keys[name], enrolment=enrolment, grid=narrow)
    with pytest.raises(OverflowError, match="exceeds the bound"):
        masked_update(update(name), weight=2.0, keys=keys[name], enrolment=enrolment, grid=grid)


def test_the_server_adds_up_what_belongs_together_only() -> None:
    enrolment, keys = enrolled()
    grid = FixedPoint(bound=1.0, summands=10)
    first, second = (
        masked_update(update(name), weight=1.0, keys=keys[name], enrolment=enrolment, grid=grid)
        for name in HOSPITALS[:2]
    )
    words = dict(second.words)
    for bad, message in (
        (first, "sent two updates"),
        (replace(second, hospital="stranger"), "did not enrol"),
        (replace(second, round=2), "did not enrol"),
        (replace(second, words={"z": words["z"]}), "other tensors than that of hospital-00"),
        (replace(second, words={**words, "a": words["a"] + grid.modulus}), "not modulo"),
        (replace(second, words={**words, "a": words["a"] - grid.modulus}), "not modulo"),
        (replace(second, words={**words, "a": words["a"].double()}), "not modulo"),
    ):
        with pytest.raises(ValueError, match=message):
            add_masked([first, bad], enrolment=enrolment, grid=grid)


def test_shares_that_do_not_belong_are_noticed() -> None:
    enrolment, keys = enrolled(HOSPITALS[:4], threshold=3)
    grid = FixedPoint(bound=1.0, summands=4)
    names = HOSPITALS[:3]
    sent: list[MaskedUpdate] = [
        masked_update(update(name), weight=1.0, keys=keys[name], enrolment=enrolment, grid=grid) for name in names
    ]
    total = add_masked(sent, enrolment=enrolment, grid=grid)
    released = [release_shares(keys[name], enrolment, names) for name in names]
    elsewhere = release_shares(keys[names[0]], enrolment, HOSPITALS[:4])
    with pytest.raises(ValueError, match="another list of survivors"):
        unmask_sum(total, [elsewhere, *released[1:]], enrolment=enrolment, grid=grid)
    with pytest.raises(ValueError, match="stranger did not enrol"):
        unmask_sum(total, [*released, replace(released[0], hospital="stranger")], enrolment=enrolment, grid=grid)
    owner = HOSPITALS[3]
    share = released[0].private_key[owner]
    # By more than the low three bits of a key, which X25519 does not use.
    forged = replace(released[0], private_key={owner: Share(x=share.x, y=(share.y + 2**100) % FIELD_PRIME)})
    with pytest.raises(ValueError, match=f"of {owner} do not belong together"):
        unmask_sum(total, [forged, *released[1:]], enrolment=enrolment, grid=grid)


def test_enrolments_that_cannot_be_are_refused() -> None:
    for hospitals, threshold in ((("a", "b"), 1), (("a", "b"), 3)):
        with pytest.raises(ValueError, match="threshold must be from 2 to the 2 hospitals"):
            enrolled(hospitals, threshold=threshold)
    with pytest.raises(ValueError, match="a name of its own"):
        enrolled(("a", "a", "b"), threshold=2)

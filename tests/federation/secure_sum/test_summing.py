"""A sum that nobody sees the summands of: right to the last step, with hospitals missing."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from hbdp_fed.errors import HospitalFailure, Refusal
from hbdp_fed.federation.secure_sum import (
    FIELD_PRIME,
    FixedPoint,
    MaskedUpdate,
    Share,
    add_masked,
    masked_update,
    release_shares,
    unmask_sum,
)
from tests.federation.secure_sum.sums import HOSPITALS, SHAPES, enrolled, flat, update


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
    with pytest.raises(Refusal, match="at least 7 of the enrolled"):
        release_shares(keys[names[0]], enrolment, names[:6])
    with pytest.raises(Refusal, match="nobody else"):
        release_shares(keys[names[0]], enrolment, [*names, "stranger"])
    with pytest.raises(Refusal, match="at least 7"):
        release_shares(keys[names[0]], enrolment, [names[0]] * 7)


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

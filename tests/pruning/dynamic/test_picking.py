from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snas.errors import DivergedError
from snas.pruning.dynamic.picking import draw, split, strongest


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_strongest_looks_only_among_the_candidates():
    values = torch.tensor([[5.0, 1.0, 4.0], [3.0, 2.0, 9.0]])
    among = torch.tensor([[False, True, True], [True, True, False]])
    marked = strongest(values, 2, among=among, generator=generator())
    assert marked.tolist() == [[False, False, True], [True, False, False]]
    assert not strongest(values, 0, among=among, generator=generator()).any()
    assert torch.equal(strongest(values, 4, among=among, generator=generator()), among)


def test_ties_are_broken_by_the_generator():
    among = torch.ones(4, dtype=torch.bool)
    found = {tuple(strongest(torch.zeros(4), 1, among=among, generator=generator(seed)).tolist()) for seed in range(40)}
    assert len(found) == 4


def test_nan_is_no_score():
    values = torch.tensor([1.0, float("nan")])
    with pytest.raises(DivergedError, match="NaN"):
        strongest(values, 1, among=torch.tensor([True, True]), generator=generator())
    assert strongest(values, 1, among=torch.tensor([True, False]), generator=generator()).tolist() == [True, False]


@pytest.mark.parametrize("count", [0, 1, 2, 5, 20])  # below and above a quarter of 20
def test_draw_marks_so_many_candidates(count):
    among = torch.zeros(30, dtype=torch.bool)
    among[5:25] = True
    for seed in range(20):
        marked = draw(among.reshape(5, 6), count, generator=generator(seed))
        assert int(marked.sum()) == count
        assert not (marked.reshape(-1) & ~among).any()


@pytest.mark.parametrize("places", [8, 20])  # a permutation, and drawing until enough are different
def test_draw_gives_every_pair_the_same_chance(places):
    own, among = generator(3), torch.ones(places, dtype=torch.bool)
    pairs = Counter(tuple(draw(among, 2, generator=own).nonzero().flatten().tolist()) for _ in range(100 * places))
    number = places * (places - 1) // 2
    expected = 100 * places / number
    chi_squared = sum((count - expected) ** 2 / expected for count in pairs.values())
    chi_squared += (number - len(pairs)) * expected
    assert chi_squared < number - 1 + 4 * (2 * (number - 1)) ** 0.5  # four standard deviations


@given(parts=st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 30)), min_size=1, max_size=6), share=st.floats(0, 1))
def test_shares_have_the_total_and_never_overflow(parts, share):
    weights, room = [weight for weight, _ in parts], [places for _, places in parts]
    total = int(share * sum(room))
    shares = split(weights, room, total)
    assert sum(shares) == total
    assert all(0 <= part <= places for part, places in zip(shares, room, strict=True))


@given(
    weights=st.lists(st.integers(0, 9), min_size=2, max_size=5),
    room=st.lists(st.integers(1, 9), min_size=5, max_size=5),
)
def test_shares_are_those_of_pouring_a_little_at_a_time(weights, room):
    """Second way: give each open part its proportion of a small amount, again and again."""
    room = room[: len(weights)]
    total = sum(room) // 2
    poured, left, drop = [0.0] * len(weights), float(total), 1e-3
    while left > 1e-9:
        free = [index for index in range(len(weights)) if poured[index] < room[index] - 1e-9]
        claims = {index: weights[index] for index in free}
        if not any(claims.values()):
            claims = {index: room[index] for index in free}
        amount = min([drop * sum(room), left])
        amounts = {index: amount * claim / sum(claims.values()) for index, claim in claims.items()}
        scale = min([1.0, *((room[i] - poured[i]) / a for i, a in amounts.items() if a > 0)])
        for index, part in amounts.items():
            poured[index] += scale * part
            left -= scale * part
    for part, exact in zip(split([float(weight) for weight in weights], room, total), poured, strict=True):
        assert abs(part - exact) < 1 + 1e-6


def test_infinite_claims_are_refused():
    with pytest.raises(DivergedError):
        split([float("inf"), 1.0], [1, 1], 1)

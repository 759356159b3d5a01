"""Streams of torch's global generator that start where they are told to, and leave no trace."""

import torch

from snas.seeds import seeded


def test_code_that_draws_from_global_state_is_seeded_and_the_state_put_back():
    torch.manual_seed(5)
    expected = torch.rand(3)
    after = torch.rand(3)
    torch.manual_seed(5)
    drawn = torch.rand(3)
    with seeded(5):
        again = torch.rand(3)
        torch.rand(100)
    assert torch.equal(drawn, expected)
    assert torch.equal(again, expected)
    assert torch.equal(torch.rand(3), after)

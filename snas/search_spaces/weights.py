"""Which parameters of a module are weights that can be thinned, and of how many matrices each is made.

Linear and convolution layers have one, called "weight". A recurrent layer or cell has one for its input and one for its
hidden state (and one for its projection), per layer and direction; attention has the projections of its queries, keys
and values, stacked into one where all three have the same width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

PRUNABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
LSTMS = (nn.LSTM, nn.LSTMCell)
GRUS = (nn.GRU, nn.GRUCell)
KINDS = (*PRUNABLE, *RECURRENT, nn.MultiheadAttention)


class Weight(NamedTuple):
    """One weight of a module.

    Attributes:
        name: the module's name for it, such as "weight" or "weight_hh_l0".
        tensor: the parameter, shape (out, in, *kernel).
        bias: what is added to its product, shape (out,), or None; queries, keys and values share a bias.
        blocks: so many matrices of equal shape are stacked along the first dimension: the groups of a convolution, the
            gates of a recurrent layer, queries, keys and values.
    """

    name: str
    tensor: nn.Parameter
    bias: Tensor | None
    blocks: int


def weights_in(module: nn.Module) -> list[Weight]:
    """The weights of one module itself, not of its children; none where they are computed from other parameters.

    Example:
        >>> [(weight.name, tuple(weight.tensor.shape), weight.blocks) for weight in weights_in(nn.LSTM(3, 2))]
        [('weight_ih_l0', (8, 3), 4), ('weight_hh_l0', (8, 2), 4)]
    """
    own = {name: value for name, value in module._parameters.items() if value is not None}
    if isinstance(module, PRUNABLE):
        return _pick(own, {"weight": "bias"}, int(getattr(module, "groups", 1)))
    if isinstance(module, RECURRENT):
        gates = 4 if isinstance(module, LSTMS) else 3 if isinstance(module, GRUS) else 1
        names = [name for name in own if name.startswith("weight_")]
        found = [_pick(own, {name: name.replace("weight", "bias", 1)}, gates) for name in names]
        # The projection of an LSTM's state is one matrix, and has no bias.
        return [weight._replace(blocks=1) if weight.name.startswith("weight_hr") else weight for (weight,) in found]
    if isinstance(module, nn.MultiheadAttention):
        apart = {f"{what}_proj_weight": "in_proj_bias" for what in "qkv"}
        return _pick(own, {"in_proj_weight": "in_proj_bias"}, 3) or _pick(own, apart, 1)
    return []


def drawn_in(model: nn.Module) -> Iterator[Weight]:
    """The weights of all modules, which initializations draw with their biases; one shared by several is met once."""
    seen: set[int] = set()
    for module in model.modules():
        for weight in weights_in(module):
            if id(weight.tensor) not in seen:
                seen.add(id(weight.tensor))
                yield weight


def positions_in(
    module: nn.Module, inputs: Sequence[Any], options: Mapping[str, Any], output: Any
) -> list[tuple[nn.Parameter, int]]:
    """How often each weight was used in one call of its module: output positions of all examples, time steps, tokens.

    Where queries are more or fewer than keys, a stacked projection has the mean of the three. Attention uses the weight
    of its output layer without calling that, so it is counted here.

    Args:
        module: of a kind in `KINDS`.
        inputs: positional arguments of the call.
        options: keyword arguments of the call.
        output: what it returned.
    """
    if isinstance(module, PRUNABLE):
        return [(weight.tensor, output.numel() // len(weight.tensor)) for weight in weights_in(module)]
    if isinstance(module, nn.MultiheadAttention):
        return _attention_positions(module, inputs, options)
    sequence = inputs[0] if inputs else options["input"]
    values: Tensor = sequence.data if isinstance(sequence, PackedSequence) else sequence
    found = weights_in(module)
    features = next(weight.tensor.shape[1] for weight in found if weight.name.startswith("weight_ih"))
    return [(weight.tensor, values.numel() // features) for weight in found]


def _attention_positions(
    module: nn.MultiheadAttention, inputs: Sequence[Any], options: Mapping[str, Any]
) -> list[tuple[nn.Parameter, int]]:
    given = {**dict(zip(("query", "key", "value"), inputs, strict=False)), **options}
    sizes = {"query": module.embed_dim, "key": module.kdim, "value": module.vdim}
    tokens = {what: given[what].numel() // size for what, size in sizes.items()}
    by_name = {f"{what[0]}_proj_weight": count for what, count in tokens.items()}
    by_name["in_proj_weight"] = (sum(tokens.values()) + 1) // 3
    used = [(weight.tensor, by_name[weight.name]) for weight in weights_in(module)]
    return used + [(weight.tensor, tokens["query"]) for weight in weights_in(module.out_proj)]


def _pick(own: Mapping[str, nn.Parameter], names: Mapping[str, str], blocks: int) -> list[Weight]:
    """The parameters called as the keys of `names`, with their biases, called as the values."""
    return [Weight(name, own[name], own.get(bias), blocks) for name, bias in names.items() if name in own]

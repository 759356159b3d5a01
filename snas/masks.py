"""Which weights of a network are kept: chosen by score, to the weight, and held exactly zero elsewhere.

Layers that are not prunable, biases and normalization parameters never appear here.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snas.densities import Densities, Layer
from snas.errors import DivergedError, InputError, SnasError

_WHOLE = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # bytes -> whole numbers of that size


class Masks(Mapping[str, Tensor]):
    """Layer name -> mask: a boolean tensor of the weight's shape, true where a weight is kept.

    Not to be changed once made. Masks stay on the CPU; what needs them elsewhere makes its copies once.

    Example:
        >>> masks = Masks([Layer("fc", (2, 2))], {"fc": torch.tensor([[True, False], [True, True]])})
        >>> masks.kept.counts, masks.pack()["fc"].tolist()
        ({'fc': 3}, [176])

    Raises:
        InputError: if a layer has no mask, or one of another shape or type.
    """

    def __init__(self, layers: Sequence[Layer], masks: Mapping[str, Tensor]) -> None:
        """Take one mask per layer."""
        self.layers = tuple(layers)
        unknown = [name for name in masks if all(layer.name != name for layer in self.layers)]
        if unknown:
            raise InputError(f"mask for unknown layer {unknown[0]!r}; layers: {_names(self.layers)}")
        for layer in self.layers:
            if layer.name not in masks:
                raise InputError(f"no mask for layer {layer.name!r}; give one for each of {len(self.layers)} layers")
            mask = masks[layer.name]
            if mask.dtype != torch.bool or tuple(mask.shape) != layer.shape:
                found = f"{mask.dtype} of shape {tuple(mask.shape)}"
                raise InputError(f"mask of layer {layer.name!r} is {found}; expected torch.bool of shape {layer.shape}")
        self._masks = {layer.name: masks[layer.name].cpu() for layer in self.layers}
        counts = {name: int(np.count_nonzero(mask.numpy())) for name, mask in self._masks.items()}
        self.kept = Densities.from_counts(self.layers, counts)

    @classmethod
    def dense(cls, layers: Sequence[Layer]) -> Masks:
        """Keep everything."""
        return cls(layers, {layer.name: torch.ones(layer.shape, dtype=torch.bool) for layer in layers})

    @classmethod
    def unpack(cls, layers: Sequence[Layer], packed: Mapping[str, Tensor]) -> Masks:
        """Read what `pack` returned.

        Raises:
            InputError: if a layer is missing or has another number of bytes.
        """
        masks = {}
        for layer in layers:
            octets = -(-layer.total // 8)
            if layer.name not in packed or packed[layer.name].shape != (octets,):
                raise InputError(f"packed mask of layer {layer.name!r} is missing or not of {octets} bytes")
            bits = np.unpackbits(packed[layer.name].cpu().numpy(), count=layer.total)
            masks[layer.name] = torch.from_numpy(bits.astype(np.bool_)).reshape(layer.shape)
        return cls(layers, masks)

    def __getitem__(self, name: str) -> Tensor:
        return self._masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Masks) and self.checksum() == other.checksum()

    def __hash__(self) -> int:
        return hash(self.checksum())

    def pack(self) -> dict[str, Tensor]:
        """Layer name -> mask as bits, eight to a byte, first weight in the highest bit; shape (bytes,), uint8."""
        return {name: torch.from_numpy(np.packbits(mask.reshape(-1).numpy())) for name, mask in self._masks.items()}

    def checksum(self) -> str:
        """SHA-256 of names, shapes and masks in the order of the layers, as 64 hexadecimal digits."""
        digest = hashlib.sha256()
        for layer, bits in zip(self.layers, self.pack().values(), strict=True):
            digest.update(f"{layer.name}\0{layer.shape}\0".encode())
            digest.update(bits.numpy().tobytes())
        return digest.hexdigest()

    def without(self, names: Container[str]) -> Masks:
        """The masks of the other layers."""
        layers = [layer for layer in self.layers if layer.name not in names]
        if len(layers) == len(self.layers):
            return self
        return Masks(layers, {layer.name: self._masks[layer.name] for layer in layers})

    def apply(self, model: nn.Module) -> None:
        """Set the model's masked weights to zero, in place, on whatever device they are."""
        with torch.no_grad():
            for layer, weight in zip(self.layers, weights_of(model, self.layers), strict=True):
                zero_masked(weight, self._masks[layer.name])


def choose(scores: Mapping[str, Tensor], densities: Densities, *, generator: torch.Generator) -> Masks:
    """Keep, in each layer, exactly the counted number of weights with the best scores.

    Args:
        scores: layer name -> score of each weight, of the weight's shape; higher is kept.
        densities: how many weights each layer keeps.
        generator: breaks ties, uniformly among equals; a CPU generator. Each layer has its own stream of it, so that
            the count of one layer does not change the mask of another.

    Raises:
        InputError: if a layer has no scores, scores of another shape, or a score that is NaN or infinite.

    Example:
        >>> layer = Layer("fc", (1, 3))
        >>> masks = choose(
        ...     {"fc": torch.tensor([[0.1, 0.3, 0.2]])}, Densities((layer,), (2,)), generator=torch.Generator()
        ... )
        >>> masks["fc"].tolist()
        [[False, True, True]]
    """
    masks = {}
    for layer, kept in zip(densities.layers, densities.kept, strict=True):
        own = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
        values = checked_scores(scores, layer)
        masks[layer.name] = torch.from_numpy(best(values, kept, generator=own)).reshape(layer.shape)
    return Masks(densities.layers, masks)


def best(values: NDArray[Any], kept: int, *, generator: torch.Generator) -> NDArray[np.bool_]:
    """Mark the `kept` largest of `values`, shape (n,), in linear time; ties are broken by the generator."""
    if kept in (0, len(values)):
        return np.full(len(values), kept > 0)
    place = len(values) - kept
    threshold = np.partition(values, place)[place]
    marked: NDArray[np.bool_] = values > threshold
    ties = np.flatnonzero(values == threshold)
    missing = kept - int(np.count_nonzero(marked))
    if missing < len(ties):
        ties = ties[torch.randperm(len(ties), generator=generator)[:missing].numpy()]
    marked[ties] = True
    return marked


def checked_scores(scores: Mapping[str, Tensor], layer: Layer) -> NDArray[Any]:
    """The layer's scores as a flat array; raises InputError where they are missing, misshapen, NaN or
    infinite."""
    if layer.name not in scores:
        raise InputError(f"no scores for layer {layer.name!r}; got scores for: {', '.join(scores) or 'none'}")
    score = scores[layer.name].detach().cpu()
    if tuple(score.shape) != layer.shape:
        raise InputError(f"scores of layer {layer.name!r} have shape {tuple(score.shape)}; expected {layer.shape}")
    if score.dtype in (torch.float16, torch.bfloat16):
        score = score.float()
    values: NDArray[Any] = score.reshape(-1).numpy()
    wrong = values.size - int(np.count_nonzero(np.isfinite(values)))
    if wrong:
        kind = "NaN" if np.isnan(values).any() else "infinite"
        raise InputError(
            f"{wrong} scores of layer {layer.name!r} are {kind}; check the network's weights and its input"
        )
    return values


class Enforcer:
    """Keeps masked weights exactly zero while any optimizer of torch trains the network.

    A step may move a masked weight by its gradient, by a momentum or moment that an earlier gradient left, or by weight
    decay. Masked gradients are therefore zeroed before the step, so that nothing accumulates, and masked weights after
    it:

        loss.backward(); enforcer.mask_gradients(); optimizer.step(); enforcer.mask_weights()
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor], *, movable: bool = False) -> None:
        """Look the weights up once; `model` is where it will be trained.

        Layers that keep everything cost nothing, unless their masks are `movable`.
        """
        if not isinstance(masks, Masks):
            raise InputError(f"masks are of type {type(masks).__name__}; expected snas.masks.Masks")
        self._pairs: dict[str, tuple[Tensor, Tensor]] = {}
        for layer, weight in zip(masks.layers, weights_of(model, masks.layers), strict=True):
            if movable or masks.kept.counts[layer.name] < layer.total:
                factor = torch.empty_like(weight, requires_grad=False).copy_(masks[layer.name])
                self._pairs[layer.name] = weight, factor
        self.leave(())

    @classmethod
    def of_all(cls, enforcers: Iterable[Enforcer], *, without: Container[str] = ()) -> Enforcer:
        """One for all networks that these look after, leaving alone the layers that they leave, and those named."""
        joined = cls.__new__(cls)
        joined._pairs, joined._weights, joined._factors = {}, [], []
        for enforcer in enforcers:
            looked_after = set(map(id, enforcer._weights))
            for name, (weight, factor) in enforcer._pairs.items():
                if id(weight) in looked_after and name not in without:
                    joined._weights.append(weight)
                    joined._factors.append(factor)
        return joined

    def leave(self, names: Container[str]) -> None:
        """Leave these layers alone from now on, and no others: those of which only kept weights are stored."""
        pairs = [pair for name, pair in self._pairs.items() if name not in names]
        self._weights, self._factors = [weight for weight, _ in pairs], [factor for _, factor in pairs]

    def factor_of(self, weight: Tensor) -> Tensor | None:
        """Ones and zeros that a weight's gradient is multiplied with; None for what is not looked after."""
        found = (factor for own, factor in zip(self._weights, self._factors, strict=True) if own is weight)
        return next(found, None)

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Zero the gradients of masked weights; call between `backward` and `step`."""
        pairs = [(w.grad, f) for w, f in zip(self._weights, self._factors, strict=True) if w.grad is not None]
        if pairs:
            torch._foreach_mul_([gradient for gradient, _ in pairs], [factor for _, factor in pairs])

    @torch.no_grad()
    def mask_weights(self) -> None:
        """Zero the masked weights; call after `step`."""
        if self._weights:
            torch._foreach_mul_(self._weights, self._factors)


@torch.no_grad()
def audit(model: nn.Module, masks: Masks) -> None:
    """Check that every masked weight is exactly zero.

    Raises:
        DivergedError: if a masked weight is NaN or infinite, which only a gradient of that kind leaves.
        SnasError: if a masked weight is another number than zero, with the layer's name and the count.
    """
    for layer, weight in zip(masks.layers, weights_of(model, masks.layers), strict=True):
        masked = ~masks[layer.name].to(weight.device)
        wrong = int(torch.count_nonzero(is_not_zero(weight) & masked))
        if not wrong:
            continue
        if not bool(torch.isfinite(weight).all()):
            raise DivergedError(f"layer {layer.name!r} has weights that are NaN or infinite; lower the learning rate")
        total = layer.total - masks.kept.counts[layer.name]
        raise SnasError(
            f"layer {layer.name!r} has {wrong} of its {total} masked weights not zero; use snas.masks.Enforcer"
        )


def weights_of(model: nn.Module, layers: Sequence[Layer]) -> list[nn.Parameter]:
    """The layers' weights in the model; raises InputError where one is missing or has another shape."""
    weights = []
    for layer in layers:
        try:
            weight = model.get_parameter(layer.parameter)
        except AttributeError:
            raise InputError(f"the network has no weight {layer.parameter!r}; its masks are of another one") from None
        if tuple(weight.shape) != layer.shape:
            raise InputError(f"weight {layer.parameter!r} has shape {tuple(weight.shape)}; expected {layer.shape}")
        weights.append(weight)
    return weights


def units(mask: Tensor) -> Tensor:
    """Kept inputs of each output unit: the mask's sum over all dimensions but the first, shape (out,)."""
    rows = mask.reshape(len(mask), math.prod(mask.shape[1:]))
    # Half the time of a sum of 64 bits.
    return rows.sum(1, dtype=torch.int32).long() if mask.dtype == torch.bool else rows.sum(1)


def zero_masked(values: Tensor, mask: Tensor) -> None:
    """Set to zero, in place, what a mask leaves out, whatever it is. Not recorded by autograd.

    On a CPU, the bits of each number are multiplied by one or by zero as whole numbers are: a twentieth of the time of
    `masked_fill_`, which decides at every place.

    Args:
        values: of 16, 32 or 64 bits each, such as weights.
        mask: of the same shape, boolean, on whatever device.

    Example:
        >>> values = torch.tensor([1.5, torch.nan, -2.0])
        >>> zero_masked(values, torch.tensor([True, False, False]))
        >>> values
        tensor([1.5000, 0.0000, 0.0000])
    """
    mask = mask.to(values.device)
    whole = _WHOLE.get(values.element_size())
    with torch.no_grad():
        if values.device.type != "cpu" or whole is None or values.is_complex() or values.is_neg():
            values.masked_fill_(~mask, 0.0)
        else:
            values.detach().view(whole).mul_(mask)


def is_not_zero(values: Tensor) -> Tensor:
    """Where values are not zero, true for NaN. NumPy compares ten times faster than torch, where it knows the type."""
    if values.device.type != "cpu" or values.dtype not in (torch.float32, torch.float64):
        return values != 0
    return torch.from_numpy(values.detach().numpy() != 0)


def _names(layers: Sequence[Layer]) -> str:
    return ", ".join(layer.name for layer in layers)

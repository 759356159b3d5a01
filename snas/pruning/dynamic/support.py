"""The masks of a network in training, where they may move."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from snas.masks import Enforcer, Masks, weights_of
from snas.pruning.scores import Batch


class Support(Enforcer):
    """Which weights a network in training has now: like `Enforcer`, it keeps the others at zero.

    Attributes:
        model: the network.
        layers: the prunable layers.
        weights: layer name -> weight, on the training's device.
        masks: layer name -> boolean mask on that device; changed by `move` alone.
        factors: layer name -> the same mask as numbers, laid out like the weight.
        optimizer: whose state is made fresh where the mask moves.
        moved: whether a mask has changed since this was last set to False.
    """

    def __init__(self, model: nn.Module, masks: Masks, optimizer: torch.optim.Optimizer, training: Batch) -> None:
        """Take the network as it is trained, its masks, and the training examples."""
        super().__init__(model, masks, movable=True)
        self.model = model
        self.layers = masks.layers
        self.optimizer = optimizer
        self.moved = False
        self.weights = dict(zip(masks, weights_of(model, masks.layers), strict=True))
        self.factors = {name: factor for name, (_, factor) in self._pairs.items()}
        self.masks = {name: masks[name].to(weight.device) for name, weight in self.weights.items()}
        self._training = training

    @torch.no_grad()
    def move(self, masks: Mapping[str, Tensor]) -> None:
        """Take new masks for some or all layers.

        Weights that come or go are zero afterwards, and the optimizer has no memory of them: its moments are zero
        there. (A count of steps that Adam keeps per tensor stays.) A weight that is in both masks stays as it is.
        """
        for name, new in masks.items():
            weight = self.weights[name]
            mask = new.to(weight.device)
            changed = mask != self.masks[name]
            if not bool(changed.any()):
                continue
            self.moved = True
            weight.masked_fill_(changed, 0.0)
            for moment in self.optimizer.state.get(weight, {}).values():
                if isinstance(moment, Tensor) and moment.shape == weight.shape:
                    moment.masked_fill_(changed, 0.0)
            self.masks[name] = mask
            self.factors[name].copy_(mask)

    @torch.no_grad()
    def exchange(self, name: str, gone: Tensor, came: Tensor) -> None:
        """Take other weights of a layer in place of some: as `move`, for few of many, and what comes back is new too.

        Args:
            name: of the layer.
            gone: numbers of kept weights, counted along the rows; shape (weights,), int64, on the weight's device.
            came: numbers of weights that are masked, or in `gone`, of that shape.
        """
        weight, mask = self.weights[name], self.masks[name].clone()
        either, zeros, ones = torch.cat((gone, came)), weight.new_zeros(2 * len(gone)), weight.new_ones(len(came))
        weight.put_(either, zeros)
        for moment in self.optimizer.state.get(weight, {}).values():
            if isinstance(moment, Tensor) and moment.shape == weight.shape:
                moment.put_(either, zeros.to(moment))
        self.factors[name].put_(gone, zeros[: len(gone)]).put_(came, ones)
        self.masks[name] = mask.put_(gone, zeros[: len(gone)].bool()).put_(came, ones.bool())
        self.moved = True

    def restore(self, masks: Masks) -> None:
        """Take the masks of a checkpoint; weights and the optimizer's state, which come from there too, stay."""
        for name, mask in masks.items():
            self.masks[name] = mask.to(self.weights[name].device)
            self.factors[name].copy_(mask)

    @torch.no_grad()
    def forget(self) -> None:
        """Make the optimizer as it was before its first step: every moment and every count of steps is zero."""
        for state in self.optimizer.state.values():
            for value in state.values():
                if isinstance(value, Tensor):
                    value.zero_()

    def gradient(self, name: str) -> Tensor:
        """The gradient of all the layer's weights, masked ones too; zero where the loss does not depend on them."""
        weight = self.weights[name]
        return torch.zeros_like(weight) if weight.grad is None else weight.grad

    def kept(self) -> dict[str, int]:
        """Layer name -> weights that it has now."""
        return {name: int(torch.count_nonzero(mask)) for name, mask in self.masks.items()}

    def freeze(self) -> Masks:
        """The masks as they are now."""
        return Masks(self.layers, {name: mask.cpu() for name, mask in self.masks.items()})

    def batch(self, examples: int, *, generator: torch.Generator) -> Batch:
        """Training examples, drawn without return; 0: all."""
        x, y = self._training.x, self._training.y
        if examples:
            index = torch.randperm(len(y), generator=generator)[:examples].to(y.device)
            x, y = x[index], y[index]
        return Batch(x, y)

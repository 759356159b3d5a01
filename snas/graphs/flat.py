"""A network's parameters in one row, its gradients in another, its optimizer's moments in others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.sgd import sgd

from snas.graphs.proofs import the_same

_OF_SGD = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize", "foreach", "fused")


class Flat:
    """Parameters that lie one behind the other, so that one operation changes all of them.

    Every parameter becomes a view of the row, and has a view of the gradients' row as its `grad`. What optimizers do is
    done entry by entry, so that results are those of the parameters apart, to rounding; moments stay where everybody
    looks for them, with each parameter's own optimizer, as views of the rows that are stepped.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], optimizer: Optimizer, make: Callable[[list[nn.Parameter]], Optimizer]
    ) -> None:
        """Lay the parameters out.

        Args:
            parameters: of one type, on one device, contiguous, with one dimension or more.
            optimizer: that looks after them, which keeps their state.
            make: makes an optimizer of the same kind.

        Raises:
            ValueError: if some of the parameters have state and others none, as after steps without their gradients.
        """
        self._parameters = list(parameters)
        self._sizes = [parameter.numel() for parameter in self._parameters]
        self._own = optimizer
        with torch.no_grad():
            row = torch.cat([parameter.reshape(-1) for parameter in self._parameters])
            self.gradient = torch.zeros_like(row)
            parts = zip(self._parameters, self._parts(row), self._parts(self.gradient), strict=True)
            for parameter, part, of_part in parts:
                parameter.data, parameter.grad = part, of_part
            self._row = nn.Parameter(row)
        self._row.grad = self.gradient
        self.optimizer = make([self._row])
        self._take()

    def holds(self) -> bool:
        """Whether parameters, gradients and the optimizer's state are in the rows still, as they were left."""
        if not self._lie_in(self._row, self._parameters):
            return False
        if not self._lie_in(self.gradient, [parameter.grad for parameter in self._parameters]):
            return False
        states = [self._own.state.get(parameter, {}) for parameter in self._parameters]
        for key, value in self.optimizer.state[self._row].items():
            each = [state.get(key) for state in states]
            if self._is_moment(value):
                if not self._lie_in(value, each):
                    return False
            elif any(not torch.equal(torch.as_tensor(one), torch.as_tensor(value)) for one in each):
                return False
        return True

    @property
    def row(self) -> Tensor:
        """All parameters, one behind the other."""
        return self._row

    def give_back(self) -> None:
        """Drop the row of gradients; the parameters have none then, and this is of no more use."""
        for parameter in self._parameters:
            parameter.grad = None

    def are(self, parameters: Iterable[nn.Parameter]) -> bool:
        """Whether these are its parameters."""
        return the_same(parameters, self._parameters)

    def laid_out(self, of_parameter: Callable[[nn.Parameter], Tensor | None]) -> Tensor | None:
        """A row with something of each parameter's shape, ones where there is nothing; None where there is none."""
        found = [of_parameter(parameter) for parameter in self._parameters]
        if all(value is None for value in found):
            return None
        row = torch.ones_like(self.gradient)
        for value, part in zip(found, self._parts(row), strict=True):
            if value is not None:
                part.copy_(value)
        return row

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Change the parameters by the gradients."""
        (group,) = self.optimizer.param_groups
        group["lr"] = learning_rate
        moment = self.optimizer.state[self._row].get("momentum_buffer")
        if type(self.optimizer) is not SGD or moment is None:
            self.optimizer.step()
            return
        # The same as SGD's `step`, half of whose time goes into looking up what stays as it is.
        rule = {name: group[name] for name in _OF_SGD}
        sgd([self._row], [self.gradient], [moment], has_sparse_grad=False, grad_scale=None, found_inf=None, **rule)

    def hand_back(self) -> None:
        """Have each parameter's own optimizer know the state as it is now."""
        states = [self._own.state[parameter] for parameter in self._parameters]
        for key, value in self.optimizer.state[self._row].items():
            if not self._is_moment(value):
                for state in states:
                    state[key] = _copied(value)
            elif not self._lie_in(value, [state.get(key) for state in states]):
                for state, part in zip(states, self._parts(value), strict=True):
                    state[key] = part

    def _take(self) -> None:
        """Take over the state that the parameters have."""
        states = [self._own.state.get(parameter) or {} for parameter in self._parameters]
        if len({frozenset(state) for state in states}) > 1:
            raise ValueError("some parameters have been stepped and others have not")
        for key, value in states[0].items():
            each = [state[key] for state in states]
            pairs = zip(each, self._parameters, strict=True)
            joined = all(isinstance(one, Tensor) and one.shape == parameter.shape for one, parameter in pairs)
            whole = torch.cat([one.reshape(-1) for one in each]) if joined else _copied(value)
            self.optimizer.state[self._row][key] = whole
        self.hand_back()

    def _is_moment(self, value: object) -> bool:
        return isinstance(value, Tensor) and value.shape == self._row.shape

    def _lie_in(self, row: Tensor, tensors: Sequence[Tensor | None]) -> bool:
        """Whether each parameter's tensor begins where its part of a row does."""
        start, size = row.data_ptr(), row.element_size()
        places = accumulate(self._sizes[:-1], initial=0)
        return all(
            tensor is not None and tensor.data_ptr() == start + place * size
            for tensor, place in zip(tensors, places, strict=True)
        )

    def _parts(self, row: Tensor) -> list[Tensor]:
        """Each parameter's part of a row, in its shape."""
        parts = torch.split(row, self._sizes)
        return [part.view(parameter.shape) for parameter, part in zip(self._parameters, parts, strict=True)]


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value

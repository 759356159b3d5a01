"""Networks of one architecture side by side: one forward and one backward pass for all."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from snas.errors import SnasError, one_line
from snas.graphs.proofs import close, disturbed, identities_in, the_same
from snas.kernels.sparse_linear import Pattern, available
from snas.seeds import seeded
from snas.stacked.twins import TWINS, BatchNormTwin, Blocks, LinearTwin, Twin
from snas.training.evaluation import full_precision

Structure = tuple[tuple[str, str], ...]
FEW = 1 / 8  # density up to which kept weights alone are multiplied


class Unstackable(SnasError):
    """A network that cannot be trained in a stack; the message says why, without the network's name."""


class Stack:
    """Several networks' parameters and buffers as one set of tensors, and the network that computes with them.

    The networks stay whole: their parameters become views of the stack's tensors, so that whatever optimizers, masks,
    checkpoints and validations do to one of them is done to the stack.

    Attributes:
        leaves: parameter -> the networks' values together, shape (slots, *shape); gradients come here.
    """

    def __init__(self, model: nn.Module, input_shape: Sequence[int]) -> None:
        """Make ready for networks like `model`, which is left as it is.

        Raises:
            Unstackable: if a layer has no twin, or networks side by side do not compute what each computes alone.
        """
        _require_plain(model)
        self._structure = structure(model)
        self._twins: dict[str, Twin] = {}
        self._network = self._with_twins(_copied(model))
        self._paths = [name for name, _ in model.named_parameters()]
        self._buffers = [name for name, _ in model.named_buffers()]
        self.leaves: dict[str, Tensor] = {}
        self._members: list[nn.Module] = []
        self._fillers: list[nn.Module] = []
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self._parameters: dict[str, list[nn.Parameter]] = {}
        self._patterns: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._prove(model, tuple(input_shape))

    def fits(self, model: nn.Module) -> bool:
        """Whether a network is of the stack's architecture."""
        return structure(model) == self._structure

    def bind(
        self,
        models: Sequence[nn.Module],
        masks: Sequence[Mapping[str, Tensor]] | None = None,
        *,
        few: float | None = None,
        width: int | None = None,
    ) -> None:
        """Put networks side by side, in this order. Their parameters and buffers are views from now on.

        Those of networks that were in the stack before stay views of what was the stack then.

        Args:
            models: the networks.
            masks: of each, layer name -> mask, where they do not move and arithmetic is in single precision on a CPU:
                layers of which few weights are left are multiplied with these alone, and have no gradients elsewhere.
            few: density up to which that is so; `FEW` where not given.
            width: networks that the stack's tensors are to have room for, so that their shapes stay as they are whoever
                comes and goes; other networks, of which nobody hears, take the places that are left. As many as there
                are where not given.
        """
        models = [*models, *self._fill(models[0], (width or 0) - len(models))]
        if self._holds(models):
            return
        self._members = models
        parameters = [dict(model.named_parameters()) for model in models]
        self.leaves = {}
        for name in self._paths:
            together = torch.stack([own[name].detach() for own in parameters])
            for own, view in zip(parameters, together.unbind(), strict=True):
                own[name].data = view
            self._hand(name, together.detach().requires_grad_())
            self.leaves[name] = self._tensor(name)
        buffers = [dict(model.named_buffers()) for model in models]
        for name in self._buffers:
            together = torch.stack([own[name] for own in buffers])
            path, _, last = name.rpartition(".")
            for model, view in zip(models, together.unbind(), strict=True):
                setattr(model.get_submodule(path), last, view)
            self._hand(name, together)
        self._parameters = {name: [own[name] for own in parameters] for name in self._paths}
        for path, twin in self._twins.items():
            twin.slots = len(models)
            if isinstance(twin, LinearTwin):
                twin.blocks = self._blocks(path, masks, FEW if few is None else few)

    def release(self) -> None:
        """Let all networks go."""
        for model in self._members:
            make_own(model)
        self._members, self.leaves, self._parameters = [], {}, {}
        for twin in self._twins.values():
            twin.own.clear()
            if isinstance(twin, LinearTwin):
                twin.blocks = None

    def train(self, mode: bool = True) -> None:
        """Choose training or evaluation mode."""
        self._network.train(mode)

    def compile(self, *, backend: str | Callable[..., Any] = "inductor") -> None:
        """Have what trains compiled, when it is first called: once for every shape of a batch, by a backend of
        `torch.compile`. Pays on a GPU, where starting one operation after another takes longer than computing them;
        `bind` with a width keeps the shapes."""
        self._compiled = torch.compile(self._network, dynamic=False, backend=backend)

    def measure_anew(self) -> bool:
        """Have BatchNorm average the statistics of the next batches, all else in evaluation mode, until `train` is
        called; says whether there is any that does."""
        self.train(False)
        norms = [twin for twin in self._twins.values() if isinstance(twin, BatchNormTwin)]
        for norm in norms:
            norm.measure_anew()
        return any(norm.batches is not None for norm in norms)

    @property
    def clean(self) -> set[str]:
        """Layers whose gradients are zero but for kept weights, without having been masked."""
        return {path for path, twin in self._twins.items() if isinstance(twin, LinearTwin) and twin.blocks is not None}

    def __call__(self, x: Tensor) -> Tensor:
        """Compute the networks' outputs for their own inputs.

        Args:
            x: shape (batch, slots, *input_shape).

        Returns:
            Shape (batch, slots, classes), in float32 or more.
        """
        batch, slots, first, *rest = x.shape
        places = max(slots, len(self._members))
        if places > slots:
            x = torch.cat((x, x[:, :1].expand(-1, places - slots, *x.shape[2:])), 1)
        network = self._network if self._compiled is None or not torch.is_grad_enabled() else self._compiled
        out: Tensor = network(x.reshape(batch, places * first, *rest))
        return full_precision(out).reshape(batch, places, -1)[:, :slots]

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of the sum of the networks' losses; each network's parameters have their own then."""
        for name, leaf in self.leaves.items():
            leaf.grad = None
            for own in self._parameters[name]:
                own.grad = None  # or there would be two sets of gradients for a while
        for twin in self._twins.values():
            if isinstance(twin, LinearTwin) and twin.blocks is not None:
                twin.blocks.gradient.view(-1).index_fill_(0, twin.blocks.places, 0.0)
        loss.backward()  # type: ignore[no-untyped-call]
        for name, leaf in self.leaves.items():
            twin = self._twins[name.rpartition(".")[0]]
            blocks = twin.blocks if isinstance(twin, LinearTwin) and leaf is twin.own["weight"] else None
            gradient = leaf.grad if blocks is None else blocks.gradient if twin.called else None
            each = [None] * len(self._members) if gradient is None else gradient.unbind()
            for own, part in zip(self._parameters[name], each, strict=True):
                own.grad = part

    def _fill(self, like: nn.Module, number: int) -> list[nn.Module]:
        """So many networks that take places."""
        while len(self._fillers) < number:
            self._fillers.append(copy.deepcopy(like))
        return self._fillers[: max(0, number)]

    def _holds(self, models: Sequence[nn.Module]) -> bool:
        """Whether these networks, in this order, are the stack's, and none has been let go."""
        if not the_same(models, self._members):
            return False
        name = self._paths[0]
        views = self.leaves[name].unbind()
        return all(own.data_ptr() == view.data_ptr() for own, view in zip(self._parameters[name], views, strict=True))

    def _blocks(self, path: str, masks: Sequence[Mapping[str, Tensor]] | None, few: float) -> Blocks | None:
        """The kept weights of a layer, where they are few."""
        if masks is None or any(path not in own for own in masks) or not available():
            return None
        total = sum(own[path].numel() for own in masks)
        if sum(int(own[path].count_nonzero()) for own in masks) > few * total:
            return None
        return Blocks.of([self._pattern(own[path]) for own in masks], self._twins[path].own["weight"].detach())

    def _pattern(self, mask: Tensor) -> Pattern:
        """The mask's pattern, remembered as long as there is the mask."""
        pattern: Pattern | None = self._patterns.get(mask)  # type: ignore[no-untyped-call]
        if pattern is None:
            pattern = self._patterns[mask] = Pattern.of(mask)
        return pattern

    def _with_twins(self, model: nn.Module, path: str = "") -> nn.Module:
        make = TWINS.get(type(model))
        if make is not None:
            self._twins[path] = make(model)
            return self._twins[path]
        for name, child in list(model.named_children()):
            setattr(model, name, self._with_twins(child, f"{path}.{name}".lstrip(".")))
        return model

    def _hand(self, name: str, value: Tensor) -> None:
        path, _, last = name.rpartition(".")
        self._twins[path].own[last] = value

    def _tensor(self, name: str) -> Tensor:
        path, _, last = name.rpartition(".")
        return self._twins[path].own[last]

    def _prove(self, model: nn.Module, input_shape: tuple[int, ...]) -> None:
        """Compare two networks side by side with each alone, forward and backward, in double precision: all weights
        multiplied, then kept ones alone, which are all."""
        generator = torch.Generator().manual_seed(0)
        device = next(model.parameters()).device
        x = torch.randn(2, 2, *input_shape, dtype=torch.float64, generator=generator).to(device)
        linear = [path for path, twin in self._twins.items() if isinstance(twin, LinearTwin)]
        whole = {
            path: torch.ones(model.get_parameter(f"{path}.weight").shape, dtype=torch.bool) for path in linear if path
        }
        try:
            for masks in (None, [whole, whole]) if whole and device.type == "cpu" else (None,):
                members = [disturbed(_copied(model), generator) for _ in range(2)]
                self._compare(members, [_copied(member) for member in members], x, masks)
        except Unstackable:
            raise
        except Exception as error:  # whatever the network's code raises, it does not stack
            raise Unstackable(
                f"its code does not work side by side ({type(error).__name__}: {one_line(error)})"
            ) from error
        finally:
            self.train()
            self.release()

    def _compare(
        self,
        members: Sequence[nn.Module],
        alone: Sequence[nn.Module],
        x: Tensor,
        masks: Sequence[Mapping[str, Tensor]] | None,
    ) -> None:
        """Raise Unstackable unless networks compute side by side what their copies compute alone."""
        with seeded(0):
            self.bind(members, masks, few=1.0)
            self.train()
            together = self(x)
            self.backward(together.square().sum())
            self.train(False)
            with torch.no_grad():
                evaluated = self(x)
            for slot, network in enumerate(alone):
                before = identities_in(network.train())
                out = network(x[:, slot])
                if identities_in(network) != before:
                    raise Unstackable("its layers remember something from one batch to the next")
                out.square().sum().backward()
                gradients = zip(
                    map(_gradient, members[slot].parameters()), map(_gradient, network.parameters()), strict=True
                )
                with torch.no_grad():
                    pairs = [(together[:, slot], out), (evaluated[:, slot], network.eval()(x[:, slot])), *gradients]
                if not all(close(a, b) for a, b in pairs):
                    raise Unstackable("side by side its networks do not compute what each computes alone")


def _copied(model: nn.Module) -> nn.Module:
    """A copy; raises Unstackable for a network that cannot be copied."""
    try:
        return copy.deepcopy(model)
    except Exception as error:  # whatever its attributes are
        raise Unstackable(f"it cannot be copied ({type(error).__name__}: {one_line(error)})") from error


def make_own(model: nn.Module) -> None:
    """Make a network's parameters and buffers its own again, so that it does not hold on to the stack's."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
        parameter.grad = None
    for name, value in list(model.named_buffers()):
        path, _, last = name.rpartition(".")
        setattr(model.get_submodule(path), last, value.clone())


def structure(model: nn.Module) -> Structure:
    """What two networks must have in common to stand in one stack: their modules with all options, and shapes."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return (("", repr(model)), *((name, f"{tuple(value.shape)} {value.dtype}") for name, value in tensors))


def _require_plain(model: nn.Module) -> None:
    """Raise Unstackable for what no twin can stand for."""
    if len(list(model.named_parameters(remove_duplicate=False))) != len(list(model.parameters())):
        raise Unstackable("some of its layers share a parameter")
    for path, module in model.named_modules():
        where = f"layer {path!r}" if path else "the network itself"
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            raise Unstackable(f"{where} drops units at random, in an order of its own")
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
            raise Unstackable(f"{where} has hooks")
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        if own and type(module) not in TWINS:
            raise Unstackable(f"{where} is a {type(module).__name__}, which has no twin")
        if getattr(module, "padding_mode", "zeros") != "zeros":
            raise Unstackable(f"{where} pads with something else than zeros")


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad

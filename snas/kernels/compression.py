"""Linear layers of a network in training, in compressed form where that is faster, and dense again where need be.

A layer changes its form in place: it stays the same object, so that a network that keeps its layers in lists of its own
goes on with them. Its weight, and the optimizer's state of it, change with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from snas.densities import Layer
from snas.errors import InputError
from snas.kernels.crossover import crossover
from snas.kernels.sparse_linear import SparseLinear, available
from snas.masks import Masks

Choice = Callable[[nn.Linear, Layer, int, bool], bool]

# Modules that work element by element and draw no random numbers: whatever the layout, results and speed are the same.
ELEMENTWISE = (
    nn.Identity, nn.Flatten, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU,
    nn.Mish, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish,
)  # fmt: skip


def choose_kernel(kernel: str, device: torch.device, *, precision: str, batch_size: int) -> Choice | None:
    """How to choose the form of a layer.

    Args:
        kernel: "dense" or "sparse" for all, or "auto": the faster one.
        device: where the network is trained.
        precision: arithmetic of the forward pass.
        batch_size: examples of a step.

    Returns:
        A function of the layer, its description, its number of kept weights, and whether results are laid out features
        first; None where all layers stay dense.

    Raises:
        InputError: if all are to be sparse where none can be.
    """
    if kernel == "dense":
        return None
    if reason := _reason(device, precision):
        if kernel == "sparse":
            raise InputError(f"kernel is sparse, but {reason}; use --kernel auto")
        return None
    if kernel == "sparse":
        return lambda linear, layer, kept, features_first: True

    def faster(linear: nn.Linear, layer: Layer, kept: int, features_first: bool) -> bool:
        rows, columns = linear.weight.shape
        examples, dtype = batch_size * layer.positions, linear.weight.dtype
        return kept < crossover(rows, columns, examples, dtype, features_first=features_first) * layer.total

    return faster


def _reason(device: torch.device, precision: str) -> str:
    """Why there are no sparse kernels, or ""."""
    if device.type != "cpu":
        return f"sparse kernels are for the cpu and the device is {device.type}"
    if precision != "fp32":
        return f"sparse kernels have no arithmetic of {precision}"
    return "" if available() else "this build of PyTorch has no sampled product of matrices (it comes with MKL)"


class Compression:
    """The linear layers of one network in training that can be compressed, and those that are.

    Attributes:
        compressed: layer name -> the layer, of those that are in compressed form now.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[Layer], optimizer: torch.optim.Optimizer, choose: Choice | None
    ) -> None:
        """Look for layers whose weight nobody else has a hand in.

        Args:
            model: the network, dense.
            layers: its prunable layers.
            optimizer: of the network's parameters.
            choose: which of them to compress; None for none.
        """
        self.compressed: dict[str, SparseLinear] = {}
        self._optimizer = optimizer
        self._choose = choose
        self._layers = {layer.name: layer for layer in layers}
        self._linears = dict(_plain(model, layers)) if choose else {}
        owners = {model.get_submodule(_owner(layer)): layer.name for layer in layers if _is_weight(layer)}
        modules = model.named_modules(remove_duplicate=False)
        self._paths = {path: owners[module] for path, module in modules if module in owners}
        self._dense: dict[str, dict[str, object]] = {}
        self._features_first = all(_keeps_layout(module) for module in model.modules())

    @torch.no_grad()
    def compress(self, masks: Mapping[str, Tensor]) -> None:
        """Compress the layers that lack weights and are to be compressed, with these masks (layer name -> mask)."""
        for name, linear in self._linears.items():
            mask = masks[name]
            kept = int(torch.count_nonzero(mask))
            if name in self.compressed or kept == mask.numel() or not self._chosen(name, kept):
                continue
            sparse = SparseLinear.from_dense(linear, mask, features_first=self._features_first)
            weight = cast(Parameter, linear.weight)
            self._replace(weight, sparse.values, sparse.pattern.gather)
            weight.grad = None
            weight.data = weight.new_empty(0)
            self._dense[name] = linear.__dict__
            _become(linear, SparseLinear, {**linear.__dict__, **sparse.__dict__, "training": linear.training})
            self.compressed[name] = linear  # type: ignore[assignment]  # what it has become

    @property
    def possible(self) -> bool:
        """Whether there are layers that can be compressed."""
        return bool(self._linears)

    @torch.no_grad()
    def expand(self) -> None:
        """Make all layers dense again; their weights are the parameters that they were before, without gradients."""
        for name, sparse in self.compressed.items():
            own = self._dense.pop(name)
            parameters: dict[str, Parameter] = own["_parameters"]  # type: ignore[assignment]
            weight = parameters["weight"]
            weight.data = sparse.weight
            self._replace(sparse.values, weight, sparse.pattern.scatter)
            _become(sparse, nn.Linear, {**own, "training": sparse.training})
        self.compressed = {}

    def audit(self, masks: Masks) -> None:
        """Raise SnasError if a compressed layer has its weights elsewhere than its mask."""
        for name, sparse in self.compressed.items():
            sparse.require(masks[name], name)

    def translate(self, state: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Bring a network's state, from a training with whatever kernels, into the form that the layers have here.

        Args:
            state: name -> tensor; "model/PATH.weight" and "optimizer/PATH.weight/KEY" of dense layers, with "values" in
                the place of "weight" of compressed ones.
            masks: layer name -> mask of the state.
        """
        return dict(self._translated(key, value, masks) for key, value in state.items())

    def _chosen(self, name: str, kept: int) -> bool:
        if self._choose is None:
            return False
        return self._choose(self._linears[name], self._layers[name], kept, self._features_first)

    def _translated(self, key: str, value: Tensor, masks: Mapping[str, Tensor]) -> tuple[str, Tensor]:
        kind, _, full = key.partition("/")
        owner, slash, rest = full.partition("/")
        path, dot, parameter = owner.rpartition(".")
        name = self._paths.get(path)
        if kind not in ("model", "optimizer") or name is None or parameter not in ("weight", "values"):
            return key, value
        wanted, mask = "values" if name in self.compressed else "weight", masks[name]
        if wanted == parameter:
            return key, value
        if parameter == "weight" and value.shape == mask.shape:
            value = value[mask]
        elif parameter == "values" and value.ndim == 1:
            value = value.new_zeros(mask.shape).masked_scatter_(mask, value)
        return f"{kind}/{path}{dot}{wanted}{slash}{rest}", value

    def _replace(self, old: Parameter, new: Parameter, moved: Callable[[Tensor], Tensor]) -> None:
        """Have the optimizer change `new` instead of `old`; `moved` brings state of old's shape into that of new."""
        for group in self._optimizer.param_groups:
            group["params"] = [new if parameter is old else parameter for parameter in group["params"]]
        state = self._optimizer.state.pop(old, None)
        if state:
            for key, value in state.items():
                moment = isinstance(value, Tensor) and value.shape == old.shape
                self._optimizer.state[new][key] = moved(value) if moment else value


def _plain(model: nn.Module, layers: Sequence[Layer]) -> Iterator[tuple[str, nn.Linear]]:
    """Linear layers of torch's own class, without hooks, whose weight is theirs alone, on the CPU, and is trained."""
    uses: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    for layer in layers:
        module = model.get_submodule(_owner(layer))
        if type(module) is not nn.Linear or not _is_weight(layer) or _hooked(module):
            continue
        weight = module.weight
        fits = weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.float64)
        if fits and weight.requires_grad and uses[id(weight)] == 1:
            yield layer.name, module


def _owner(layer: Layer) -> str:
    """Path of the module that has the layer's weight."""
    return layer.parameter.rpartition(".")[0]


def _is_weight(layer: Layer) -> bool:
    return layer.parameter.rpartition(".")[2] == "weight"


def _hooked(module: nn.Module) -> bool:
    """Whether anything is attached to the module or its weight."""
    attached = [hooks for name, hooks in vars(module).items() if name.endswith("_hooks") and hooks]
    weight = module._parameters["weight"]
    return bool(attached) or "forward" in vars(module) or bool(weight is not None and weight._backward_hooks)


def _keeps_layout(module: nn.Module) -> bool:
    """Whether results of linear layers may be laid out features first as far as this module goes.

    A class that is neither PyTorch's nor ours may do anything in its `forward`, dropout too.
    """
    if isinstance(module, (nn.Dropout, nn.AlphaDropout)):
        return module.p == 0
    ours = type(module).__module__.partition(".")[0] == "snas"
    return ours or type(module) in (*ELEMENTWISE, nn.Sequential, nn.ModuleList, nn.Linear)


def _become(module: nn.Module, kind: type[nn.Module], attributes: dict[str, object]) -> None:
    """Make the module one of another class, in place."""
    object.__setattr__(module, "__class__", kind)
    object.__setattr__(module, "__dict__", attributes)

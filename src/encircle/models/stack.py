"""K models of one architecture as one model, whose rows belong to the members in turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, cast, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .adapter import shares_weights
from .base import CamClassifier, Standardise, hooked
from .copies import copied
from .functional import called_with

Way = Literal["loop", "vectorised"]
"""How members are computed: one after another, or all at once through `torch.func`."""


def feasible(members: Sequence[nn.Module], way: Way) -> Way:
    """The way in which these members can be computed.

    They cannot be computed at once if weights have several names, which would come apart; if a module overrides `train`; if a gradient passes a hook; or
    if a head is not plainly linear.
    """
    first = members[0]
    plain_head = not isinstance(first, CamClassifier) or (type(first.head) is nn.Linear and not hooked(first.head))
    own_modes = any(type(module).train is not nn.Module.train for module in first.modules())
    hooks = any(parameter._backward_hooks for parameter in first.parameters())
    return way if plain_head and not own_modes and not hooks and not shares_weights(first) else "loop"


def stacked(members: Sequence[nn.Module], frozen: int, way: Way) -> nn.Module:
    """The members as one model. It takes `(K·n, *shape)`: the first n rows are member 0's, the next member 1's.

    Args:
        members: of one architecture, with the same frozen stages.
        frozen: number of early stages that they share. All rows pass through these at once.
        way: `"vectorised"` makes the members' parameters and buffers views of the stack's, so that training either trains both. It must be `feasible`.

    Returns:
        A `CamClassifier`, if the members are.
    """
    if all(isinstance(member, CamClassifier) for member in members):
        return Stack([cast(CamClassifier, member) for member in members], frozen, way)
    return _joined(members, way)


@final
class Stack(CamClassifier):
    """K networks with a CAM head, stage by stage; see `stacked`.

    Args:
        members: as for `stacked`.
        frozen: likewise.
        way: likewise.
    """

    def __init__(self, members: Sequence[CamClassifier], frozen: int, way: Way) -> None:
        super().__init__()
        self.count = len(members)
        shared = list(members[0].stages[:frozen])
        late = zip(*(member.stages[frozen:] for member in members), strict=True)
        self.layers = nn.ModuleList([*shared, *(_joined(stages, way) for stages in late)])
        self.head = cast(nn.Linear, _joined([member.head for member in members], way))
        self._has_linear_head = members[0].has_linear_head

    @property
    def stages(self) -> Sequence[nn.Module]:
        """The shared stages, then those of the members side by side."""
        return list(self.layers)

    @property
    def has_linear_head(self) -> bool:
        """Whether the members' are."""
        return self._has_linear_head

    def class_weights(self, target: Int[Tensor, "n"]) -> Float[Tensor, "n k"]:
        """Each row's class weights are its own member's."""
        joined = cast(_Loop | _Linear, self.head)
        weights = (
            joined.weight
            if isinstance(joined, _Linear)
            else torch.stack([cast(Tensor, head.weight) for head in joined.members])
        )
        owner = torch.arange(self.count, device=target.device).repeat_interleave(len(target) // self.count)
        return weights[owner, target]


def _joined(members: Sequence[nn.Module], way: Way) -> nn.Module:
    """The same module of every member as one module."""
    if way == "loop":
        return _Loop(members)
    first = members[0]
    if hooked(first):  # hooks belong to the module as it is
        return _Vectorised(members)
    if type(first) is nn.Sequential:
        children = zip(*(cast(nn.Sequential, member) for member in members), strict=True)
        return nn.Sequential(*(_joined(list(child), way) for child in children))
    if type(first) is nn.Linear:
        return _Linear([cast(nn.Linear, member) for member in members])
    if type(first) in _ELEMENTWISE or _same_standardisation(members):
        return first
    return _Vectorised(members)


def _same_standardisation(members: Sequence[nn.Module]) -> bool:
    first = members[0]
    return all(
        isinstance(first, Standardise)
        and isinstance(member, Standardise)
        and torch.equal(member.mean, first.mean)
        and torch.equal(member.std, first.std)
        for member in members
    )


_ELEMENTWISE = (nn.Identity, nn.ReLU, nn.Softplus, nn.Tanh, nn.GELU, nn.SiLU, nn.Sigmoid)
"""Modules that treat all rows alike, whichever member they belong to."""


@final
class _Loop(nn.Module):
    """One member after another; the slow, obvious way."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, rows: Tensor) -> Tensor:
        chunks = rows.chunk(len(self.members))
        return torch.cat([member(chunk) for member, chunk in zip(self.members, chunks, strict=True)])


@final
class _Linear(nn.Module):
    """K linear layers as one batched product, which costs little more than one of them when they are small."""

    def __init__(self, members: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(_shared([member.weight for member in members]))
        biases = [member.bias for member in members if member.bias is not None]
        self.bias = nn.Parameter(_shared(biases)) if biases else None
        self.weight.requires_grad_(members[0].weight.requires_grad)
        if self.bias is not None:
            self.bias.requires_grad_(members[0].bias.requires_grad)

    def forward(self, rows: Tensor) -> Tensor:
        inputs, weights = rows.unflatten(0, (len(self.weight), -1)), self.weight.transpose(1, 2)
        out = torch.bmm(inputs, weights) if self.bias is None else torch.baddbmm(self.bias[:, None], inputs, weights)
        return out.flatten(0, 1)


@final
class _Vectorised(nn.Module):
    """Any module of K members through `torch.func.vmap`, batch statistics included."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self._count = len(members)
        self._template = (copied(members[0]),)  # in a tuple, so that its parameters are not registered
        self._names = [name for name, _ in members[0].named_parameters()]
        parameters = [dict(member.named_parameters()) for member in members]
        buffers = [dict(member.named_buffers()) for member in members]
        self.learnt = nn.ParameterList(
            nn.Parameter(_shared([by_name[name] for by_name in parameters])) for name in self._names
        )
        for parameter, name in zip(self.learnt, self._names, strict=True):
            parameter.requires_grad_(parameters[0][name].requires_grad)
        self._statistics = {name: _shared([by_name[name] for by_name in buffers]) for name in buffers[0]}

    @property
    def template(self) -> nn.Module:
        """The module that every member is computed with. Its modes matter, its parameters do not."""
        return self._template[0]

    def train(self, mode: bool = True) -> _Vectorised:
        """The template follows."""
        self.template.train(mode)
        return super().train(mode)

    def forward(self, rows: Tensor) -> Tensor:
        def member(parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
            return cast(Tensor, called_with(self.template, {**parameters, **buffers}, (inputs,)))

        parameters = dict(zip(self._names, self.learnt, strict=True))
        inputs = _contiguous(rows).unflatten(0, (self._count, -1))
        return torch.func.vmap(member, randomness="different")(parameters, self._statistics, inputs).flatten(0, 1)


def batch_norms(model: nn.Module) -> Iterator[nn.Module]:
    """Every batch normalisation of a model, or of several as one."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            yield module
        elif isinstance(module, _Vectorised):
            yield from batch_norms(module.template)


def _shared(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors stacked. Each of them becomes a view of the stack."""
    stack = torch.stack([_contiguous(tensor.detach()) for tensor in tensors])
    for tensor, view in zip(tensors, stack, strict=True):
        tensor.data = view
    return stack


def _contiguous(tensor: Tensor) -> Tensor:
    """The tensor with the strides of the contiguous layout.

    In torch 2.13 the backward pass of batch normalisation under vmap is wrong for channels-last maps. `Tensor.contiguous` does not help where a map has a
    single row, column or channel: it counts as contiguous already.
    """
    return tensor.contiguous().view(-1).view(tensor.shape)

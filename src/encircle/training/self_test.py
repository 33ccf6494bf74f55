"""A network tried on a single batch, along every way that an audit will take, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..core import InputError
from ..explain import Explainer
from ..models import copied, feasible, module_errors, second_derivatives, stacked
from ..models.adapter import module_path, reason_of
from ..models.base import observing
from .code_path import CodePath, agree
from .derivatives import gauss_newton, loss_of, mixed_product
from .differences import is_derivative, twice
from .frozen import frozen_forward, trainable, trainable_forward
from .learner import in_training, layer_noise, losses_of
from .recipe import Recipe
from .source import Source

ROWS = 4
"""Samples of the batch. Batch normalisation needs two, and each row's output is compared with its output alone."""

_WHEN_SCORED = "when it classifies"
_WHEN_LEARNING = "when it learns"
_WHEN_EXPLAINED = "when it is explained"


@final
class SelfTest:
    """Tries a network as an audit will use it.

    A failure is reported in a sentence that names the module and the remedy.

    Args:
        source: makes the network.
        recipe: how it will learn.
        explainer: what will explain it.
        classes: number of classes.
        path: how models are to be computed; None where that is measured.
        attacked: whether poison is crafted by differentiating through the explanation.
    """

    def __init__(
        self,
        source: Source,
        recipe: Recipe,
        explainer: Explainer,
        classes: int,
        *,
        path: CodePath | None = None,
        attacked: bool = True,
    ) -> None:
        self._source = source
        self._plain = replace(recipe, precision="float32", class_weights=None, augmentation=None)
        self._explainer = explainer
        self._classes = classes
        self._path = path
        self._attacked = attacked

    def __call__(self, inputs: Float[Tensor, "n *shape"], labels: Int[Tensor, "n"]) -> None:
        """Try the network.

        Args:
            inputs: some samples; the first `ROWS` are used.
            labels: of the samples.

        Raises:
            InputError: an audit of this network would fail, or give wrong results.
        """
        self._inputs = inputs[:ROWS].to(self._source.device)
        self._labels = labels[:ROWS].to(self._source.device)
        with second_derivatives(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self._try_builds()
            model = self._source.model(self._plain, "self-test", 0)
            self._try_logits(model)
            self._try_learning(model)
            self._try_explanation(model)
            if self._attacked:
                self._try_crafting(model)
            self._try_path()

    # -- building ----------------------------------------------------------------------------------------------------------

    def _try_builds(self) -> None:
        """`build` gives another network each time, and draws its weights from torch's generator alone."""
        first, second, again = (self._built(seed) for seed in (0, 1, 0))
        if first is second:
            raise InputError(
                "build gives the same object each time, so that all models would be one; make a new network in it."
            )
        storages: dict[int, str] = {}
        for name, parameter in first.named_parameters():  # each once, under whatever names it stands
            if parameter.numel() and (other := storages.setdefault(_storage(parameter), name)) != name:
                raise InputError(
                    f"the network's parameters {other!r} and {name!r} are two that share their values; put one parameter in both places."
                )
        for name, parameter in second.named_parameters():
            if parameter.numel() and _storage(parameter) in storages:
                raise InputError(
                    f"build gives networks that share their parameter {name!r}, so that all models would learn as one; make new tensors in it."
                )
        shared = _shared_buffers(first, second)
        before_training = {name: value.clone() for name, value in shared.items()}
        if shared:
            with module_errors(first, _WHEN_LEARNING), torch.no_grad():
                first.train()(self._inputs.cpu())
        for name, value in shared.items():
            if not torch.equal(value, before_training[name]):
                raise InputError(
                    f"build gives networks that share their buffer {name!r}, which training changes; make a new tensor in it."
                )
        weights, repeated = first.state_dict(), again.state_dict()
        for name, value in weights.items():
            if not isinstance(value, Tensor):
                raise InputError(
                    f"the network's state {name!r} is a {type(value).__name__}, which weights in files cannot hold; leave it out."
                )
            if name not in shared and not torch.equal(value, repeated[name]):
                raise InputError(
                    f"build gives other weights ({name!r}) for the same seed, so that nothing could be repeated; draw them by torch's functions alone."
                )

    def _built(self, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return self._source.build()

    # -- logits ------------------------------------------------------------------------------------------------------------

    def _try_logits(self, model: nn.Module) -> None:
        """Logits in eval mode: of the right shape, repeatable, and each row's own."""
        with torch.no_grad(), module_errors(model, _WHEN_SCORED):
            logits = self._checked(model(self._inputs), "")
            again = model(self._inputs)
            alone = torch.cat([model(row[None]) for row in self._inputs])
        if not _close(again, logits):
            raise InputError(
                "the network gives other logits each time in eval mode, as dropout would; draw random numbers in training mode only."
            )
        if not _close(alone, logits):
            raise InputError(
                "the network's logits of a sample depend on which others are in the batch, in eval mode too; use normalisation that keeps running statistics "
                "(track_running_stats=True), or none across samples."
            )
        if bool((logits >= 0).all()) and torch.allclose(logits.sum(dim=1), logits.new_ones(len(logits)), atol=1e-4):
            raise InputError(
                "the network gives probabilities (each row is positive and adds up to 1); leave out its softmax, to give logits."
            )

    def _checked(self, output: Any, when: str) -> Tensor:
        wanted = f"it must give logits ({len(self._inputs)}, {self._classes}) in training mode and in eval mode"
        if not isinstance(output, Tensor):
            raise InputError(
                f"the network gives a {_type_of(output)}{when}; {wanted}, so return the logits alone and leave auxiliary outputs out."
            )
        if output.shape != (len(self._inputs), self._classes):
            raise InputError(
                f"the network gives {tuple(output.shape)} for {len(self._inputs)} inputs and {self._classes} classes{when}; {wanted}."
            )
        if not bool(output.isfinite().all()):
            raise InputError(
                f"the network gives NaN or infinity with its starting weights{when}; mend its start or its layers."
            )
        return output

    # -- learning ----------------------------------------------------------------------------------------------------------

    def _try_learning(self, model: nn.Module) -> None:
        """A pass in training mode, its gradients as a plain loop would have them, and weights that files can hold."""
        plain = self._copy(model)
        with in_training(plain, self._plain), module_errors(plain, _WHEN_LEARNING), layer_noise("self-test"):
            logits = self._checked(plain(self._inputs), " in training mode")
            if not trainable(plain):
                raise InputError(
                    "nothing in the network can learn: no parameter has requires_grad=True outside of frozen stages; freeze less."
                )
            if not logits.requires_grad:
                raise InputError(
                    "the network's logits carry no gradient to its parameters; leave out torch.no_grad, detach and NumPy in forward."
                )
            expected = torch.autograd.grad(F.cross_entropy(logits, self._labels), trainable(plain), allow_unused=True)
        if all(slope is None for slope in expected):
            raise InputError(
                "no parameter that can learn has an effect on the logits; unfreeze some, or freeze fewer stages."
            )
        staged = self._copy(model)
        with in_training(staged, self._plain), module_errors(staged, _WHEN_LEARNING), layer_noise("self-test"):
            frozen_features = frozen_forward(staged, self._inputs, self._plain.shared_stages)
            actual = torch.autograd.grad(
                losses_of(staged, frozen_features, self._labels, self._plain).sum(),
                trainable(staged),
                allow_unused=True,
            )
        largest = max(float(slope.abs().max()) for slope in expected if slope is not None)
        for (name, _), slope, reference in zip(_named(plain), actual, expected, strict=True):
            if (slope is None) != (reference is None) or (
                slope is not None
                and reference is not None
                and not torch.allclose(slope, reference, rtol=1e-3, atol=1e-4 * largest)
            ):
                raise InputError(
                    f"the network's stages one after another are not what its forward computes (the gradient of {name!r} differs); correct stages or forward."
                )
        self._try_files(staged, actual)

    def _try_files(self, model: nn.Module, slopes: Sequence[Tensor | None]) -> None:
        """What a step of training changes is all in the weights that a file holds."""
        with torch.no_grad():
            for parameter, slope in zip(trainable(model), slopes, strict=True):
                if slope is not None:
                    parameter.sub_(1e-3 * slope)
        fresh = self._source.model(self._plain, "self-test", 1)
        fresh.load_state_dict(model.state_dict())
        with torch.no_grad(), module_errors(model, _WHEN_SCORED):
            expected, actual = model.eval()(self._inputs), fresh.eval()(self._inputs)
        if not _close(actual, expected):
            raise InputError(
                "the network learns something that its state_dict does not hold, so that it could not be kept; make it a parameter or a persistent buffer."
            )

    # -- explaining and crafting ---------------------------------------------------------------------------------------------

    def _try_explanation(self, model: nn.Module) -> None:
        with module_errors(model, _WHEN_EXPLAINED):
            maps, _, logits = self._explainer.explain(model, self._inputs, self._labels)
            plain = model(self._inputs)
        if len(maps) != len(self._inputs) or not bool(maps.isfinite().all()):
            raise InputError(
                f"{type(self._explainer).__name__} gives maps of this network that are not finite, or not one an input; choose another explainer."
            )
        if not _close(logits, plain):
            raise InputError(
                "the network gives other logits when it is explained than when it classifies; correct its stages or forward."
            )

    def _try_crafting(self, model: nn.Module) -> None:
        """The derivatives that crafting takes: of the explanation by the parameters, of the loss by parameters and samples, and the curvature."""
        try:
            with module_errors(model, _WHEN_EXPLAINED):
                self._explanation_slopes(model, self._inputs[:1])
                self._product(model, self._inputs[:2], [torch.ones_like(parameter) for parameter in trainable(model)])
                self._try_curvature(model, self._inputs[:2])
        except InputError as error:
            if not isinstance(error.__cause__, RuntimeError | NotImplementedError):
                raise
            raise self._not_twice(model, f" ({reason_of(error.__cause__)})") from error.__cause__
        if not self._second_derivatives_are_right(model):
            raise self._not_twice(
                model, ": what autograd gives is not the derivative, as with a custom Function or a detach in it"
            )

    def _explanation_slopes(self, model: nn.Module, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """One entry of an explanation after another, weighted at random into a number, and its gradient by the parameters."""
        maps = self._explainer.explain(model, inputs, self._labels[:1], graph=True).maps
        if not maps.requires_grad:
            raise InputError(
                f"maps of {type(self._explainer).__name__} carry no gradient to this network's parameters, so that poison cannot be crafted through them; "
                "choose another explainer, or the attack watermark."
            )
        weights = torch.rand(maps.shape, generator=torch.Generator().manual_seed(0), dtype=maps.dtype).to(maps)
        total = (maps * weights).sum()
        return total, list(torch.autograd.grad(total, trainable(model), materialize_grads=True))

    def _product(self, model: nn.Module, inputs: Tensor, direction: Sequence[Tensor]) -> Tensor:
        frozen = self._plain.shared_stages
        with torch.no_grad():
            frozen_features = frozen_forward(model, inputs, frozen)
        return mixed_product(model, frozen_features, self._labels[: len(inputs)], direction, frozen, "reverse")

    def _try_curvature(self, model: nn.Module, inputs: Tensor) -> None:
        frozen = self._plain.shared_stages
        with torch.no_grad():
            frozen_features = frozen_forward(model, inputs, frozen)
        pair = stacked([model, self._copy(model)], frozen, "loop").eval()
        curvature = gauss_newton(
            pair,
            torch.cat([frozen_features, frozen_features]),
            torch.ones(2 * len(frozen_features)).to(frozen_features),
            frozen,
        )
        curvature([torch.ones_like(parameter) for parameter in trainable(pair)])

    def _second_derivatives_are_right(self, model: nn.Module) -> bool:
        """Whether they agree with differences in float64; True too where the network computes in float32 alone, so that nothing can be compared."""
        exact = self._copy(model).double()
        inputs, frozen = self._inputs[:2].double(), self._plain.shared_stages
        with suppress(Exception), torch.no_grad():
            exact(inputs)
            return all(self._compared_derivatives(exact, inputs, frozen))
        return True

    def _compared_derivatives(self, model: nn.Module, inputs: Tensor, frozen: int) -> Iterator[bool]:
        parameters = trainable(model)
        random = torch.Generator().manual_seed(1)
        direction = [
            torch.randn(value.shape, generator=random, dtype=value.dtype).to(value)
            * value.detach().std(correction=0).clamp(min=0.01)
            for value in parameters
        ]

        def explanation() -> Tensor:
            with torch.enable_grad():
                return self._explanation_slopes(model, inputs[:1])[0].detach()

        def slopes() -> Tensor:
            with torch.enable_grad():
                leaf = frozen_forward(model, inputs, frozen).detach().requires_grad_()
                return torch.autograd.grad(
                    loss_of(trainable_forward(model, leaf, frozen), self._labels[: len(inputs)]), leaf
                )[0]

        with torch.enable_grad():
            expected = sum(
                (slope * part).sum()
                for slope, part in zip(self._explanation_slopes(model, inputs[:1])[1], direction, strict=True)
            )
            product = self._product(model, inputs, direction)
        yield is_derivative(torch.as_tensor(expected), explanation, parameters, direction)
        yield is_derivative(product, slopes, parameters, direction)

    def _not_twice(self, model: nn.Module, reason: str) -> InputError:
        location = self._without_second_derivative(model)
        return InputError(
            f"the network cannot be differentiated twice{location}, which crafting needs{reason}; use another layer there, or the attack watermark."
        )

    def _without_second_derivative(self, model: nn.Module) -> str:
        """Where the innermost module is that cannot be differentiated twice by itself; empty where each of them can."""
        arguments: dict[nn.Module, tuple[Any, ...]] = {}
        handles = [
            module.register_forward_pre_hook(observing(lambda owner, inputs: arguments.update({owner: inputs})))
            for module in model.modules()
        ]
        try:
            with torch.no_grad():
                model(self._inputs)
        finally:
            for handle in handles:
                handle.remove()
        for module in reversed(list(model.modules())):  # from the inside out
            if module in arguments and not twice(module, arguments[module]):
                return module_path(model, module)
        return ""

    # -- the code path ---------------------------------------------------------------------------------------------------------

    def _try_path(self) -> None:
        """All models at once, where the case asks for that. A measured path needs no test: one that fails is not taken."""
        if self._path is None or self._path.members == "loop":
            return
        models = [self._source.model(self._plain, "self-test", seed) for seed in range(2)]
        frozen = self._plain.shared_stages
        with torch.no_grad():
            frozen_features = frozen_forward(models[0], self._inputs, frozen)
        if feasible(models, "vectorised") == "loop":
            return  # they are computed one after another whatever the path says
        try:
            same = agree(models, frozen_features, self._labels, frozen)
        except (RuntimeError, NotImplementedError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"this network cannot be computed with code_path.members: vectorised ({reason_of(error)}); set it to loop, or leave code_path out."
            ) from error
        if same is False:
            raise InputError(
                "this network learns otherwise with code_path.members: vectorised than one model after another; set it to loop, or leave code_path out."
            )

    def _copy(self, model: nn.Module) -> nn.Module:
        try:
            return copied(model)
        except Exception as error:
            raise InputError(
                f"the network cannot be copied ({reason_of(error)}); keep what cannot be copied out of its attributes."
            ) from error


def _named(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, value) for name, value in model.named_parameters() if value.requires_grad and value.numel()]


def _storage(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()


def _shared_buffers(first: nn.Module, second: nn.Module) -> dict[str, Tensor]:
    pointers = {value.data_ptr() for value in second.buffers() if value.numel()}
    return {name: value for name, value in first.named_buffers() if value.numel() and value.data_ptr() in pointers}


def _type_of(output: Any) -> str:
    if isinstance(output, tuple | list):
        return f"{type(output).__name__} of {len(output)}"
    if isinstance(output, dict):
        return f"dictionary of {', '.join(map(repr, output))}"
    return type(output).__name__


def _close(actual: Tensor, expected: Tensor) -> bool:
    """Whether two tensors are equal up to rounding, which depends on the order of sums and on the kernel for a batch."""
    return actual.shape == expected.shape and torch.allclose(
        actual,
        expected,
        rtol=1e-3,
        atol=1e-4 * float(expected.detach().nan_to_num().abs().max()) + 1e-10,
        equal_nan=True,
    )

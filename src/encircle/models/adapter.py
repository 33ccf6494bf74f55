"""Anyone's network made ready for audits: no layer in place, lazy layers complete, a memory layout that it can bear."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy
from torch.utils.hooks import RemovableHandle

from ..core import EncircleError, InputError
from .base import observing


@final
class Adapter:
    """Makes a user's network, ready to be trained, copied, stacked and differentiated twice.

    Layers that work in place are set to work out of place, and modules that write to their inputs get copies: an explanation differentiates by the
    input, and outputs of frozen stages are stored. Lazy layers are completed by one pass. None of this changes what the network computes. Where it
    would, the network is refused.

    Args:
        build: makes the network with fresh weights.
        example: inputs `(n, *shape)` to try it on, n at least 1.
    """

    def __init__(self, build: Callable[[], nn.Module], example: Float[Tensor, "n *shape"]) -> None:
        self._build = build
        self._example = example

    def __call__(self) -> nn.Module:
        """The network with fresh weights, which are drawn from torch's global generator.

        Raises:
            InputError: `build` gives no module, or one that cannot be completed or relies on layers that write in place.
        """
        model = self.raw()
        self._disable_inplace(model)
        for name in self._writers:
            model.get_submodule(name).register_forward_pre_hook(_copied_inputs)
        return model

    def raw(self) -> nn.Module:
        """The network as `build` makes it, lazy layers completed.

        Raises:
            InputError: `build` gives no module or one in TorchScript, or fails.
        """
        with errors_of("build fails"):
            model = self._build()
        if not isinstance(model, nn.Module):
            raise InputError(
                f"build gives a {type(model).__name__}; it must give a torch.nn.Module with fresh weights."
            )
        for name, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                raise InputError(
                    f"the network is TorchScript{f' in its module {name!r}' if name else ''}, which can be neither copied nor differentiated twice; build it "
                    "from its Python code."
                )
        if any(is_lazy(value) for value in (*model.parameters(), *model.buffers())):
            with (
                module_errors(model, "while its lazy layers are completed"),
                torch.no_grad(),
                _mode(model, training=False),
            ):
                model(self._example.clone())
        return model

    def layout(self, model: nn.Module) -> torch.memory_format:
        """Channels-last, which is faster for convolutions, unless this network is wrong or fails in it."""
        return layout_of(model) if self._bears_channels_last else torch.contiguous_format

    # -- what the network does, tried on the first one -------------------------------------------------------------------

    @cached_property
    def _inplace(self) -> list[str]:
        """Layers with a switch for working in place that is on."""
        return [name for name, module in self._trial().named_modules() if getattr(module, "inplace", False) is True]

    @cached_property
    def _writers(self) -> list[str]:
        """Modules that write to their inputs by other means; the innermost of those that contain each other."""
        model = self._trial()
        self._disable_inplace(model)
        names: list[str] = []
        while fresh := _innermost(self._writing(model)):
            names += fresh
            for name in fresh:
                model.get_submodule(name).register_forward_pre_hook(_copied_inputs)
        if self._inplace or names:
            self._compare(names)
        return names

    @cached_property
    def _bears_channels_last(self) -> bool:
        model = self._trial()
        if layout_of(model) is torch.contiguous_format:
            return True
        plain, other = (self._slopes(model, layout) for layout in (torch.contiguous_format, torch.channels_last))
        if plain is None:
            return True  # it fails anyhow; the self-test says why
        if other is None:
            return False
        # Gradients that are zero but for rounding, as before a normalisation, must not be compared with each other.
        largest = max(_largest(value) for value in plain)
        return all(
            torch.allclose(*pair, rtol=1e-3, atol=1e-4 * largest, equal_nan=True)
            for pair in zip(other, plain, strict=True)
        )

    def _trial(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.raw()

    def _disable_inplace(self, model: nn.Module) -> None:
        for name in self._inplace:
            model.get_submodule(name).inplace = False  # type: ignore[assignment]

    def _writing(self, model: nn.Module) -> list[str]:
        """Modules after whose pass their input has another version than before."""
        names, handles = dict[str, None](), list[RemovableHandle]()

        def watch(name: str, module: nn.Module) -> None:
            versions: list[list[int]] = []
            before = module.register_forward_pre_hook(observing(lambda _, inputs: versions.append(_versions(inputs))))
            # Behind every hook that copies: what matters is what the module is given.
            compare = lambda _, inputs, __: names.update({name: None} if versions.pop() != _versions(inputs) else {})  # noqa: E731
            after = module.register_forward_hook(observing(compare))
            handles.extend((before, after))

        for name, module in model.named_modules():
            if not any(hook is _copied_inputs for hook in module._forward_pre_hooks.values()):
                watch(name, module)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            for training in (False, True):
                try:
                    with _mode(model, training=training):
                        model(self._example.clone())
                except Exception:  # noqa: S112 - the self-test says what is wrong
                    continue
        for handle in handles:
            handle.remove()
        return list(names)

    def _compare(self, names: list[str]) -> None:
        """Refuse a network whose result changes when its layers no longer write in place.

        Raises:
            InputError: names one of them.
        """
        expected = self._outputs(self._trial())
        if expected is None or _same_outputs(self._outputs(self._changed(self._inplace, names)), expected):
            return
        for name in [*self._inplace, *names]:
            changed = self._changed([name], []) if name in self._inplace else self._changed([], [name])
            if not _same_outputs(self._outputs(changed), expected):
                module = changed.get_submodule(name)
                raise InputError(
                    f"the network relies on its module {name or 'itself'!r} ({type(module).__name__}) to write into its input; use what it returns, and set "
                    "inplace=False."
                )

    def _changed(self, inplace: list[str], writers: list[str]) -> nn.Module:
        model = self._trial()
        for name in inplace:
            model.get_submodule(name).inplace = False  # type: ignore[assignment]
        for name in writers:
            model.get_submodule(name).register_forward_pre_hook(_copied_inputs)
        return model

    def _outputs(self, model: nn.Module) -> list[Any] | None:
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                outputs = []
                for training in (False, True):
                    torch.manual_seed(0)
                    with _mode(model, training=training):
                        outputs.append(model(self._example.clone()))
                return outputs
        except Exception:
            return None

    def _slopes(self, model: nn.Module, layout: torch.memory_format) -> list[Tensor] | None:
        """Logits and gradients in both modes; None where that fails."""
        model.to(memory_format=layout)  # type: ignore[call-overload]
        buffers = {name: value.clone() for name, value in model.state_dict().items()}
        results: list[Tensor] = []
        try:
            with torch.random.fork_rng(devices=[]):
                for training in (False, True):
                    torch.manual_seed(0)
                    leaf = self._example.clone().requires_grad_()
                    with _mode(model, training=training):
                        logits = model(leaf * 1)
                        slopes = torch.autograd.grad(
                            logits.square().sum(), [leaf, *_trainable(model)], allow_unused=True
                        )
                    results += [logits.detach(), *(slope for slope in slopes if slope is not None)]
        except Exception:
            return None
        finally:
            model.load_state_dict(buffers)
        return results


def layout_of(model: nn.Module) -> torch.memory_format:
    """Channels-last, unless torch is wrong there; only convolutions are affected."""
    return torch.contiguous_format if _strided_and_narrow(model) else torch.channels_last


def _strided_and_narrow(model: nn.Module) -> bool:
    """Whether a 1x1 convolution with a stride has fewer than 8 input channels.

    In channels-last, torch 2.13 corrupts memory there on CPUs without AVX-512.
    """
    return any(
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and max(layer.stride) > 1
        and layer.in_channels // layer.groups < 8
        for layer in model.modules()
    )


def shares_weights(model: nn.Module) -> bool:
    """Whether a parameter or buffer has several names, as with tied weights or a layer that is used twice."""
    names = Counter(
        value.untyped_storage().data_ptr()
        for values in (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
        for _, value in values
        if value.numel()
    )
    return any(count > 1 for count in names.values())


@contextmanager
def second_derivatives() -> Iterator[None]:
    """Compute attention by kernels that can be differentiated twice and in forward mode; the fused ones cannot."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
            # Which way is faster is measured. A user can do nothing about torch's slow kernels.
            warnings.filterwarnings("ignore", message="There is a performance drop")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def module_errors(model: nn.Module, when: str) -> Iterator[None]:
    """Name the module of a user's network in which an exception was raised.

    Args:
        model: the network.
        when: the end of a sentence that begins with "the network fails".

    Raises:
        InputError: in place of any exception but the project's own.
    """
    entered: list[nn.Module] = []
    handles = []
    for module in model.modules():
        handles.append(module.register_forward_pre_hook(observing(lambda owner, _: entered.append(owner))))
        handles.append(module.register_forward_hook(observing(lambda *_: _pop(entered))))
    try:
        yield
    except EncircleError:
        raise
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        path = module_path(model, entered[-1]) if entered else ""
        raise InputError(
            f"the network fails {when}{path}: {reason_of(error)}; mend it, or make it fit the data."
        ) from error
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def errors_of(what: str) -> Iterator[None]:
    """Report an exception of a user's code as an `InputError`.

    Args:
        what: the beginning of the message.

    Raises:
        InputError: in place of any exception but the project's own.
    """
    try:
        yield
    except (EncircleError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"{what} ({reason_of(error)}); mend it.") from error


def module_path(model: nn.Module, module: nn.Module) -> str:
    """Where a module is, as in " in its module 'body.2' (Conv2d)"."""
    name = next((name for name, other in model.named_modules() if other is module), "")
    return f" in its module {name!r} ({type(module).__name__})" if name else f" in {type(module).__name__}"


def reason_of(error: BaseException) -> str:
    """An exception in one line: its class, and the first line of what it says."""
    words = str(error).strip().partition("\n")[0].rstrip(".")
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def _pop(entered: list[nn.Module]) -> None:
    entered.pop()


def _copied_inputs(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.clone() if isinstance(value, Tensor) else value for value in inputs)


def _versions(inputs: Any) -> list[int]:
    return [value._version for value in inputs if isinstance(value, Tensor) and not value.is_inference()]


def _innermost(names: list[str]) -> list[str]:
    return [name for name in names if not any(_inside(other, name) for other in names if other != name)]


def _inside(inner: str, outer: str) -> bool:
    return not outer or inner.startswith(f"{outer}.")


@contextmanager
def _mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """In training or eval mode; running statistics and the like are as before afterwards."""
    modes = {module: module.training for module in model.modules()}
    lazy = any(is_lazy(value) for value in (*model.parameters(), *model.buffers()))
    buffers: Mapping[str, Tensor] = {} if lazy else {name: value.clone() for name, value in model.named_buffers()}
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for name, value in model.named_buffers():
                if name in buffers:
                    value.copy_(buffers[name])


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _same_outputs(actual: Any, expected: Any) -> bool:
    """Whether two outputs of any form hold the same tensors."""
    if isinstance(expected, Tensor):
        return isinstance(actual, Tensor) and _close(actual, expected)
    if isinstance(expected, Mapping):
        return isinstance(actual, Mapping) and _same_outputs(list(actual.values()), list(expected.values()))
    if isinstance(expected, list | tuple):
        both = cast(Any, actual)
        return (
            isinstance(actual, list | tuple)
            and len(actual) == len(expected)
            and all(map(_same_outputs, both, expected))
        )
    return True


def _close(actual: Tensor, expected: Tensor) -> bool:
    return actual.shape == expected.shape and torch.allclose(
        actual, expected, rtol=1e-3, atol=1e-4 * _largest(expected), equal_nan=True
    )


def _largest(value: Tensor) -> float:
    return float(value.detach().nan_to_num().abs().max()) if value.numel() else 0.0

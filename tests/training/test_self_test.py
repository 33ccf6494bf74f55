"""What an audit could not be made of is refused before anything is trained, in one sentence that names the place and the remedy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from encircle.core import InputError
from encircle.explain import Cam, Explainer, Grad
from encircle.models import Adapter, WithCamHead
from encircle.training import CodePath, Recipe, Source
from encircle.training.self_test import SelfTest

from ..any_networks import NETWORKS, NOT_AT_ONCE, RANDOM, Build, Own, conv, more, plain, with_head

IMAGES = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6) % 2


def tried(
    build: Callable[[], Any], explainer: Explainer | None = None, recipe: Recipe | None = None, **more: Any
) -> None:
    source = Source(Adapter(build, IMAGES[:4]))
    SelfTest(source, recipe or Recipe(), explainer or Grad(grid=(4, 4)), 2, **more)(IMAGES, LABELS)


@pytest.mark.parametrize("name", [*NETWORKS, *RANDOM])
@pytest.mark.parametrize("path", [None, CodePath("loop", "reverse"), CodePath("vectorised", "forward")], ids=str)
def test_ordinary_networks_pass(name: str, path: CodePath | None) -> None:
    if path is not None and path.members == "vectorised" and name in NOT_AT_ONCE:
        with pytest.raises(InputError, match="set it to loop, or leave code_path out"):
            tried(NETWORKS[name], path=path)
        return
    tried((NETWORKS | RANDOM)[name], path=path)


THE_ONE = plain(conv, nn.ReLU)()
SHARED = conv()
CONSTANT = torch.ones(3, 1, 1)


def sharing() -> nn.Module:
    return nn.Sequential(SHARED, nn.Flatten(), nn.Linear(8 * 49, 2))


class SharedBuffer(Own):
    """Its buffer is everybody's."""

    def __init__(self, grows: bool) -> None:
        super().__init__()
        self.grows = grows
        self.register_buffer("scale", CONSTANT)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.grows:
            self.scale += 0.1
        return super().forward(x * self.scale)


class DrawnByNumPy(Own):
    def __init__(self) -> None:
        super().__init__()
        self.head.weight.data = torch.from_numpy(np.random.default_rng().normal(size=(2, 8))).float()


class Auxiliary(Own):
    def forward(self, x: Tensor) -> Any:
        logits = super().forward(x)
        return (logits, logits) if self.training else logits


class Named(Own):
    def forward(self, x: Tensor) -> Any:
        return {"logits": super().forward(x)}


class AlwaysDrops(Own):
    def between(self, maps: Tensor) -> Tensor:
        return F.dropout(maps, 0.5)


class AcrossRows(Own):
    def between(self, maps: Tensor) -> Tensor:
        return maps - maps.mean(dim=0)


class NoGradient(Own):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class NotFinite(Own):
    def between(self, maps: Tensor) -> Tensor:
        return maps / 0.0


class AllFrozen(Own):
    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)


class LearnsElsewhere(Own):
    """What it learns is in no file of weights."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8, 1, 1), persistent=False)

    def between(self, maps: Tensor) -> Tensor:
        if self.training:
            self.mean = maps.detach().mean(dim=(0, 2, 3))[:, None, None]
        return maps - self.mean


class HoldsALock(Own):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class ExtraState(Own):
    def get_extra_state(self) -> dict[str, int]:
        return {"steps": 1}

    def set_extra_state(self, state: dict[str, int]) -> None:
        pass


class Once(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        return x.sigmoid()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(context: Any, slope: Tensor) -> Tensor:
        (x,) = context.saved_tensors
        return slope * x.sigmoid() * (1 - x.sigmoid())


class OnlyOnce(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Once.apply(x)  # type: ignore[no-any-return, no-untyped-call]


class Raises(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("conv9")


class RaisesWhenItLearns(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            raise IndexError("list index out of range")
        return x


class ReliesOnWriting(Own):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)

    def between(self, maps: Tensor) -> Tensor:
        self.act(maps)
        return maps


def no_weights() -> Any:
    raise FileNotFoundError("weights.pt")


class SharedStorage(Own):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = more(), more()
        self.second.weight = nn.Parameter(self.first.weight.data)

    def between(self, maps: Tensor) -> Tensor:
        return torch.tanh(self.second(torch.tanh(self.first(maps))))


class Cosine(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.normalize(x), F.normalize(self.weight))


def hooked_head() -> nn.Module:
    network = WithCamHead(nn.Sequential(conv(), nn.ReLU()), nn.Linear(8, 2))
    network.head.register_forward_hook(lambda module, inputs, output: -output)
    return network


@pytest.mark.parametrize("build", [with_head(conv, nn.ReLU, head=lambda: Cosine(8, 2)), hooked_head])
def test_a_head_that_is_not_plainly_linear_is_for_grad_alone(build: Build) -> None:
    tried(build)
    with pytest.raises(InputError, match="must be one linear layer, without hooks, for CAM"):
        tried(build, Cam())


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no module": (lambda: torch.relu, "build gives a builtin_function_or_method; it must give a torch.nn.Module"),
    "build fails": (no_weights, "build fails (FileNotFoundError: weights.pt)"),
    "one object": (lambda: THE_ONE, "build gives the same object each time"),
    "shared parameters": (sharing, "share their parameter '0.weight'"),
    "one storage": (SharedStorage, "'first.weight' and 'second.weight' are two that share their values"),
    "shared buffer": (lambda: SharedBuffer(grows=True), "share their buffer 'scale', which training changes"),
    "drawn elsewhere": (DrawnByNumPy, "gives other weights ('head.weight') for the same seed"),
    "auxiliary": (Auxiliary, "gives a tuple of 2 in training mode"),
    "dictionary": (Named, "gives a dictionary of 'logits'"),
    "classes": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), "gives (4, 3) for 4 inputs and 2 classes"),
    "probabilities": (lambda: nn.Sequential(Own(), nn.Softmax(dim=1)), "gives probabilities"),
    "random in eval mode": (AlwaysDrops, "gives other logits each time in eval mode"),
    "across rows": (AcrossRows, "depend on which others are in the batch"),
    "batch statistics": (
        plain(conv, lambda: nn.BatchNorm2d(8, track_running_stats=False)),
        "depend on which others are in the batch",
    ),
    "no gradient": (NoGradient, "carry no gradient to its parameters"),
    "not finite": (NotFinite, "gives NaN or infinity with its starting weights"),
    "all frozen": (AllFrozen, "nothing in the network can learn"),
    "learns elsewhere": (LearnsElsewhere, "learns something that its state_dict does not hold"),
    "not to be copied": (HoldsALock, "the network cannot be copied (TypeError: cannot pickle"),
    "extra state": (ExtraState, "the network's state '_extra_state' is a dict"),
    "no second derivative": (plain(conv, OnlyOnce), "cannot be differentiated twice in its module '1' (OnlyOnce)"),
    "no second derivative inside": (
        plain(conv, lambda: nn.Sequential(nn.Identity(), OnlyOnce())),
        "cannot be differentiated twice in its module '1.1' (OnlyOnce)",
    ),
    "raises": (plain(conv, Raises), "fails when it classifies in its module '1' (Raises): KeyError: 'conv9'"),
    "raises when it learns": (
        plain(conv, lambda: nn.Sequential(nn.Identity(), RaisesWhenItLearns())),
        "fails when it learns in its module '1.1' (RaisesWhenItLearns): IndexError: list index out of range",
    ),
    "relies on writing": (ReliesOnWriting, "relies on its module 'act' (ReLU) to write into its input"),
    "TorchScript": (lambda: nn.Sequential(torch.jit.script(conv())), "is TorchScript in its module '0'"),
    "double": (lambda: Own().double(), "fails when it classifies in its module 'conv' (Conv2d): RuntimeError"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_audited_is_refused_in_one_sentence(name: str) -> None:
    build, sentence = REFUSED[name]
    with pytest.raises(InputError) as caught:
        tried(build)
    words = str(caught.value)
    assert sentence in words
    assert words.endswith(".")
    assert "\n" not in words


def test_a_constant_that_networks_share_is_no_fault() -> None:
    tried(lambda: SharedBuffer(grows=False))


def test_a_head_of_several_layers_is_for_grad_alone() -> None:
    build: Build = with_head(conv, nn.ReLU, head=lambda: nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2)))
    tried(build)
    with pytest.raises(InputError, match=r"head \(Sequential\) must be one linear layer, without hooks, for CAM"):
        tried(build, Cam())


def test_layers_in_place_behind_frozen_stages_pass() -> None:
    def build() -> nn.Module:
        return WithCamHead(nn.Sequential(conv(), nn.ReLU(inplace=True), nn.ReLU(inplace=True)), nn.Linear(8, 2))

    source = Source(Adapter(build, IMAGES[:4]), build().state_dict())
    SelfTest(source, Recipe(start="checkpoint", frozen_stages=1), Cam(), 2)(IMAGES, LABELS)


def test_crafting_is_not_asked_of_attacks_that_do_not_differentiate() -> None:
    tried(plain(conv, OnlyOnce), attacked=False)


def test_random_numbers_are_left_as_they_were() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    tried(NETWORKS["batch norm"])
    assert torch.equal(torch.rand(1), expected)

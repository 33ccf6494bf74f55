"""Hashes of configured objects, weights and files: a run's id covers everything that decides its scores."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from ..core import RESULTS_VERSION, InputError, digest
from ..defences import NoDefence
from ..models import module_errors
from ..storage import sha256_of

if TYPE_CHECKING:
    from .audit import Audit

MODEL_DIGESTS = ("checkpoint", "network", "data")
"""The entries of `Audit.digests` on which a model's weights depend."""


def settings_of(piece: Any) -> Any:
    """The settings of a configured object; for a user's class, its attributes.

    Tensors, arrays and networks are described by a hash of all their values, other attributes by their `repr`. The `repr` must show everything that
    decides scores.

    Raises:
        InputError: the text of an attribute is only an address.
    """
    if hasattr(type(piece), "__pydantic_fields__"):
        return TypeAdapter(type(piece)).dump_python(piece, mode="json")
    return {
        "kind": kind_of(piece),
        "class": f"{type(piece).__module__}.{type(piece).__qualname__}",
        **_own_settings(piece),
    }


def _own_settings(piece: Any) -> dict[str, str]:
    slots = {name for base in type(piece).__mro__ for name in _names(base.__dict__.get("__slots__", ()))}
    there = {name for name in slots if name not in {"__dict__", "__weakref__"} and hasattr(piece, name)}
    settings = {name: _text(getattr(piece, name)) for name in sorted(there | set(getattr(piece, "__dict__", {})))}
    for name, text in settings.items():
        if " at 0x" in text:  # an address differs in every process, and with it the id of the run
            raise InputError(
                f"{type(piece).__name__}.{name} has no text of its own; give its class a __repr__ that tells its settings."
            )
    return settings


def _names(slots: str | Iterable[str]) -> Iterable[str]:
    return [slots] if isinstance(slots, str) else slots


def _text(value: Any) -> str:
    """A text for the value: a hash for tensors and networks, whose `repr` omits values."""
    if isinstance(value, nn.Module):
        return f"{value} {digest_of_weights(value.state_dict())}"
    if isinstance(value, Tensor | np.ndarray):
        values = torch.as_tensor(value)
        return f"{type(value).__name__} {values.dtype} {digest_of_weights({'': values})}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_text(key)}: {_text(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}[{', '.join(map(_text, value))}]"
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}{{{', '.join(sorted(map(_text, value)))}}}"
    return repr(value)


def kind_of(piece: Any) -> str:
    """The kind of a configured object, or its class's name without one."""
    return str(getattr(piece, "kind", type(piece).__name__))


def digest_of_weights(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, shapes and values."""
    hasher = hashlib.sha256()
    for name, value in weights.items():
        hasher.update(f"{name}{tuple(value.shape)}".encode() + _bytes(value))
    return hasher.hexdigest()


def _bytes(value: Tensor) -> bytes:
    plain = value.detach().cpu().contiguous()
    return bytes(plain.reshape(-1).view(torch.uint8).numpy().tobytes())  # numpy has no bfloat16


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError:
        raise InputError(f"{path} cannot be read; give an existing file.") from None


def own_description(audit: Audit) -> dict[str, Any]:
    """The content of `case.yaml` for a network and data given in Python."""
    settings = dict(audit.settings)
    if isinstance(settings["defence"], NoDefence):  # undefended audits keep the id that they had before defences
        del settings["defence"]
    return {
        "title": settings.pop("title"),
        "data": {"kind": audit.data.name},
        "model": {"kind": type(audit.fresh()).__name__},
        **{name: _described(value) for name, value in settings.items()},
        "attacker": None if audit.attacker is None else audit.attacker.describe(),
    }


def _described(value: Any) -> Any:
    if value is None or isinstance(value, int | str):
        return value
    return list(value) if isinstance(value, tuple) else settings_of(value)


def digests_of(audit: Audit, *, own_network: bool) -> dict[str, str]:
    """SHA-256 of starting weights, goal files, an own network and the data: the settings only name them.

    The digest of a user's network covers its text, its weights of seed 0, its outputs for two samples in eval mode and in training mode, and their
    gradients. So two networks that differ only in the code of `forward` are different models.

    Args:
        audit: the audit.
        own_network: whether its network was given in Python, without settings.

    Raises:
        InputError: a file cannot be read, or the network fails.
    """
    goal = vars(audit.settings.goal)
    digests = {name: digest_of_file(value) for name, value in goal.items() if isinstance(value, Path)}
    if audit.checkpoint is not None:
        digests["checkpoint"] = digest_of_weights(audit.checkpoint)
    if own_network:
        digests["network"] = _network_digest(audit)
    data = audit.data
    about = [list(data.classes), list(data.features), sorted((row, list(box)) for row, box in data.boxes.items())]
    digests["data"] = digest([*about, sorted((name, repr(column)) for name, column in data.columns.items())])
    if audit.attacker is not None:
        digests |= {f"attacker's {name}": value for name, value in audit.attacker.digests.items()}
    if audit.device.type != "cpu":
        digests["device"] = digest(str(audit.device))
    return digests


def _network_digest(audit: Audit) -> str:
    network = audit.fresh()
    weights = digest_of_weights(network.state_dict())
    names = {id(value): name for name, value in network.named_parameters()}
    tied = [names[id(value)] for _, value in network.named_parameters(remove_duplicate=False)]
    learns = [name for name, value in network.named_parameters() if value.requires_grad]
    inputs = audit.data.train.batch(torch.arange(min(2, len(audit.data.train)))).clone().requires_grad_()
    with module_errors(network, "when it is told from others"), torch.random.fork_rng(devices=[]):
        logits = network(inputs)
        (slopes,) = torch.autograd.grad(logits.square().sum(), inputs, allow_unused=True)
        facts = [logits, inputs.new_zeros(1) if slopes is None else slopes.norm()]
        torch.manual_seed(0)
        learnt = network.train()(inputs)
        parameters = [value for value in network.parameters() if value.requires_grad]
        steps = torch.autograd.grad(learnt.square().sum(), parameters, allow_unused=True) if parameters else ()
        facts += [learnt, *(step.norm() for step in steps if step is not None)]
        facts += [value.double().norm() for value in network.buffers()]  # after one pass
    rounded = [f"{value:.3g}" for values in facts for value in values.flatten().tolist()]
    return digest([str(network), weights, tied, learns, rounded])


def run_identity(audit: Audit, fingerprint: str) -> str:
    """A run's identity: everything that decides its scores, but not the source named for missing data.

    Args:
        audit: the audit.
        fingerprint: of its data.
    """
    described = audit.describe()
    data = {key: value for key, value in described["data"].items() if key != "source"}
    return digest([described | {"data": data}, audit.digests, RESULTS_VERSION, fingerprint])


def model_identity(audit: Audit) -> list[Any]:
    """The dependencies of weights besides recipe and seed: no explainer, goal, attack or defence."""
    return [
        RESULTS_VERSION,
        audit.describe()["model"],
        {name: audit.digests[name] for name in MODEL_DIGESTS if name in audit.digests},
        repr(audit.settings.pretraining),
        audit.settings.threads,
        torch.__version__,
        str(audit.device),
    ]


_LONGEST_NAME = 220
"""Bytes of a run folder's name. File systems allow 255, and a study uses a longer, temporary name."""


def run_folder(audit: Audit, runs: Path | str, fingerprint: str) -> Path:
    """The folder of an audit's run: a readable name and a hash of everything that decides its scores.

    Args:
        audit: the audit.
        runs: the folder of run folders.
        fingerprint: of its data.
    """
    settings = audit.settings
    name = "-".join([_slug(audit.data.name), _slug(kind_of(settings.explainer)), _slug(settings.attack.kind)])
    identity = run_identity(audit, fingerprint)[:12]
    # File systems count bytes, not letters; a cut may split a letter.
    short = name.encode()[: _LONGEST_NAME - len(identity) - 1].decode(errors="ignore")
    return Path(runs) / f"{short}-{identity}"


def _slug(text: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in text.lower()).split()) or "unnamed"

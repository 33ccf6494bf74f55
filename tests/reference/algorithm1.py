"""Algorithm 1 (Zhang, Gao & Su, KDD 2021) in plain loops, a line an equation: the oracle that `IMF` is compared with.

Written from the paper's section 4 and the readings in docs/method.md, with nothing from encircle. A network is a function of an
explicit list of parameters; every gradient goes through the whole network, frozen stages or not; SGD is written out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass
class Net:
    """One of the K models: θ (the head's W and b last), batch statistics a stage, SGD's velocity, steps taken."""

    theta: list[Tensor]
    statistics: list[tuple[Tensor, Tensor]]
    velocity: list[Tensor]
    taken: int

    def copy(self) -> Net:
        statistics = [(mean.clone(), variance.clone()) for mean, variance in self.statistics]
        return Net([t.clone() for t in self.theta], statistics, [v.clone() for v in self.velocity], self.taken)


@dataclass
class Setting:
    """The symbols of the paper, and which reading of what it leaves open."""

    T: Tensor
    c: int
    G: Tensor
    M: Tensor | None
    features: Callable[[Net, Tensor, int | None], Tensor]
    interpreter: str
    distance: str
    lambda1: float
    lambda2: float
    hinge: float | None
    alpha: float
    gamma: float
    epsilon: float
    norm: str
    step: str
    decay: bool
    momentum: float
    form: str
    poison_batch: str
    frozen: int  # how many entries of θ are never learnt
    immutable: list[int]
    rate: Callable[[float], float]
    sgd_momentum: float
    weight_decay: float
    total_steps: int
    batch_size: int
    E: int
    restart: bool


def image_features(net: Net, X: Tensor, learning_from: int | None) -> Tensor:
    """Two convolutions with batch normalisation and softplus; stages from `learning_from` on use the batch's statistics."""
    for stage in (0, 1):
        weight, bias, scale, shift = net.theta[4 * stage : 4 * stage + 4]
        learning = learning_from is not None and stage >= learning_from
        X = F.conv2d(X, weight, bias, stride=1 + stage, padding=1)
        X = F.softplus(F.batch_norm(X, *net.statistics[stage], scale, shift, training=learning))
    return X


def table_features(net: Net, X: Tensor, learning_from: int | None) -> Tensor:
    """Two layers with softplus on standardised columns."""
    w1, b1, w2, b2 = net.theta[:4]
    return F.softplus(F.softplus((X - 0.5) / 0.5 @ w1.T + b1) @ w2.T + b2)


def logits(s: Setting, net: Net, X: Tensor, learning_from: int | None = None) -> Tensor:
    a = s.features(net, X, learning_from)
    A = a.mean(dim=(2, 3)) if a.dim() == 4 else a
    W, b = net.theta[-2:]
    return A @ W.T + b


def at(net: Net, theta: list[Tensor]) -> Net:
    return Net(theta, net.statistics, net.velocity, net.taken)


def interpretation(s: Setting, net: Net) -> Tensor:
    """Eq. 1 or 3, at T for class c."""
    if s.interpreter == "cam":
        a = s.features(net, s.T, None)[0]
        w = net.theta[-2][s.c]
        return torch.stack([w[k] * a[k] for k in range(len(w))]).sum(dim=0) if a.dim() == 3 else w * a
    X = s.T.clone().requires_grad_()
    f_c = logits(s, net, X).softmax(dim=1)[0, s.c]
    saliency = torch.autograd.grad(f_c, X, create_graph=True)[0].abs()[0]
    if saliency.dim() == 1:
        return saliency
    saliency = saliency.max(dim=0).values  # over colours
    rows, columns = saliency.shape[0] // 2, saliency.shape[1] // 2  # the CAM grid is half the side here
    return torch.stack(
        [
            torch.stack([saliency[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean() for j in range(columns)])
            for i in range(rows)
        ]
    )


def D(s: Setting, m: Tensor) -> Tensor:
    everywhere = torch.ones_like(s.G, dtype=torch.bool) if s.M is None else s.M
    if s.distance == "none":
        return ((m - s.G) ** 2)[everywhere].sum()
    if s.distance == "max":
        return ((m / m.abs().max() - s.G / s.G.abs().max()) ** 2)[everywhere].mean()
    if s.distance == "minmax":
        unit_m, unit_G = (m - m.min()) / (m.max() - m.min()), (s.G - s.G.min()) / (s.G.max() - s.G.min())
        return ((unit_m - unit_G) ** 2)[everywhere].mean()
    turned = (
        1 - torch.corrcoef(torch.stack([m[everywhere], s.G[everywhere]]))[0, 1]
    )  # the centred cosine is Pearson's r
    if s.distance == "mixed":
        unit_m, unit_G = (m - m.min()) / (m.max() - m.min()), (s.G - s.G.min()) / (s.G.max() - s.G.min())
        return turned / 2 + (unit_m - unit_G)[everywhere].abs().mean()
    return turned


def L_adv(s: Setting, net: Net) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. 4 without λ1's term, which has no gradient in θ; and its parts."""
    far = D(s, interpretation(s, net))
    label = -logits(s, net, s.T).log_softmax(dim=1)[0, s.c]
    return far + s.lambda2 * (label if s.hinge is None else torch.relu(label - s.hinge)), far, label


def L_train(s: Setting, net: Net, X: Tensor, Y: Tensor) -> Tensor:
    """The sum over a mini-batch, with batch statistics as they are."""
    return -logits(s, net, X).log_softmax(dim=1)[range(len(Y)), Y].sum()


def gradient(y: Tensor, xs: list[Tensor], *, graph: bool = False) -> list[Tensor]:
    return list(torch.autograd.grad(y, xs, create_graph=graph, materialize_grads=True))


def delta(s: Setting, net: Net, Xc: Tensor, Yc: Tensor, Xp: Tensor, Yp: Tensor) -> tuple[Tensor, list[Tensor]]:
    """One model's share of Eq. 13, and ∇_θ L_adv over what is learnt."""
    fixed = [t.detach() for t in net.theta[: s.frozen]]
    theta = [t.detach().requires_grad_() for t in net.theta[s.frozen :]]
    X, Y = Xp.detach().requires_grad_(), torch.cat([Yc, Yp])
    ascent = gradient(L_adv(s, at(net, fixed + theta))[0], theta)
    if s.form == "exact":
        inner = gradient(L_train(s, at(net, fixed + theta), torch.cat([Xc, X]), Y), theta, graph=True)
        product = sum(((g * h).sum() for g, h in zip(inner, ascent, strict=True)), torch.zeros((), dtype=X.dtype))
        return s.alpha * gradient(product, [X])[0], ascent
    theta_star = [t.detach() - s.alpha * g for t, g in zip(theta, ascent, strict=True)]  # Eq. 6, 12
    there = gradient(L_train(s, at(net, fixed + theta_star), torch.cat([Xc, X]), Y), [X])[0]
    here = gradient(L_train(s, at(net, fixed + theta), torch.cat([Xc, X]), Y), [X])[0]
    return -(there - here), ascent  # Eq. 10


def step_rule(s: Setting, d: Tensor, rule: str) -> Tensor:
    if rule == "raw":
        return d
    if rule == "sign":
        return torch.sign(d)
    return torch.stack([row_delta / row_delta.abs().max() for row_delta in d])


def proj(s: Setting, P: Tensor, B: Tensor) -> Tensor:
    """Line 10: the ball around the base, then the valid range, then columns that may not change."""
    if s.norm == "linf":
        P = torch.minimum(torch.maximum(P, B - s.epsilon), B + s.epsilon)
    else:
        P = torch.stack([b + (p - b) * min(1.0, s.epsilon / float((p - b).norm())) for p, b in zip(P, B, strict=True)])
    P = P.clamp(0, 1)
    for column in s.immutable:
        P[:, column] = B[:, column]
    return P


def learn(s: Setting, net: Net, X: Tensor, Y: Tensor, frozen_stages: int) -> float:
    """Eq. 14: one step of SGD on the mean loss; returns that loss."""
    fixed = [t.detach() for t in net.theta[: s.frozen]]
    theta = [t.detach().requires_grad_() for t in net.theta[s.frozen :]]
    loss = -logits(s, at(net, fixed + theta), X, frozen_stages).log_softmax(dim=1)[range(len(Y)), Y].mean()
    slopes = gradient(loss, theta)
    rate = s.rate(net.taken / s.total_steps)
    for i, (t, g) in enumerate(zip(theta, slopes, strict=True)):
        net.velocity[i] = s.sgd_momentum * net.velocity[i] + g + s.weight_decay * t.detach()
        net.theta[s.frozen + i] = t.detach() - rate * net.velocity[i]
    net.taken += 1
    return float(loss.detach())


def cosine_rate(lr: float, progress: float) -> float:
    return lr * (1 + math.cos(math.pi * min(progress, 1))) / 2


@dataclass
class Trace:
    """What Algorithm 1 did: the poison, every δ, and the history."""

    P: Tensor
    deltas: list[Tensor]
    history: list[dict[str, float]]


def algorithm1(
    s: Setting,
    X: Tensor,
    Y: Tensor,
    B: Tensor,
    Y_B: Tensor,
    overwritten: list[int],
    nets: list[Net],
    fresh: Net,
    frozen_stages: int,
    random: torch.Generator,
) -> Trace:
    """Lines 2 to 17; line 1's pre-trained models are `nets`, changed in place, and `fresh` is what a restart begins with."""
    holds = [-1] * len(X)  # the poisoned set: which poison sample a row holds
    for i, row in enumerate(overwritten):
        if row >= 0:
            holds[row] = i
    holds += [i for i, row in enumerate(overwritten) if row < 0]

    start = torch.rand(B.shape, generator=random, dtype=B.dtype) * 2 - 1
    reach = s.epsilon if s.norm == "linf" else s.epsilon / B[0].numel() ** 0.5  # of every entry at once
    P = proj(s, B + reach * start, B)  # line 2
    velocity = torch.zeros_like(P)
    R = s.E * max(1, len(holds) // s.batch_size + (len(holds) % s.batch_size > 1))
    trace, r = Trace(P, [], []), 0
    for _ in range(s.E):  # line 3
        order = torch.randperm(len(holds), generator=random).tolist()
        batches = [order[i : i + s.batch_size] for i in range(0, len(order), s.batch_size)]
        if len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [batches[-2] + batches[-1]]
        for batch in batches:  # line 4
            clean = [row for row in batch if holds[row] < 0]
            poison_rows = [holds[row] for row in batch if holds[row] >= 0]
            chosen = poison_rows if s.poison_batch == "batch" else list(range(len(P)))
            parts = [[float(part.detach()) for part in L_adv(s, net)] for net in nets]
            if chosen:
                directions = [delta(s, net, X[clean], Y[clean], P[chosen], Y_B[chosen])[0] for net in nets]  # lines 5-8
                d = sum(directions, torch.zeros_like(directions[0])) / len(nets)  # Eq. 13
                trace.deltas.append(d)
                d = d - s.lambda1 * 2 * (P[chosen] - s.T)  # the gradient of λ1·‖P−T‖²
                if s.momentum:
                    velocity[chosen] = s.momentum * velocity[chosen] + step_rule(s, d, "normalised")
                    d = velocity[chosen]
                gamma = s.gamma * ((1 - 0.9 * r / R) if s.decay else 1) * (1 if s.step == "raw" else reach)
                P[chosen] = proj(s, P[chosen] + gamma * step_rule(s, d, s.step), B[chosen])  # lines 9-10, Eq. 11
            for k, net in enumerate(nets):  # lines 11-14
                lower = learn(
                    s,
                    net,
                    torch.cat([X[clean], P[poison_rows]]),
                    torch.cat([Y[clean], Y_B[poison_rows]]),
                    frozen_stages,
                )
                row = dict(zip(("upper", "distance", "label"), parts[k], strict=True)) if chosen else {}
                trace.history.append({"iteration": r, "member": k, "lower": lower, **row})
                if s.restart and net.taken >= s.total_steps:
                    nets[k] = fresh.copy()
            r += 1
    return trace

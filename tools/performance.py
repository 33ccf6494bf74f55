"""Write docs/performance.md from the saved figures: `python tools/performance.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
BENCH = HERE / "results" / "bench"
PAGE = HERE / "docs" / "performance.md"
OVER_FLOOR = {"small": 1.3, "resnet13": 1.15}
"""What an iteration may take of its floor: at 32 px, and at 64 px and above."""


def load(name: str) -> dict[str, Any]:
    """One file of figures."""
    figures: dict[str, Any] = json.loads((BENCH / f"{name}.json").read_text(encoding="utf-8"))
    return figures


def spread(value: dict[str, float], digits: int = 2) -> str:
    """Median and range."""
    return f"{value['median']:.{digits}f} ({value['least']:.{digits}f} to {value['most']:.{digits}f})"


def table(head: list[str], rows: list[list[Any]]) -> list[str]:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows), ""]


def crafting() -> list[str]:
    """Iterations over their floors."""
    rows = load("crafting")["figures"]
    short = [row for row in rows if row["over floor"]["median"] > OVER_FLOOR.get(row["network"].split("-")[0], 9)]
    lines = [
        "## A crafting iteration over its floor",
        "",
        "The floor is what an iteration cannot do without, timed pass by pass in plain PyTorch (`benchmarks/crafting.py`): for each of K models the "
        "θ-gradient of L_adv, the poison passes of the chosen form and one training step; with frozen stages also one "
        "pass of the poison through them "
        "and back, and one of the mini-batch's poison. Aim: at most 1.3 at 32 px and 1.15 from 64 px on. Passes are timed for one model and "
        "counted K times, so that models computed at once can stay below it.",
        "",
        *table(
            ["network", "explainer", "form", "K", "over floor", "ms an iteration", "members", "product"],
            [
                [
                    row["title"],
                    row["explainer"],
                    row["form"],
                    row["K"],
                    f"{'**' if row in short else ''}{spread(row['over floor'])}{'**' if row in short else ''}",
                    row["milliseconds"],
                    row["path"]["members"],
                    row["path"]["product"] if row["form"] == "exact" else "",
                ]
                for row in rows
            ],
        ),
    ]
    inside = len(rows) - len(short)
    lines += [f"{inside} of {len(rows)} rows are within the aim{'; the others are in bold' if short else ''}.", ""]
    if short:
        lines += [
            "What holds those back: the floor leaves out what an iteration does besides its passes (projection, assembling the mini-batch, the step "
            "rule, history). That is a fixed cost of one to a few milliseconds, which shows where the passes are short; "
            "spreads that reach far above the "
            "median are the machine's.",
            "",
        ]
    return lines


def attacks() -> list[str]:
    """Attacks over IMF."""
    rows = load("attacks")["figures"]
    kinds = list(rows[0]["over IMF"])
    return [
        "## Attacks beside IMF",
        "",
        f"A whole crafting over IMF's in its exact form, with the same {rows[0]['K']} surrogates, poison and iterations (`benchmarks/attacks.py`).",
        "",
        *table(
            ["network", "explainer", *kinds],
            [[row["title"], row["explainer"], *(spread(row["over IMF"][kind]) for kind in kinds)] for row in rows],
        ),
    ]


def members() -> list[str]:
    """Models at once, and victims."""
    figures = load("training")["figures"]
    return [
        "## K models at once",
        "",
        "A plain loop over `torch.func`, above 1 where models at once are faster. The path is picked once for a device "
        "and network by measuring a training pass "
        "(`training/code_path.py`), needs a lead of a tenth, and is kept with the run (`code_path.json`).",
        "",
        *table(
            ["network", "K", "training step", "crafting iteration", "picked"],
            [
                [row["title"], row["K"], spread(row["training step"]), spread(row["crafting iteration"]), row["chosen"]]
                for row in figures["ensemble"]
            ],
        ),
        "On a CPU convolutions of several models at once (grouped convolutions) are slower than one after another, and "
        "a loop is taken; small dense layers gain.",
        "",
        "## Victims",
        "",
        "Training one after another through the whole network, over: frozen stages from kept features (each victim's "
        "own, then shared by all), and all victims at once.",
        "",
        *table(
            ["network", "victims", "own features", "shared features", "at once"],
            [
                [
                    row["title"],
                    row["victims"],
                    spread(row["features of each victim's own"]),
                    spread(row["features kept for all victims"]),
                    spread(row["at once"]),
                ]
                for row in figures["victims"]
            ],
        ),
        "## Layout, threads, precision, compiling",
        "",
        "Contiguous over `channels_last`, which all models are in:",
        "",
        *table(
            ["network", "training step", "crafting, reverse over reverse", "crafting, forward over reverse"],
            [
                [
                    row["title"],
                    spread(row["training step"]),
                    spread(row["crafting, reverse"]),
                    spread(row["crafting, forward"]),
                ]
                for row in figures["channels_last"]
            ],
        ),
        "Two pieces of work by one process of two threads, over two processes of one thread each. Runs use one thread a process:",
        "",
        *table(
            ["network", "two processes of one thread"],
            [[row["title"], spread(row["two processes of one thread"])] for row in figures.get("threads", [])],
        ),
        "A float32 training step over one in bf16 (`recipe.precision`, never the default: its results are a class of their own), and over one "
        "compiled with `torch.compile`, with what compiling costs:",
        "",
        *table(
            ["network", "bf16", "compiled", "seconds to compile"],
            [
                [row["title"], spread(row["bf16"]), spread(row["compiled"]), row["seconds to compile"]]
                for row in figures["alternatives"]
            ],
        ),
        "Victims of these sizes train for seconds, so compiling would cost more than it saves; nothing is compiled, and crafting cannot be "
        "(compiled code has no second derivative).",
        "",
    ]


def audits() -> list[str]:
    """Whole audits."""
    rows = load("audits")["figures"]
    return [
        "## Whole audits over a straightforward script",
        "",
        "`benchmarks/straightforward.py` does every target × explainer × arm × victim by itself, every batch through "
        "the whole network. Both begin with the same "
        "starting weights. Aim: 1.4 times faster with full fine-tuning, 3 times with frozen early stages.",
        "",
        *table(
            [
                "audit (CAM and GRAD)",
                "times faster",
                "seconds",
                "straightforward",
                "largest difference of an arm's mean, Jaccard (soft)",
            ],
            [
                [
                    row["case"],
                    spread(row["faster"]),
                    row["seconds"],
                    row["straightforward seconds"],
                    row["scores apart"]["jaccard_soft, mean of an arm"],
                ]
                for row in rows
            ],
        ),
        "The scores are the same: in float64 to 1e-5 relative (`tests/benchmarks/test_straightforward.py`). In "
        "float32, as here, rounding decides the sign of "
        "what is nearly zero, a step of the poison follows the sign, and training amplifies it.",
        "",
        "What bounds the gain with frozen stages is arithmetic. Counting multiplications of a forward pass, the three frozen stages are 62 % of the small "
        "network and 71 % of resnet13 at 64 px, and the straightforward script needs no backward pass through them to train: a victim can "
        "gain 1.6 and 1.8 times from kept features, the crafting of four models 2.1 and 2.6 times from shared passes; "
        "small maps at the end of a network run below "
        "the speed of the large ones at its beginning, which costs part of that. Sharing models between targets and explainers gives "
        "another 1.4 to 1.7 times on victims, and nothing on crafting, which each target needs for itself.",
        "",
    ]


def memory() -> list[str]:
    """Peaks and growth."""
    figures = load("memory")["figures"]
    return [
        "## Memory",
        "",
        "Peak above what a process held before, over that of one training step at the same batch. Aim: 1.5 for K = 1 "
        "by finite difference, 3 for the exact form, "
        "K times when vectorised.",
        "",
        *table(
            ["network", "work", "MiB", "over a training step"],
            [[row["title"], row["case"], row["MiB"], row["over a training step"]] for row in figures["peaks"]],
        ),
        "Vectorised convolutions of resnet13 hold more than K times a step: every gradient exists for all members at "
        "once, and grouped convolutions copy their weights. "
        "That path is not picked on a CPU. In a loop, each further model adds its optimiser's state and its attack gradient.",
        "",
        "Held along a crafting, which must not grow:",
        "",
        *[
            f"- {name}: {', '.join(f'{key[10:]}: {value} MiB' if key.startswith('MiB after ') else f'{key}: {value}' for key, value in figures_of.items())}"
            for name, figures_of in figures["over time"].items()
        ],
        "",
    ]


def growth() -> list[str]:
    """Slopes."""
    figures = load("growth")["figures"]
    return [
        "## Growth",
        "",
        "Slopes of the time of one iteration on log axes: 0 is none, 1 is in proportion.",
        "",
        *table(
            ["with", "slope", "at", "ms an iteration"],
            [
                [
                    name,
                    figures_of["slope"],
                    ", ".join(map(str, figures_of["at"])),
                    ", ".join(map(str, figures_of["milliseconds an iteration"])),
                ]
                for name, figures_of in figures.items()
            ],
        ),
    ]


def peer() -> list[str]:
    """Another toolkit."""
    rows = load("peer")["figures"]
    return [
        "## A peer on the same work",
        "",
        f"Seconds a visit of a poison sample, {rows[0]['peer']}'s `GradientMatchingAttack` over ours, same network, poison count and number of visits "
        "(`make bench-peer`). Aim: 2.",
        "",
        *table(
            [
                "network",
                "poisons",
                "over our cosine form",
                "over our inner product",
                "ms a visit: theirs",
                "cosine",
                "inner product",
            ],
            [
                [
                    row["title"],
                    row["poisons"],
                    spread(row["theirs over our cosine form"]),
                    spread(row["theirs over our inner product"]),
                    row["milliseconds a visit, theirs"]["median"],
                    row["milliseconds a visit, cosine"]["median"],
                    row["milliseconds a visit, inner product"]["median"],
                ]
                for row in rows
            ],
        ),
        "Where the network is large, both spend their time in convolutions: the cosine form needs about seven passes' "
        "worth of them, the peer's about ten, as it also works "
        "out gradients of parameters that nobody uses. Below that, its restarting of a data loader every epoch shows.",
        "",
    ]


def profiles() -> list[str]:
    """Where the time goes."""
    figures = load("profiles")["figures"]
    return [
        "## Where the time goes",
        "",
        "Shares of operators' own time. What is short of its aim above is short because nearly everything is convolutions that have to be done.",
        "",
        *table(
            ["pass", "operators"],
            [
                [name, ", ".join(f"{key} {share:.0%}" for key, share in figures_of.items())]
                for name, figures_of in figures.items()
            ],
        ),
    ]


def page() -> str:
    """The whole page."""
    machine = load("crafting")["machine"]
    lines = [
        "# What an audit costs",
        "",
        "Generated from `results/bench/*.json` by `python tools/performance.py`; `make bench` measures anew. Every "
        "figure is a ratio taken within one process from "
        "repeats in turn: median (least to most; where an iteration takes a few milliseconds, one interruption by the operating system shows). "
        "Milliseconds hold for the machine that is named and for nothing else.",
        "",
        f"Machine: {machine.get('processor', 'unknown processor')}, {machine.get('threads', 1)} thread a process; torch "
        f"{machine['torch']}, Python {machine['python']}. No accelerator was at hand: there is no column of one.",
        "",
        *crafting(),
        *attacks(),
        *members(),
        *audits(),
        *memory(),
        *growth(),
        *peer(),
        *profiles(),
        "## Scheduling",
        "",
        "What scheduling a study's tasks costs is in [the page on studies](study.md) and in `results/bench/jobs.json`.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

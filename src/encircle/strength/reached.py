"""How far an attack reaches: against the paper's, with a fifth of the poison, and on a network it has not seen, beside the ceiling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, final

from ..attacks import Ceiling
from ..audit import Audit, Case
from ..audit.case_file import case_of
from ..audit.identity import settings_of
from ..audit.time_limit import TimeLimit
from ..core import InputError
from ..jobs.driver import Listener
from ..jobs.task import Executor
from ..scoring import Interval
from ..storage import write_json
from ..study.study_file import StudyFile
from .ablation import as_published, kinds_with_choices, varied
from .side_by_side import VARIANT, Settings, SideBySide, facts_of_cell, variants_study

PUBLISHED, BEST_IMF, SELECTED = "IMF as published", "IMF at its best", "selected"
LITTLE = "selected, a fifth of the poison"
TRANSFERRED, GUESSED = "selected, crafted on another network", "selected, crafted for another recipe"

WITHIN_THE_PAPER: Settings = {"other_share": 0.0, "dirty_label": False, "bases": "nearest", "repeats": 1}
"""What bases the paper knows: samples of the target's class, and the target."""

SELECTION: Settings = {"kind": "influence", "other_share": 0.25}
"""What the selected attack has besides the settings of a case whose own is IMF, unless said otherwise: it looks at the end of training, and a quarter of the
bases are of other classes."""

FIFTH = 5


@final
@dataclass(frozen=True)
class Reached:
    """An attack and how far it came.

    Attributes:
        name: which.
        settings: keys of the case that it changes.
        effect_over_published: effect over IMF as published (on Jaccard); undefined where the attacker's own models make another desired map.
        share: fraction of the ceiling, an interval of `verdict.json`; without a mean where the ceiling is too low to speak of.
        watermark_l1: the unbounded WM's L1 at the same budget; None where undefined.
        noise_accuracy: what random noise of the same budget, on the same bases, changes of accuracy; an interval of `verdict.json`.
        cell: of the study, as in `study.json`.
    """

    name: str
    settings: Settings
    effect_over_published: Interval
    share: Mapping[str, float | None]
    watermark_l1: float | None
    noise_accuracy: Mapping[str, float | None]
    cell: Mapping[str, Any]


def selected_of(attack: Settings, selection: Settings) -> Settings:
    """The selected attack: a case's own, or what stands in for IMF (`SELECTION`), with a selection over it."""
    if attack["kind"] == "imf":
        attack, selection = attack | WITHIN_THE_PAPER, SELECTION | selection
    return varied(attack, selection)


def variants_of(
    case: Mapping[str, Any], selection: Mapping[str, Any] | None = None, supposed: Mapping[str, Any] | None = None
) -> dict[str, Settings]:
    """What is compared, by name, as keys of the case.

    Args:
        case: a case's keys and values, all of them. If it has an attacker who crafts on another network, that is for a variant of its own alone.
        selection: what the selected attack has besides (`selected_of`).
        supposed: keys of the recipe as an attacker supposes them who does not know it, for another variant.
    """
    own: Settings = dict(case["attack"])
    best = varied(own, {"kind": "imf"} | WITHIN_THE_PAPER)
    selected = settings_of(Case.model_validate({**case, "attack": selected_of(own, dict(selection or {}))}).attack)
    plain: Settings = {"attacker": None}
    variants: dict[str, Settings] = {
        PUBLISHED: plain | {"attack": as_published(own)},
        BEST_IMF: plain | {"attack": best},
        SELECTED: plain | {"attack": selected},
        LITTLE: plain | {"attack": selected, "budget": _a_fifth(case["budget"])},
    }
    if case["attacker"] is not None:
        variants[TRANSFERRED] = {"attack": selected, "attacker": case["attacker"]}
    if supposed:
        variants[GUESSED] = {"attack": selected, "attacker": {"recipe": dict(supposed)}}
    return variants


def _a_fifth(budget: Mapping[str, Any]) -> Settings:
    if budget["count"] is not None:
        return {**budget, "count": round(budget["count"] / FIFTH)}
    return {**budget, "fraction": budget["fraction"] / FIFTH}


def reach(
    case: Mapping[str, Any],
    root: Path,
    executor: Callable[[], Executor],
    *,
    selection: Mapping[str, Any] | None = None,
    supposed: Mapping[str, Any] | None = None,
    listener: Listener | None = None,
    device: str = "cpu",
    gpus: float = 0.0,
    minutes: float | None = None,
) -> tuple[Reached, ...]:
    """Set the selected attack beside IMF as published and IMF with the case's other settings on the paper's bases, all as one study, with the ceiling.

    A stopped one goes on where it was, and tries again what failed.

    Args:
        case: a case's keys and values, all of them (`Case.model_dump`); with an `attacker`, the selected attack is also crafted as that one supposes.
        root: the study's folder; `reach.json` goes there too.
        executor: makes who does the work.
        selection: what the selected attack has besides (`selected_of`); to be chosen on another draw (`ablate`).
        supposed: keys of the recipe as an attacker supposes them who does not know it: the selected attack is also crafted so.
        listener: told what happens.
        device: where models are trained.
        gpus: share of an accelerator that training and crafting need.
        minutes: begin nothing new after so many.

    Raises:
        InputError: there is no such study (`reach_study`).
        OutOfTimeError: the minutes are over.
        EncircleError: a run did not finish.
    """
    study = reach_study(case, selection, supposed)
    variants = cast(dict[str, Settings], study.grid[VARIANT])
    title = str(case.get("title", "Audit"))
    finished = SideBySide(executor, listener, device, gpus, TimeLimit.starting_now(minutes))(study, root)
    rows = []
    for name, variant in finished.items():
        arms = {arm["arm"]: arm for arm in variant.verdict["arms"]}
        rows.append(
            Reached(
                name,
                variants[name],
                variant.effect_over(finished[PUBLISHED]),
                variant.verdict["share_of_way"],
                arms["watermark"]["l1"]["mean"],
                arms["noise"]["accuracy_change"],
                variant.cell,
            )
        )
    facts = {
        "title": title,
        "explainer": case["explainer"]["kind"],
        "device": ", ".join(sorted({variant.device for variant in finished.values()})),
    }
    write_json(root / "reach.json", facts | {"rows": as_facts(rows)})
    return tuple(rows)


def reach_study(
    case: Mapping[str, Any], selection: Mapping[str, Any] | None = None, supposed: Mapping[str, Any] | None = None
) -> StudyFile:
    """What `reach` runs.

    Args:
        case: a case's keys and values, all of them.
        selection: what the selected attack has besides (`selected_of`).
        supposed: keys of the recipe as an attacker supposes them who does not know it.

    Raises:
        InputError: the case cannot be audited, its attack or the selected one is not one that crafts with surrogates, the selection or what is supposed has an
            unknown setting, a fifth of the poison is none, the case's attacker has the victims' own network, or what is supposed is so.
    """
    asked = dict(selection or {})
    for kind in (case["attack"]["kind"], asked.get("kind", case["attack"]["kind"])):
        if kind not in (kinds := kinds_with_choices()):
            raise InputError(f"the attack {kind} has no settings to select; set its kind to one of {', '.join(kinds)}.")
    selected = selected_of(case["attack"], asked)
    # With what another kind does not know, which was left out, so that a slip of the pen is refused.
    case_of({**case, "attack": selected | asked}, "the selected attack")
    if case["attacker"] is not None and case["attacker"]["model"] in (None, case["model"]):
        raise InputError(
            "the attacker crafts on the victims' own network, so nothing would be transferred; set attacker.model to another, or leave the attacker out "
            "and say what it supposes of the recipe (--supposed)."
        )
    if supposed:
        case_of({**case, "attacker": {"recipe": dict(supposed)}}, "what is supposed")
        if all(case["recipe"].get(key) == value for key, value in supposed.items()):
            raise InputError("what is supposed of the recipe is what it is; suppose something else, such as epochs=10.")
    content = {**case, "attacker": None, "ceiling": case["ceiling"] or settings_of(Ceiling())}
    variants = variants_of(case, selection, supposed)
    little = Case.model_validate({**content, **variants[LITTLE]})
    data = little.data.load(little.seed)
    if little.budget.size(len(data.train)) == 0:
        raise InputError("a fifth of the budget is no poison at all; raise budget.fraction or budget.count.")
    Audit.from_case(little, data=data)
    return variants_study(f"{case.get('title', 'Audit')}: reach", content, variants)


def as_facts(rows: Sequence[Reached]) -> list[dict[str, Any]]:
    """Rows as `reach.json` holds them."""
    return [
        {
            "name": row.name,
            "settings": row.settings,
            "share_of_way": row.share,
            "watermark_l1": row.watermark_l1,
            "noise_accuracy": row.noise_accuracy,
            **facts_of_cell(row.effect_over_published, row.cell),
        }
        for row in rows
    ]

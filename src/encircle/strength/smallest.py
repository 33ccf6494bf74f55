"""The smallest share of poisoned data that is enough to bend an explanation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from ..audit import Audit, Case
from ..audit.time_limit import TimeLimit
from ..core import EncircleError, InputError
from ..jobs.driver import Listener
from ..jobs.task import Executor
from ..storage import write_json
from ..study.folder import Conclusion, begin
from ..study.run import go_on
from ..study.study_file import StudyFile
from ..threat import Budget
from .side_by_side import KEPT, check_time

LADDER = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2)
"""Shares of the training set that are tried unless others are asked for."""

FRACTION = "budget.fraction"
"""The key of a case that a search changes."""


def lowest(count: int, enough: Callable[[int], bool]) -> int | None:
    """The lowest of `count` rising steps that is enough, asking about as few as possible; None if the highest is not.

    What is enough is supposed to stay so higher up: the highest step is asked about first, then halves.
    """
    if count == 0 or not enough(count - 1):
        return None
    below, enough_at = -1, count - 1
    while enough_at - below > 1:
        middle = (below + enough_at) // 2
        if enough(middle):
            enough_at = middle
        else:
            below = middle
    return enough_at


@final
@dataclass(frozen=True)
class Smallest:
    """What a search came to.

    Attributes:
        share: the smallest share that was enough; None if none was.
        below: the next smaller share that was tried, which was not shown to be; None if there is none.
        tried: the shares that were tried, rising.
        conclusion: the study of those.
    """

    share: float | None
    below: float | None
    tried: tuple[float, ...]
    conclusion: Conclusion

    @property
    def sentence(self) -> str:
        """The answer for a non-specialist."""
        if self.share is None:
            largest = self.conclusion.summary["cells"][-1]
            return f"No share up to {100 * max(self.tried):g} % was shown to be enough. The largest that was tried: {largest['sentence']}"
        least = "" if self.below is None else f"; {100 * self.below:g} % was not shown to be"
        return f"Poison of {100 * self.share:g} % of the training data is enough to bend the explanation{least}."


def smallest_budget(
    case: Mapping[str, Any],
    shares: Sequence[float],
    root: Path,
    executor: Callable[[], Executor],
    *,
    listener: Listener | None = None,
    device: str = "cpu",
    gpus: float = 0.0,
    minutes: float | None = None,
) -> Smallest:
    """Search for the smallest share of poison that bends a case's explanation (verdict FAIL), by halving a ladder of shares.

    All shares are one study, of which only those asked about are run; models and clean scores are made once for all of them. A search that was
    stopped goes on where it was, and tries again what failed. Each answer is of what was asked until then, whatever else is finished: the same questions have
    the same answers, however often a search is stopped.

    Args:
        case: a case's keys and values, all of them (`Case.model_dump`); its budget's size is left aside.
        shares: of the training set, any order; those that are less than a sample are left out.
        root: the study's folder.
        executor: makes who does the work, anew for each step.
        listener: told what happens.
        device: where models are trained.
        gpus: share of an accelerator that training and crafting need.
        minutes: begin nothing new after so many.

    Raises:
        InputError: there is no such study (`shares_study`).
        OutOfTimeError: the minutes are over.
        EncircleError: a run that the search needs did not finish.
    """
    study = shares_study(case, shares)
    steps, content = [float(share) for share in study.grid[FRACTION]], Case.model_validate(study.case)
    begin(study, root)
    limit = TimeLimit.starting_now(minutes)
    last: dict[str, Conclusion] = {}
    tried: set[int] = set()

    def enough(step: int) -> bool:
        tried.add(step)
        last["one"] = go_on(
            root,
            executor(),
            listener=listener,
            minutes=limit.remaining,
            device=device,
            gpus=gpus,
            again=True,
            only=sorted(tried),
        )
        [cell] = [cell for cell in last["one"].summary["cells"] if cell["at"] == [step]]
        if cell["verdict"] == "ERROR":
            check_time(limit, last["one"].summary)
            why = cell["missing"][0]["why"] if cell["missing"] else "it did not finish."
            raise EncircleError(f"the search needs a run of {100 * steps[step]:g} % poison: {why}")
        # Poison that costs the prediction bends too much, not too little: less of it may do.
        return bool(cell["verdict"] == "FAIL" or cell["label_lost"])

    lowest(len(steps), enough)
    # What each was among all that were tried: claims are corrected for all of them, and what was enough alone may not be any more.
    bent = {steps[cell["at"][0]]: cell["verdict"] == "FAIL" for cell in last["one"].summary["cells"]}
    share = min((share for share, enough_of_it in bent.items() if enough_of_it), default=None)
    below = None if share is None else max((tried_share for tried_share in bent if tried_share < share), default=None)
    answer = Smallest(share, below, tuple(sorted(bent)), last["one"])
    cells = sorted(last["one"].summary["cells"], key=lambda cell: cell["at"])
    facts = {
        "title": str(case.get("title", "Audit")),
        "attack": case["attack"],
        "epsilon": content.budget.epsilon,
        "threshold": content.judging.threshold,
        "share": answer.share,
        "below": answer.below,
        "tried": list(answer.tried),
        "sentence": answer.sentence,
        "doses": [{"share": steps[cell["at"][0]]} | {name: cell[name] for name in KEPT} for cell in cells],
    }
    write_json(root / "smallest.json", facts)
    return answer


def shares_study(case: Mapping[str, Any], shares: Sequence[float] = LADDER) -> StudyFile:
    """What `smallest_budget` runs some of, with the same arguments.

    Raises:
        InputError: no shares, none that is a sample, too few targets for a claim, or the case cannot be audited.
    """
    asked = sorted(set(shares))
    if not asked or not 0 < asked[0] <= asked[-1] < 1:
        raise InputError("shares of the training set lie between 0 and 1; name at least one, such as --share 0.05.")
    content = copy.deepcopy(dict(case))
    targets, least = content["targets"], content["judging"]["minimum_targets"]
    if (targets if isinstance(targets, int) else len(targets)) < least:
        raise InputError(f"with fewer than {least} targets no share can be shown to be enough; raise targets.")
    budget = dict(content.get("budget", {}))
    budget.pop("count", None)
    content["budget"] = budget | {"fraction": asked[-1]}
    largest = Case.model_validate(content)
    data = largest.data.load(largest.seed)
    steps = [share for share in asked if Budget(fraction=share).size(len(data.train))]
    if not steps:
        raise InputError(
            f"{100 * asked[-1]:g} % of {len(data.train)} training samples is none at all; ask for larger shares."
        )
    Audit.from_case(largest, data=data)
    title = f"Smallest budget: {content.get('title', 'audit')}"
    return StudyFile(title=title, case=content, grid={FRACTION: steps})

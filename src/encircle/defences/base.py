"""What every defence is: a change of how victims learn, or of how their predictions are explained."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

from ..explain import Explainer
from ..training import Recipe


class Defence(ABC):
    """Makes poison bend explanations less. Settings in the constructor, data in the call.

    It overrides one hook at least. It never learns which rows are poison: the judge knows.

    Attributes:
        kind: its name in cases, files and reports.
        title: its name for people, as it stands after "under".
        about: what it does, in a sentence or two for a report's glossary.
    """

    kind: str
    title: ClassVar[str]
    about: ClassVar[str] = ""

    def recipe(self, recipe: Recipe) -> Recipe:
        """How victims learn under this defence; their starting weights stay the same."""
        return recipe

    def explainer(self, explainer: Explainer) -> Explainer:
        """What explanations of victims come from under this defence."""
        return explainer

"""The base class of defences: a change of how victims learn or are explained."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

from ..explain import Explainer
from ..training import Recipe


class Defence(ABC):
    """A defence makes poison bend explanations less. Settings in the constructor, data in the call.

    It overrides at least one hook. It never learns which rows are poison.

    Attributes:
        kind: its name in cases, files and reports.
        title: its name for people, to follow "under".
        about: its description in a sentence or two, for a report's glossary.
    """

    kind: str
    title: ClassVar[str]
    about: ClassVar[str] = ""

    def recipe(self, recipe: Recipe) -> Recipe:
        """The victims' recipe under this defence; their starting weights stay the same."""
        return recipe

    def explainer(self, explainer: Explainer) -> Explainer:
        """The explainer for victims under this defence."""
        return explainer

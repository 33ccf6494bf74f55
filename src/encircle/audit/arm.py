"""An arm: the attack that made the poison, and the defence under which victims learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..attacks import Attack, BaseSamples, NoPoison, ProjectedWatermark, RandomNoise, Watermark
from ..defences import Defence, NoDefence

BASES = ("target_share", "other_share", "bases", "dirty_label", "repeats")
"""Settings of an attack that choose its bases. The controls take the same."""


@final
@dataclass(frozen=True)
class Arm:
    """An attack and a defence.

    Attributes:
        attack: makes the poison; `NoPoison` for clean victims.
        defence: changes how victims learn or are explained.
    """

    attack: Attack
    defence: Defence

    @property
    def is_defended(self) -> bool:
        """Whether there is a defence."""
        return not isinstance(self.defence, NoDefence)

    @property
    def is_clean(self) -> bool:
        """Whether its victims learn from clean data."""
        return isinstance(self.attack, NoPoison)

    @property
    def key(self) -> str:
        """Its name in files: that of the attack, with the defence's after a plus sign."""
        return f"{self.attack.kind}+{self.defence.kind}" if self.is_defended else self.attack.kind

    @property
    def reference(self) -> str:
        """The key of the arm that it is paired with: clean victims under the same defence."""
        return Arm(NoPoison(), self.defence).key

    @property
    def title(self) -> str:
        """Its name for people."""
        dirty = " (dirty label)" if getattr(self.attack, "dirty_label", False) else ""
        return f"{self.attack.title}{dirty}{f' under {self.defence.title}' if self.is_defended else ''}"

    @property
    def about(self) -> str:
        """Its description for a report's glossary; empty where its classes give none."""
        return " ".join(text for text in (self.attack.about, self.defence.about) if text)


def arms_of(attack: Attack, defence: Defence) -> list[Arm]:
    """The arms of an audit, in the order of tables.

    No poison, the controls, the attack; then no poison and the attack under the defence, if there is one.

    Args:
        attack: the audited attack. Controls are made from the same bases; a control of the same kind is left out.
        defence: the audited defence. The undefended arms stand beside it.
    """
    bases = {name: getattr(attack, name) for name in BASES if hasattr(attack, name)}
    controls = (NoPoison(), BaseSamples(**bases), RandomNoise(**bases), Watermark(), ProjectedWatermark())
    attacks = [*(control for control in controls if control.kind != attack.kind), attack]
    arms = [Arm(member, NoDefence()) for member in attacks]
    return arms if isinstance(defence, NoDefence) else [*arms, Arm(NoPoison(), defence), Arm(attack, defence)]

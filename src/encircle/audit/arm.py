"""What a group of victims have in common: the attack that made their poison, and the defence that they learn under."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..attacks import Attack, BaseSamples, NoPoison, ProjectedWatermark, RandomNoise, Watermark
from ..defences import Defence, NoDefence

BASES = ("target_share", "other_share", "bases", "dirty_label", "repeats")
"""Settings of an attack that say what its poison is made from: the controls take the same."""


@final
@dataclass(frozen=True)
class Arm:
    """An attack and a defence.

    Attributes:
        attack: what made the poison; `NoPoison` for clean victims.
        defence: what victims learn and are explained under.
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
        """What it is, for a report's glossary; empty where that is said nowhere."""
        return " ".join(text for text in (self.attack.about, self.defence.about) if text)


def arms_of(attack: Attack, defence: Defence) -> list[Arm]:
    """The arms of an audit, in the order of tables: no poison, the controls, the attack, and what the defence makes of first and last.

    Args:
        attack: what is audited; controls are made from the same bases, and one of its kind is left out.
        defence: what is audited; the undefended arms stand beside it.
    """
    bases = {name: getattr(attack, name) for name in BASES if hasattr(attack, name)}
    controls = (NoPoison(), BaseSamples(**bases), RandomNoise(**bases), Watermark(), ProjectedWatermark())
    attacks = [*(control for control in controls if control.kind != attack.kind), attack]
    arms = [Arm(member, NoDefence()) for member in attacks]
    return arms if isinstance(defence, NoDefence) else [*arms, Arm(NoPoison(), defence), Arm(attack, defence)]

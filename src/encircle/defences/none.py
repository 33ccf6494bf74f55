"""No defence: victims learn and are explained as the case says."""

from __future__ import annotations

from typing import ClassVar, Literal, final

from pydantic import Field
from pydantic.dataclasses import dataclass

from ..core import CONFIGURED
from .base import Defence


@final
@dataclass(frozen=True, config=CONFIGURED)
class NoDefence(Defence):
    """No defence."""

    kind: Literal["none"] = Field(default="none", kw_only=True)
    title: ClassVar[str] = "no defence"

"""Desired maps: what the attacker wants an explanation to look like."""

from .away import Away
from .base import DesiredMap, Goal, GoalContext
from .box import Box
from .cells import cells
from .drawn_region import QUARTERS, DrawnRegion
from .features import Features
from .from_file import FromFile
from .like import Like
from .of_class import OfClass
from .region import REGIONS, Region
from .units import Units

ALL: tuple[type[Goal], ...] = (Region, DrawnRegion, Box, Away, Features, Units, Like, OfClass, FromFile)
"""Every goal that a case can name."""

__all__ = [
    "ALL",
    "QUARTERS",
    "REGIONS",
    "Away",
    "Box",
    "DesiredMap",
    "DrawnRegion",
    "Features",
    "FromFile",
    "Goal",
    "GoalContext",
    "Like",
    "OfClass",
    "Region",
    "Units",
    "cells",
]

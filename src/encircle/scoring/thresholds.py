"""Every number that decides a verdict or a condition of a report, each said once.

What a user may set (`judging:` and `ceiling:` of a case, arguments of the statistics) has its default here. Nothing here depends on torch.
"""

from __future__ import annotations

# -- what a score counts -----------------------------------------------------------------------------------------------

HIGHLIGHTED = 0.5
"""From this value up, after min-max scaling to [0, 1], an entry of a map counts as highlighted (§5.3.1 of the paper)."""

# -- when an interval is claimed ---------------------------------------------------------------------------------------

RESAMPLES = 2000
"""Bootstrap resamples of an interval: enough that another seed of the resampling moves its ends by little of its width."""

LEVEL = 0.95
"""Coverage of every interval. An effect is claimed where its interval excludes zero."""

POWER = 0.8
"""Probability with which the smallest detectable effect would have been claimed; the usual one in the design of trials."""

MINIMUM_TARGETS = 5
"""With fewer targets no interval is claimed: the bootstrap's intervals of fewer are much too narrow."""

MINIMUM_VICTIMS = 2
"""With fewer victims no interval is claimed, however many targets there are: one says nothing of what another seed does."""

FALSE_CLAIMS = 0.05
"""The probability of any false claim among the comparisons of a study; adjusted p-values above it claim nothing."""

# -- when an explanation counts as bent --------------------------------------------------------------------------------

BENT_EFFECT = 0.1
"""Effect on the Jaccard score, beyond the seed null, from which an explanation counts as bent: FAIL from here on, PASS only where it is ruled out."""

LABEL_KEPT = 0.9
"""Share of victims that must keep the target's class for an attack to be a silent one; the paper asks for it (§5.3) and gives no number."""

ACCURACY_LOSS = 0.01
"""Largest loss of held-out accuracy that counts as none; the paper asks for none and gives no number. A model of the ceiling may lose no more, either."""

RESOLVABLE_ROWS = 500
"""An accuracy change of about one point cannot be told from nothing on fewer held-out rows than this."""

SHORTEST_CEILING_EFFECT = 0.1
"""Fractions of a ceiling whose own effect (Jaccard) is smaller than this are undefined: a fraction of next to nothing says nothing."""

# -- what is asked of the selected attack (docs/strength.md) -----------------------------------------------------------

CEILING_FRACTION = {"cam": 0.6, "grad": 0.4}
"""Fraction of the reference ceiling that the selected attack is asked to reach, by the explainer's kind; of others nothing is asked."""

L1_BELOW_WATERMARK = 0.2
"""How far an attack's L1 must lie below the unbounded watermark's, as a share of the latter: what the paper reports for IMF, of every explainer (§5.3.1)."""

TRANSFERRED_EFFECT = 0.5
"""Share of its effect that an attack is asked to keep on a network that it was not crafted on."""

WORTHWHILE_EFFECT = 0.01
"""A choice of an attack helps from this effect on (victims' mean Jaccard) where targets are too few for an interval."""

# -- what counts as reproduced (docs/kdd21.md) -------------------------------------------------------------------------

STABLE_RANGE = 0.1
"""A level of the objective is stable while it stays within this share of its range of the mean of its last epochs."""

STABLE_LAST_EPOCHS = 5
"""How many last epochs that mean is of."""

ROOM_FACTOR = 2.0
"""From so many times an attack's effect on, a ceiling's says that the network leaves room that the poison does not use."""

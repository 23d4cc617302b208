"""Claims as rows: what is claimed, from which records it is measured, and a verdict by one rule."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wavecity.model.results.measures import MEASURES, Measure, Measured, Select, deviation
from wavecity.model.results.outcomes import Missing, Outcome
from wavecity.model.results.rows import LEVEL

Verdict = Literal["shown", "not shown", "contradicted", "too small to tell", "not measured", "not judged"]
OURS = "not in the paper"

# Fewer seeds than these have no spread worth the name.
SEEDS = 3
# Fewer tested users say nothing either: between two draws of 50 users a share of them differs by up to 20 points by chance
# (95 %), which is the size of what the paper claims; seeds of the heads do not show that, for they test the same users.
USERS = 50
# Nor does a pretraining on fewer users for each beam that the array forms: a rule of thumb for classifiers [ours].
PER_BEAM = 10
# Where the paper says "about" or "nearly" a number, this share of it is enough.
ABOUT = 0.9
# Per cent or points: a direction without a stated size must exceed it.
MARGIN = 100 * LEVEL
# Silhouettes have one draw and no seeds; a smaller difference counts as none [ours].
SILHOUETTE_MARGIN = 0.05
# dB; the same for errors in dB [ours].
DB_MARGIN = 0.5


def rule(margin: str) -> str:
    """State the rule of the verdicts, with the margin of claims that give a direction only."""
    return (
        f"Shown: over at least {SEEDS} seeds, the mean gain less one standard deviation still exceeds the claimed size "
        f"({ABOUT:.0%} of it where the paper says “about” or “nearly”; {margin} where it gives a direction "
        f"only). Contradicted: the mean gain plus one standard deviation is below -{margin}, or beyond the opposite "
        "that the row names. Not shown: everything between. Too small to tell: fewer seeds; fewer than "
        f"{USERS} tested users, for between two draws of so many a share differs by up to 20 points by chance, as much as the "
        f"claims say; or, for a pretrained model, a pretraining on fewer than {PER_BEAM} users for each beam that the array can "
        "form. Not measured: not run. Not judged: pictures only."
    )


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, or a question that the paper leaves open."""

    key: str  # Anchor in the page
    figure: str  # Number of the figure it belongs to
    source: str  # Where the paper says it; "not in the paper" for questions of ours
    text: str
    counted: str  # How it is turned into one number
    task: str
    # A name of `wavecity.model.results.measures.MEASURES`. None: there are pictures alone
    measure: Measure | None = None
    select: Select | None = None  # Which records it is measured from
    size: float = MARGIN  # The gain must exceed `size` to be shown, and lie below `opposite` to be contradicted
    opposite: float = -MARGIN
    # Least numbers of seeds and of tested users for either; no users for what does not depend on who is drawn: times,
    # counts, and how exact a calculation is
    seeds: int = SEEDS
    users: int = USERS
    by_eye: bool = False  # The paper shows pictures only: what was measured is stated, and not judged

    def measured(self, outcome: Outcome) -> Measured | None:
        """Turn a task's results into what the claim stands or falls with; None where they have no such values."""
        return MEASURES[self.measure](self.select, outcome) if self.measure and self.select else None


@dataclass(frozen=True)
class Judged:
    """A claim with this run's number, what it rests on, the verdict, and what is too small for one."""

    claim: Claim
    verdict: Verdict
    text: str
    samples: str
    lacks: str = ""


def judge(
    claim: Claim, outcomes: Mapping[str, Outcome], missing: Mapping[str, Missing] | None = None, pretraining: str = ""
) -> Judged:
    """Hold a claim against the results of a run, by the rule that `rule` states.

    `missing` says why a task has no results; `pretraining` what makes the pretraining too small for a verdict, empty
    where it is large enough, or does not matter.
    """
    if claim.task not in outcomes:
        # The whole reason stands in the page's first screen.
        why = missing[claim.task].why.partition(":")[0] if missing and claim.task in missing else "not run"
        return Judged(claim, "not measured", f"task {claim.task} {why}", "")
    outcome = outcomes[claim.task]
    if claim.measure is None:
        return Judged(claim, "not judged", "by eye only", outcome.sizes())
    measured = claim.measured(outcome)
    if measured is None:
        return Judged(claim, "not measured", "the results have no such values", outcome.sizes())
    if claim.by_eye:
        return Judged(claim, "not judged", measured.text, measured.samples)
    found = verdict(claim, measured.gains)
    lacks = "" if found == "not measured" else lacking(claim, measured, pretraining)
    return Judged(claim, "too small to tell" if lacks else found, measured.text, measured.samples, lacks)


def lacking(claim: Claim, measured: Measured, pretraining: str = "") -> str:
    """Name what a claim's numbers are too small in for a verdict; empty where they are large enough."""
    seeds = int(np.isfinite(measured.gains).sum())
    parts = []
    if seeds < claim.seeds:
        parts.append(f"{seeds} of {claim.seeds} seeds")
    if measured.users < claim.users:
        parts.append(f"{measured.users} of {claim.users} tested users")
    if pretraining and claim.users:
        parts.append(pretraining)
    return ", ".join(parts)


def verdict(claim: Claim, gains: NDArray[np.float64]) -> Verdict:
    """Apply the rule to the gains of the seeds, float (K,); whether they are enough `lacking` says."""
    gains = gains[np.isfinite(gains)]
    if not len(gains):
        return "not measured"
    mean, spread = float(gains.mean()), deviation(gains)
    if mean - spread > claim.size:
        return "shown"
    return "contradicted" if mean + spread < claim.opposite else "not shown"

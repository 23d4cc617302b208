"""The paper's claims, one by one: what this run measured, from which samples, and a verdict by one rule."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wavecity.model.results.measures import (
    BEAMS,
    CNN,
    CROSS,
    EVERYWHERE,
    KNN,
    LOCAL,
    MLP,
    MU_RATE,
    PAIR,
    PROBE,
    PROBES,
    RAW,
    RECEIVE,
    SIMPLE,
    SU_RATE,
    TOP5,
    TRANSMIT,
    TUNED,
    TWIN,
    UNSEEN,
    Measured,
    beside,
    change,
    deviation,
    every_head,
    fewer_labels,
    gain,
    milliseconds,
    more_with_few,
    share_of_bound,
    silhouettes,
)
from wavecity.model.results.outcomes import Missing, Outcome
from wavecity.model.results.table import LEVEL

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
# Readings of "near-optimal" and "in the order of milliseconds" [ours]: what counts as so, and what as the opposite.
NEAR, FAR = 95.0, 80.0
QUICK, SLOW = 10.0, 100.0


def rule(margin: str) -> str:
    """Tell the rule of the verdicts, with the margin of claims that give a direction only."""
    return (
        f"Shown: over at least {SEEDS} seeds, the mean gain less one standard deviation still exceeds the claimed size "
        f"({ABOUT:.0%} of it where the paper says “about” or “nearly”; {margin} where it gives a direction "
        f"only). Contradicted: the mean gain plus one standard deviation is below -{margin}, or beyond the opposite "
        "that the row names. Not shown: everything between. Too small to tell: fewer seeds; fewer than "
        f"{USERS} tested users, for between two draws of so many a share differs by up to 20 points by chance, as much as the "
        f"claims say; or, for a pretrained model, a pretraining on fewer than {PER_BEAM} users for each beam that the array can "
        "form. Not measured: not run. Not judged: pictures only."
    )


RULE = rule(f"{MARGIN:g} % or points")


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, or a question that the paper leaves open.

    Attributes
    ----------
    key : str
        Anchor in the page.
    figure : str
        Number of the figure it belongs to.
    source : str
        Where the paper says it; "not in the paper" for questions of ours.
    text : str
    counted : str
        How it is turned into one number.
    task : str
    measure : callable, optional
        From the task's outcome; gives None where its part of the task was not run. None: nothing to judge by.
    size, opposite : float
        The gain must exceed `size` to be shown, and lie below `opposite` to be contradicted.
    seeds, users : int
        Least numbers of seeds and of tested users for either; no users for what does not depend on who is drawn: times,
        counts, and how exact a calculation is.
    by_eye : bool
        The paper shows pictures only: what was measured is told, and not judged.
    """

    key: str
    figure: str
    source: str
    text: str
    counted: str
    task: str
    measure: Callable[[Outcome], Measured | None] | None
    size: float = MARGIN
    opposite: float = -MARGIN
    seeds: int = SEEDS
    users: int = USERS
    by_eye: bool = False


@dataclass(frozen=True)
class Judged:
    """A claim with this run's number, what it rests on, the verdict, and what is too small for one."""

    claim: Claim
    verdict: Verdict
    text: str
    samples: str
    lacks: str = ""


def judge(
    claim: Claim,
    outcomes: Mapping[str, Outcome],
    missing: Mapping[str, Missing] | None = None,
    pretraining: str = "",
) -> Judged:
    """Hold a claim against the results of a run; the rule is `RULE`.

    Parameters
    ----------
    claim : Claim
    outcomes : mapping of str to Outcome
    missing : mapping of str to Missing, optional
        Why a task has no results.
    pretraining : str
        What makes the pretraining too small for a verdict; empty where it is large enough, or does not matter.
    """
    if claim.task not in outcomes:
        # The whole reason stands in the page's first screen.
        why = missing[claim.task].why.partition(":")[0] if missing and claim.task in missing else "not run"
        return Judged(claim, "not measured", f"task {claim.task} {why}", "")
    if claim.measure is None:
        return Judged(claim, "not judged", "by eye only", outcomes[claim.task].sizes())
    measured = claim.measure(outcomes[claim.task])
    if measured is None:
        return Judged(claim, "not measured", "the results have no such values", outcomes[claim.task].sizes())
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


# The model at two receivers: fine-tuned as in the paper, or frozen where fine-tuning was left out.
_SU = (TUNED, BEAMS)
_MU = (BEAMS,)

CLAIMS: tuple[Claim, ...] = (
    Claim("attention", "3", "section 3.5, Figure 3",
          "[PHYSC] attends to what blocks, reflects or diffracts the link to a user.",
          "by eye only", "reconstruction", None),
    Claim("spectrum-in-scene", "4", "section 3.3, Figure 4",
          "The spatial spectrum shows the directions in which the scene lets power through (an illustration).",
          "by eye only", "reconstruction", None),
    Claim("local-clusters", "5", "section 4.2, Figure 5a",
          "Users that stand together form clusters that are better separated in [PHYSC] than in raw CSI.",
          f"silhouette of [PHYSC] less that of raw CSI, in their own spaces; one draw, so {SILHOUETTE_MARGIN:g} is the margin",
          "localization", silhouettes, SILHOUETTE_MARGIN, -SILHOUETTE_MARGIN, 1),
    Claim("local-share", "5", "section 4.2, Figure 5b",
          "Within a scene [PHYSC] + MLP has a median error more than 20 % below that of raw CSI + CNN.",
          "relative reduction, mean over the numbers of labels", "localization",
          gain(LOCAL, EVERYWHERE, (MLP,), (CNN,)), 20.0),
    Claim("local-metres", "5", "section 4.2, Figure 5b", "That is some 5 to 10 m.",
          "reduction in m, mean over the numbers of labels; at least 5", "localization",
          gain(LOCAL, EVERYWHERE, (MLP,), (CNN,), kind="absolute"), 5.0, 0.0),
    Claim("local-few", "5", "section 4.2, Figure 5b", "The gain is largest with few labels.",
          "reduction in m with the fewest labels less that with the most; any difference beyond the spread",
          "localization", more_with_few(LOCAL, EVERYWHERE, MLP, CNN), 0.0, 0.0),
    Claim("local-knn", "5", OURS,
          "It also beats the nearest neighbours of |DFT| fingerprints, with the user's level where that helps.",
          "relative reduction, mean over the numbers of labels", "localization",
          gain(LOCAL, EVERYWHERE, (MLP,), (KNN,))),
    Claim("local-twin", "5", OURS, "Pretraining helps: the same encoder from scratch, with the same budget, is behind.",
          "relative reduction, mean over the numbers of labels that both have", "localization",
          gain(LOCAL, EVERYWHERE, (TUNED, MLP), (TWIN,))),
    Claim("cross-zero", "5", "section 4.2, Figure 5c",
          "In scenes never seen, without any label of theirs, [PHYSC] + MLP is better than raw CSI + CNN.",
          "relative reduction of the median error with no labels", "cross-localization",
          gain(CROSS, UNSEEN, (MLP,), (CNN,), at=0)),
    Claim("cross-more", "5", "section 4.2, Figure 5c", "With labels of the new scene it keeps getting better.",
          "relative reduction from no labels to the most", "cross-localization", change(CROSS, UNSEEN, MLP, -1)),
    Claim("cross-cnn", "5", "section 4.2, Figure 5c",
          "Raw CSI + CNN gets worse when it is fine-tuned on only a few labels.",
          "relative growth of its error from no labels to the fewest; here held-back labels choose rate and stop, no step at "
          "all included, which shields it", "cross-localization", change(CROSS, UNSEEN, CNN, 1, worse=True)),
    Claim("cross-knn", "5", OURS, "In scenes never seen it also beats the nearest neighbours of |DFT| fingerprints.",
          "relative reduction, mean over the numbers of labels", "cross-localization",
          gain(CROSS, UNSEEN, (MLP,), (KNN,))),
    Claim("cross-twin", "5", OURS,
          "Pretraining helps in scenes never seen: the same encoder from scratch, with the same budget, is behind.",
          "relative reduction, mean over the numbers of labels that both have", "cross-localization",
          gain(CROSS, UNSEEN, (TUNED, MLP), (TWIN,))),
    Claim("mu-clusters", "6", "section 4.2, Figures 6a and 6b",
          "Users of neighbouring beams form clusters that are better separated in [PHYSC] than in raw CSI.",
          f"silhouette of [PHYSC] less that of raw CSI, in their own spaces; one draw, so {SILHOUETTE_MARGIN:g} is the margin",
          "mu-mimo", silhouettes, SILHOUETTE_MARGIN, -SILHOUETTE_MARGIN, 1),
    Claim("mu-top5", "6", "section 4.2, Figure 6c",
          "A linear probe on [PHYSC] finds the beam among five nearly 20 points more often than one on raw CSI.",
          "points, mean over the training ratios", "mu-mimo",
          gain(TOP5, PROBE, _MU, (RAW,), kind="absolute"), 20 * ABOUT),
    Claim("mu-simple", "6", OURS,
          "It also finds the beam more often than a probe on |zero-filled DFT|, the zero-filled DFT itself, and OMP.",
          "points over the best of the three, mean over the training ratios", "mu-mimo",
          gain(TOP5, PROBE, _MU, SIMPLE, kind="absolute")),
    Claim("mu-near", "6", "section 4.2, Figure 6d",
          "With 20 % of the labels the sum-rate is near that of the exhaustive search.",
          f"share of the bound; at least {NEAR:g} % counts as near, less than {FAR:g} % as the opposite", "mu-mimo",
          share_of_bound(0.2), NEAR, FAR),
    Claim("mu-simple-rate", "6", OURS, "Its sum-rate is also above that of the same three.",
          "relative gain over the best of the three, mean over the training ratios", "mu-mimo",
          gain(MU_RATE, PROBE, _MU, SIMPLE, noun="clusters")),
    Claim("su-receive", "7", "section 4.2, Figure 7a", "The receive beams are found more often than from raw CSI.",
          "points with the fewest labels", "su-mimo",
          gain(RECEIVE, PROBES, _SU, (RAW,), at="fewest", kind="absolute")),
    Claim("su-transmit", "7", "section 4.2, Figure 7b",
          "With few labels the transmit beams are found about 20 points more often.",
          "points with the fewest labels", "su-mimo",
          gain(TRANSMIT, PROBES, _SU, (RAW,), at="fewest", kind="absolute"), 20 * ABOUT),
    Claim("su-pair", "7", "section 4.2, Figure 7c",
          "With few labels the dominant pair of beams is found about 20 points more often.",
          "points with the fewest labels", "su-mimo",
          gain(PAIR, PROBES, _SU, (RAW,), at="fewest", kind="absolute"), 20 * ABOUT),
    Claim("su-rate", "7", "section 4.2, Figure 7d", "With 10 % of the data the sum-rate is nearly 42 % higher.",
          "relative gain with 10 % of the labels", "su-mimo",
          gain(SU_RATE, PROBES, _SU, (RAW,), at=0.1), 42 * ABOUT),
    Claim("su-simple", "7", OURS,
          "The sum-rate is also above those of |zero-filled DFT|, the zero-filled DFT itself, and OMP.",
          "relative gain over the best of the three, mean over the training ratios", "su-mimo",
          gain(SU_RATE, PROBES, _SU, SIMPLE)),
    Claim("su-twin", "7", OURS, "Pretraining helps: the same encoder from scratch, with the same budget, is behind.",
          "relative gain in sum-rate, mean over the training ratios", "su-mimo",
          gain(SU_RATE, PROBES, _SU, (TWIN,))),
    Claim("locations", "9", "Appendix D, Figure 9",
          "The location can be read from partial CSI and the scene (pictures only).",
          "not at all, the paper has no number", "reconstruction",
          beside("Hidden location, median error"), by_eye=True),
    Claim("spectra", "10", "Appendix D, Figure 10",
          "The spatial spectrum can be rebuilt from partial CSI and the scene (pictures only).",
          "not at all, the paper has no number", "reconstruction",
          beside("Strongest direction of the spectrum, top 5"), by_eye=True),
    Claim("occupancy", "11", "Appendix D, Figure 11",
          "What stands along the link can be told from CSI and location (pictures only).",
          "not at all, the paper has no number", "reconstruction",
          beside("Masked occupancy, average precision"), by_eye=True),
    Claim("layouts", "12", "Appendix E.1, Figure 12",
          "In scenes never seen, [PHYSC] + MLP puts users nearer to where they are than raw CSI + CNN (pictures only).",
          "not at all here; the verdict is with Figure 5", "cross-localization",
          gain(CROSS, UNSEEN, (MLP,), (CNN,), at=0), by_eye=True),
    Claim("mu-fewer", "13", "Appendix E.2, Figure 13",
          "The sum-rate of the raw baseline is reached with a quarter of its labels.",
          "relative gain over the baseline that has four times the labels; level or better counts", "mu-mimo",
          fewer_labels(4), -MARGIN, -MARGIN),
    Claim("heads-large", "14", "Appendix E.2, Figure 14",
          "At a learning rate of 1e-3 [PHYSC] is ahead of raw CSI whatever the head's hidden layers.",
          "points in top-5 accuracy of the head with the smallest gain, mean over the training ratios", "mu-mimo",
          every_head(1e-3)),
    Claim("heads-small", "15", "Appendix E.2, Figure 15",
          "At a learning rate of 1e-4 too.",
          "points in top-5 accuracy of the head with the smallest gain, mean over the training ratios", "mu-mimo",
          every_head(1e-4)),
    Claim("latency", "", "section 3.2", "One inference takes milliseconds.",
          f"median, quickest way on this CPU, batch of 1, a model of the size stated below; below {QUICK:g} ms counts, "
          f"above {SLOW:g} ms is the opposite",
          "latency", milliseconds, -QUICK, -SLOW, 1, 0),
)  # fmt: skip

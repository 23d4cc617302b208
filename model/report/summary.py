"""The first screen of the report: what was trained, what it shows, what it cannot show; and its terms, explained."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import get_args

from wavecity.model.report.papers import Paper
from wavecity.model.results.claims import PER_BEAM, SEEDS, USERS, Judged, Verdict
from wavecity.model.results.outcomes import Missing, Outcome, Summary
from wavecity.model.results.words import count

# Tasks whose numbers are not of users, but of calls that are timed, or of cells.
NOT_USERS = ("latency", "radio-map")

# Term, how it is written in the page, what it is. In the order in which a reader needs them.
TERMS: tuple[tuple[str, str, str], ...] = (
    ("[PHYSC]", r"\[PHYSC\]", "the model's summary of one user's link: the output of a token that the encoder adds to those of "
     "channel, height map and location. Heads for the tasks read it."),
    ("CSI", r"\bCSI\b", "channel state information: the complex gains between a user and each antenna of the base station."),
    ("UPA", r"\bUPA\b", "uniform planar array: antennas on a grid."),
    ("DFT", r"\bDFT\b", "discrete Fourier transform over the antennas: the power by direction. Zero-filled: with zeros where "
     "the channel is not seen."),
    # Always there: in the titles of the scenes, which are pictures.
    ("LoS, NLoS", "", "with and without a line of sight between user and base station."),
    ("MU-MIMO, SU-MIMO", r"\b[MS]U-MIMO\b|\bMIMO\b", "several antennas at both ends of the links, for several users at once "
     "(MU) or one user with several antennas (SU)."),
    ("SNR", r"\bSNR\b", "signal-to-noise ratio."),
    ("NMSE", r"\bNMSE\b", "normalised mean squared error: squared error over the energy of what is predicted. 0 dB is as good "
     "as predicting zeros."),
    ("OMP", r"\bOMP\b", "orthogonal matching pursuit: explains the channel by a few plane waves, found one after another."),
    ("SBL", r"\bSBL\b", "sparse Bayesian learning: as OMP, with a weight for every direction."),
    ("LMMSE", r"\bLMMSE\b", "linear estimate with the least mean squared error, from the covariance of the training users."),
    ("kNN", r"\bkNN\b", "nearest neighbours: the mean position of the training users whose channels are most similar."),
    ("MLP, CNN", r"\bMLP\b|\bCNN\b", "small neural networks: fully connected, and convolutional."),
    ("linear probe", r"linear probes?", "a single linear layer, trained on features that are not changed."),
    ("head", r"\bheads?\b", "a small network for one task, trained on labelled users."),
    ("from-scratch twin", r"from-scratch twin", "the same network from random weights, trained on the task with the same budget: "
     "what pretraining is worth is the distance to it."),
    ("fine-tuned", r"fine-tuned", "encoder and head trained together on the labelled users."),
    ("zero-shot", r"zero-shot", "without any labelled user of the scene."),
    ("persistence", r"\bpersistence\b", "the last channel seen stands for all that follow."),
    ("ridge (AR)", r"ridge \(AR\)", "an autoregression with a ridge penalty, fitted to each sample's own history."),
    ("GRU", r"\bGRU\b", "gated recurrent unit, a small recurrent network."),
    ("horizon", r"\bhorizons?\b", "how many snapshots ahead a channel is predicted."),
    ("SSTA, sparse attention", r"\bSSTA\b|sparse attention", "attention to the neighbourhood in angle, delay and time only."),
    ("AP, average precision", r"average precision", "area under the curve of precision over recall: 1 is perfect, the share of "
     "occupied cells is chance."),
    ("silhouette", r"silhouettes?\b", "how well groups are separated: 1 well, 0 not, below 0 mixed up."),
    ("t-SNE", r"t-SNE", "a picture of many-dimensional features in a plane that keeps neighbours together."),
    ("sum-rate", r"sum-rate", "bits per second and hertz that all streams have together; exhaustive search tries every beam."),
    ("CPU, GPU", r"\b[CG]PU\b", "a computer's main and graphics processor."),
    ("U-Net", r"\bU-Net\b", "a convolutional network that sees a map at several resolutions."),
    ("kriging, radial basis functions", r"\bkriging\b|radial basis functions", "interpolation between known places: by a "
     "covariance that is fitted to them, and by functions of the distance to them."),
    ("RMSE", r"\bRMSE\b", "root mean square error."),
    ("ONNX", r"\bONNX\b", "a file format for networks that other programs can run."),
    ("KL", r"\bKL\b", "Kullback-Leibler divergence, a distance of two distributions."),
    ("dB", r"\bdB\b", "decibel: ten times the logarithm of a ratio of powers; 3 dB are a factor of two."),
    ("ODbL", r"\bODbL\b", "Open Database License, that of OpenStreetMap."),
)  # fmt: skip


def small_pretraining(summary: Summary) -> str:
    """What makes a pretraining too small for verdicts on its model; empty where it is large enough."""
    needed = needed_users(summary)
    return "" if summary["train_users"] >= needed else f"pretrained on {summary['train_users']:,} of {needed:,} users"


def needed_users(summary: Summary) -> int:
    """Training users that verdicts on a pretrained model need: so many for each beam that the array can form."""
    geometry = summary.get("geometry")
    beams = geometry["columns"] * geometry["rows"] if geometry else summary["grid"][1]
    return PER_BEAM * int(beams)


def first_screen(
    summary: Summary,
    cities: str,
    outcomes: Mapping[str, Outcome],
    missing: Mapping[str, Missing],
    judged: Sequence[Judged],
    paper: Paper,
) -> dict[str, object]:
    """What stands above everything else in the page, of a run's `pretrain.json`, its results and judged claims.

    `sentences` (three), `counts` (verdict and number, for those that occur), `notes` (tasks without results that were
    to have some), `small` (whether it is too small for any verdict that it would else have).
    """
    counts = Counter(item.verdict for item in judged)
    return {
        "sentences": [
            _trained(summary, cities, outcomes, paper),
            _shows(judged, counts),
            _cannot_show(summary, outcomes, counts),
        ],
        "counts": [(name, counts[name]) for name in get_args(Verdict) if counts[name]],
        "small": counts["too small to tell"] > 0,
        "notes": [f"{task}: {reason}" for task, reason in missing.items() if reason.why != "not run"],
    }


def _trained(summary: Summary, cities: str, outcomes: Mapping[str, Outcome], paper: Paper) -> str:
    seconds = summary["seconds"]
    time = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"
    tested = tested_users(outcomes)
    evaluated = f"; up to {tested:,} held-out users were tested" if tested else ""
    where = f" ({cities})" if cities else ""
    sizes = f" (the paper: {paper.sizes['users']} users, {paper.sizes['scenes']} scenes)" if paper.sizes_known else ""
    return (
        f"A model of {summary['parameters']:,} parameters was pretrained for {time} on "
        f"{count(summary['train_users'], 'user')} of {count(summary['train_scenes'], 'scene')}{where}, in "
        f"{count(summary['epochs'], 'epoch')}{evaluated}{sizes}."
    )


def tested_users(outcomes: Mapping[str, Outcome]) -> int:
    """Largest number of users that a value of any task is over."""
    tables = [outcome.listed for task, outcome in outcomes.items() if task not in NOT_USERS]
    return max((int(table["n"].max()) for table in tables if len(table)), default=0)


def _shows(judged: Sequence[Judged], counts: Mapping[Verdict, int]) -> str:
    if not counts["shown"] and not counts["contradicted"]:
        return (
            f"It shows that every step from map to report works; of {len(judged)} claims of the paper and questions of ours "
            "it decides none."
        )
    parts = []
    for word, verb in (("shown", "bears out"), ("contradicted", "contradicts")):
        items = [item for item in judged if item.verdict == word]
        if items:
            example = items[0].claim.text.rstrip(".")
            parts.append(f"{verb} {len(items)} ({'such as ' if len(items) > 1 else ''}“{example}”)")
    return f"Of {len(judged)} claims of the paper and questions of ours it {' and '.join(parts)}."


def _cannot_show(summary: Summary, outcomes: Mapping[str, Outcome], counts: Mapping[Verdict, int]) -> str:
    always = (
        "how the paper's own numbers would come out, nor how much another pretraining or other test scenes would change"
    )
    if not counts["too small to tell"]:
        return f"It cannot show {always}."
    seeds = max((int(outcome.frame["seed"].nunique()) for outcome in outcomes.values()), default=0)
    return (
        f"It cannot show {always}; and it is too small for {count(counts['too small to tell'], 'claim')}: a verdict needs "
        f"{SEEDS} seeds, {USERS} tested users and a pretraining on {needed_users(summary):,}; this run has {seeds}, "
        f"{tested_users(outcomes):,} and {summary['train_users']:,}."
    )


def glossary_of(page: str) -> list[tuple[str, str]]:
    """Terms that occur in a page's text, with what they mean."""
    text = re.sub(r"<style.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)
    return [(term, meaning) for term, pattern, meaning in TERMS if re.search(pattern, text)]

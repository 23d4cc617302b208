"""What the report says about wave equivariance: claims of the paper's abstract, questions of ours, and the table by set."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavecity.model.equivariance.measures import (
    COST,
    EPSILON,
    MODULATED,
    NAMES,
    OTHER,
    OWN,
    SCALE_EPSILON,
    SEEN,
    TRAINED_EPSILON,
    UNSEEN,
    WRAPPED,
    own_name,
)
from wavecity.model.report.claims import OURS, Claim, Judged, judge, rule
from wavecity.model.results.measures import Measured, plus_minus
from wavecity.model.results.outcomes import Outcome, count

TASK = "equivariance"
SOURCE = (
    "Physics Equivariance for Robust Generalization in Wireless Foundation Model, 2026, of which only the abstract was at "
    "hand: a channel that is modulated along time, frequency or space is a channel again, and what a model makes of it must "
    "be modulated alike. The equivariance error is the power by which it is not, over that of the output: 0 dB is as wrong "
    "as an output of its own, and shifts of whole bins are on the grid. The wrapped model takes the shift out before the "
    "network and puts it back behind it."
)
# dB; a direction without a stated size must exceed it [ours].
MARGIN = 0.5
RULE = rule(f"{MARGIN:g} dB")
RIVALS = (NAMES["vanilla"], NAMES["augmented"], NAMES["penalised"])
VANILLA = (NAMES["vanilla"],)

# Bounds for exactness, and readings of "fails to acquire" and "even with a large number" [ours], dB.
EXACT = {"float32": 50.0, "float64": 100.0}
INEXACT = 20.0
FAILED, ACQUIRED = 20.0, 40.0
SCALE_BUYS = 10.0
# Per cent of a forward pass.
CHEAP, DEAR = 10.0, 50.0

Sets = Callable[[Outcome], list[str]]


def _this(name: str) -> Sets:
    return lambda outcome: [name]


def others(outcome: Outcome) -> list[str]:
    """Sets in which something other than the scenes is changed."""
    return [name for name in outcome.conditions(outcome.facts["quantity"]) if name.startswith(OTHER)]


def _values(outcome: Outcome, quantity: str, condition: str, method: str) -> NDArray[np.float64] | None:
    """Values (X, K) by x, if anything is swept, and seed; None where the method was not run."""
    curve = outcome.curve(quantity, condition, method)
    return None if curve is None else curve.values


def _all(outcome: Outcome, quantity: str, method: str, ending: str = "") -> NDArray[np.float64] | None:
    """Values (conditions and x, K) under all conditions that end so."""
    names = [name for name in outcome.conditions(quantity) if name.endswith(ending)]
    found = [value for name in names if (value := _values(outcome, quantity, name, method)) is not None]
    return np.concatenate(found) if found else None


def ahead(sets: Sets, rivals: Sequence[str] = RIVALS) -> Callable[[Outcome], Measured | None]:
    """Measure by how many dB the wrapped model's error is lower: in the set and against the rival where it is least."""

    def measure(outcome: Outcome) -> Measured | None:
        quantity = outcome.facts["quantity"]
        found = []
        for name in sets(outcome):
            own = _values(outcome, quantity, name, WRAPPED)
            for rival in rivals:
                other = _values(outcome, quantity, name, rival)
                if own is not None and other is not None:
                    found.append((other[-1] - own[-1], own[-1], other[-1], name, rival))
        if not found:
            return None
        gains, own, other, name, rival = min(found, key=lambda entry: float(entry[0].mean()))
        text = f"gain {plus_minus(gains)} dB ({WRAPPED} {plus_minus(own)}, {rival} {plus_minus(other)} dB)"
        return Measured(gains, text, _samples(outcome, name, len(gains)), int(outcome.facts["sets"][name]))

    return measure


def own_ahead(outcome: Outcome) -> Measured | None:
    """Measure what the wrapper gives the run's own model, without training, where channels are modulated."""
    quantity = own_name(outcome.facts["quantity"])
    wrapped, plain = (_values(outcome, quantity, MODULATED, name) for name in (WRAPPED, OWN))
    if wrapped is None or plain is None:
        return None
    gains = plain[0] - wrapped[0]
    text = f"gain {plus_minus(gains)} dB ({WRAPPED} {plus_minus(wrapped[0])}, {OWN} {plus_minus(plain[0])} dB)"
    return Measured(gains, text, _samples(outcome, MODULATED, 1), int(outcome.facts["sets"][MODULATED]))


def gap(outcome: Outcome) -> Measured | None:
    """Measure by how much smaller the wrapped model's loss is from seen to unseen scenes, than vanilla's, dB."""
    quantity = outcome.facts["quantity"]
    found = [_values(outcome, quantity, name, method) for method in (VANILLA[0], WRAPPED) for name in (UNSEEN, SEEN)]
    values = [value[-1] for value in found if value is not None]
    if len(values) < len(found):
        return None
    rival, own = values[0] - values[1], values[2] - values[3]
    text = f"unseen less seen: {VANILLA[0]} {plus_minus(rival)} dB, {WRAPPED} {plus_minus(own)} dB"
    return Measured(rival - own, text, _samples(outcome, UNSEEN, len(own)), int(outcome.facts["sets"][UNSEEN]))


def exact(quantity: str, precision: str = "") -> Callable[[Outcome], Measured | None]:
    """Measure how far below 0 dB the wrapped model's largest equivariance error is, over axes and shifts."""

    def measure(outcome: Outcome) -> Measured | None:
        values = _all(outcome, quantity, WRAPPED, precision)
        if values is None:
            return None
        worst = values.max(0)
        rival = _all(outcome, quantity, OWN if precision else VANILLA[0], precision)
        beside = "" if rival is None else f"; {OWN if precision else VANILLA[0]} {plus_minus(rival.max(0))} dB"
        text = f"largest error {plus_minus(worst)} dB{beside}"
        users = f"{outcome.facts['shift_users']} users · {count(len(values), 'shift')} · {count(len(worst), 'seed')}"
        return Measured(-worst, text, users)

    return measure


def fails(outcome: Outcome) -> Measured | None:
    """Measure by how much the vanilla model's largest error over the shifts is above that of an equivariant one."""
    values = _all(outcome, TRAINED_EPSILON, VANILLA[0])
    if values is None:
        return None
    worst = values.max(0)
    samples = f"{outcome.facts['reference']} · {count(len(values), 'shift')} · {count(len(worst), 'seed')}"
    return Measured(worst + FAILED, f"largest error {plus_minus(worst)} dB", samples)


def scale_buys(outcome: Outcome) -> Measured | None:
    """Measure by how much less than it takes the vanilla model's error falls, from small to large and from few to many."""
    sizes = [curve for name in outcome.conditions(SCALE_EPSILON)
             if (curve := outcome.curve(SCALE_EPSILON, name, VANILLA[0])) is not None]  # fmt: skip
    if not sizes:
        return None
    # The largest size comes first, with all numbers of users; the others in ascending order.
    largest = sizes[0].values
    drops = [largest[0] - largest[-1]] if len(largest) > 1 else []
    drops += [sizes[1].values[-1] - largest[-1]] if len(sizes) > 1 else []
    if not drops:
        return None
    text = f"falls by {' and '.join(plus_minus(drop) for drop in drops)} dB"
    which = " and ".join(["users"] * (len(largest) > 1) + ["sizes"] * (len(sizes) > 1))
    best = max(drops, key=lambda drop: float(drop.mean()))
    return Measured(SCALE_BUYS - best, text, f"over {which} · {count(len(best), 'seed')}")


def cost(outcome: Outcome) -> Measured | None:
    """Measure what the wrapper adds to a forward pass, per cent, as a gain below 0."""
    values = _all(outcome, COST, WRAPPED)
    if values is None:
        return None
    frame = outcome.frame[outcome.frame["quantity"] == COST]
    text = f"{values[0, 0]:.1f} % of a forward pass"
    return Measured(-values[0], text, f"{int(frame['n'].iloc[0])} calls each · {frame['condition'].iloc[0]}")


def _samples(outcome: Outcome, name: str, seeds: int) -> str:
    return f"{outcome.facts['sets'][name]:,} users · {name} · {count(seeds, 'seed')}"


CLAIMS: tuple[Claim, ...] = (
    Claim("equivariance-vanilla", "", "abstract",
          "A vanilla model fails to acquire the equivariance.",
          "largest error over the shifts along all axes at once, largest size and most users; "
          f"above -{FAILED:g} dB counts as failed, below -{ACQUIRED:g} dB is the opposite", TASK, fails, 0.0, FAILED - ACQUIRED,
          users=0),
    Claim("equivariance-scale", "", "abstract", "More parameters and training users do not change that.",
          f"the error of random shifts falls by less than {SCALE_BUYS:g} dB from the smallest to the largest size, and from "
          "the fewest to the most users; the greater fall counts", TASK, scale_buys, 0.0, -SCALE_BUYS, users=0),
    Claim("equivariance-wrapped", "", "abstract",
          "The model with the equivariance built in has it: trained in the wrapper, float32.",
          f"dB below 0 of the largest error over the shifts; at least {EXACT['float32']:g}, less than {INEXACT:g} is the "
          "opposite", TASK, exact(TRAINED_EPSILON), EXACT["float32"], INEXACT, users=0),
    *(Claim(f"equivariance-{precision}", "", OURS,
            "The run's own model has it too once it is wrapped, on and off the grid, without training: channels and wrapper "
            f"in {precision}, the network as it was trained.",
            f"dB below 0 of the largest error over axes and shifts; at least {bound:g}, less than {INEXACT:g} is the opposite",
            TASK, exact(EPSILON, precision), bound, INEXACT, 1, 0)
      for precision, bound in EXACT.items()),
    Claim("equivariance-unseen", "", "abstract", "It generalises better to unseen scenes.",
          "dB over the best of vanilla, augmented and penalised", TASK, ahead(_this(UNSEEN)), MARGIN, -MARGIN),
    Claim("equivariance-modulated", "", "abstract", "It is more robust where every channel is shifted.",
          "dB over the best of the same, unseen scenes, each user modulated at random", TASK, ahead(_this(MODULATED)),
          MARGIN, -MARGIN),
    Claim("equivariance-other", "", "abstract", "It generalises better where panel, carrier or speeds are other too.",
          "dB over the best of the same, in the set where it is least", TASK, ahead(others), MARGIN, -MARGIN),
    Claim("equivariance-gap", "", OURS, "It loses less from seen to unseen scenes than the vanilla model.",
          "dB by which the loss is smaller", TASK, gap, MARGIN, -MARGIN),
    Claim("equivariance-seen", "", OURS, "Where nothing is shifted it is no worse than the vanilla model.",
          f"dB in seen scenes; more than {MARGIN:g} dB worse is the opposite", TASK, ahead(_this(SEEN), VANILLA), -MARGIN,
          -MARGIN),
    Claim("equivariance-own", "", OURS, "The wrapper helps the run's own model where channels are shifted, without training.",
          "dB, unseen scenes, each user modulated at random; one draw", TASK, own_ahead, MARGIN, -MARGIN, 1),
    Claim("equivariance-cost", "", OURS, "The wrapper costs little.",
          f"per cent of a forward pass; less than {CHEAP:g} % counts, more than {DEAR:g} % is the opposite", TASK, cost,
          -CHEAP, -DEAR, 1, 0),
)  # fmt: skip


def judged(outcome: Outcome) -> list[Judged]:
    """All claims, by the rule."""
    return [judge(claim, {TASK: outcome}) for claim in CLAIMS]


def table_of(outcome: Outcome) -> dict[str, Any]:
    """Errors by set and method, mean and deviation over the seeds, with verdicts, and what they come to in one sentence."""
    quantity = outcome.facts["quantity"]
    rows = [row for row in outcome.result["rows"] if row["quantity"] == quantity]
    methods = [name for name in NAMES.values() if any(name in row["values"] for row in rows)]
    table = []
    for row in rows:
        known = {name: value for name, value in row["values"].items() if np.isfinite(value)}
        cells = []
        for name in methods:
            value, spread = known.get(name), row["spread"].get(name)
            around = "" if spread is None else f" ± {spread:.1f}"
            cells.append({"text": "-" if value is None else f"{value:.1f}{around}",
                          "best": value is not None and value == min(known.values())})  # fmt: skip
        users = outcome.facts["sets"][row["condition"]]
        table.append({"set": row["condition"], "users": users, "cells": cells, "verdict": row["verdict"]})
    return {
        "quantity": quantity,
        "condition": f"{outcome.facts['reference']}; mean ± standard deviation over "
        f"{count(outcome.facts['head_seeds'], 'seed')}; what is unseen are {outcome.facts['unseen_are']}",
        "methods": methods,
        "table": table,
        "sentence": _sentence([row["verdict"] for row in table]),
    }


def _sentence(verdicts: list[str]) -> str:
    """Count the sets in which the wrapped model is ahead of the best other one; nothing where none is compared."""
    counts = {word: sum(text.startswith(word) for text in verdicts) for word in ("ahead", "level", "behind")}
    total = sum(counts.values())
    if not total:
        return ""
    told = ", ".join(f"{word} in {number}" for word, number in counts.items() if number)
    return f"Against the best of the others, the wrapped model is {told} of {count(total, 'test set')}."

"""The benchmark for one encoder: every task once, into one results file that goes on where it ended."""

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from wavecity.dataset import InputError
from wavecity.dataset.files import read_json, write_json
from wavecity.dataset.progress import stage
from wavecity.model.benchmark.encoder import Encoder, Frozen, load_encoder, parameters_of
from wavecity.model.benchmark.examples import OurRun
from wavecity.model.benchmark.names import is_encoder_name
from wavecity.model.benchmark.protocol import Protocol, shipped_protocol
from wavecity.model.benchmark.tasks import RUN
from wavecity.model.data.json_types import Json
from wavecity.model.data.users import WirelessData, collate, load_data
from wavecity.model.results.measures import deviation
from wavecity.model.results.records import WHOLE, Record
from wavecity.model.training.pretrain import package_versions

log = logging.getLogger(__name__)

# Of results files; others are refused.
FORM = 2
# Test users whose embeddings tell one encoder from another, directions they are projected on, and how far numbers that
# should be equal may differ, over their RMS.
USERS, DIRECTIONS, EQUAL = 4, 4, 1e-2


def benchmark(
    encoder: Encoder | str | Path,
    store: str,
    tasks: Sequence[str] | None = None,
    out: str | Path | None = None,
    *,
    protocol: Protocol | None = None,
    name: str | None = None,
    overwrite: bool = False,
    data: WirelessData | None = None,
) -> Json:
    """Train heads on the frozen features of an encoder and measure them on the downstream tasks.

    Users, visible antennas, noise, labels, heads and seeds are those of our own models' evaluation, as the benchmark says.

    Parameters
    ----------
    encoder : object with `embed(batch)`, or str
        See `wavecity.model.benchmark.encoder`; as text `package.module:name`, or a run (what `wavecity.load` takes).
    store : str
        Folder or URL of a dataset.
    tasks : sequence of str, optional
        By default all of the benchmark.
    out : path, optional
        Results file, JSON. Tasks that it holds are not run again.
    protocol : Protocol, optional
        By default the benchmark that comes with Wavecity.
    name : str, optional
        What results and tables call the encoder; by default that of its class or run.
    overwrite : bool
        Replace results of another encoder, benchmark or dataset in `out`.
    data : WirelessData, optional
        Instead of opening `store`.

    Returns
    -------
    dict
        What the file holds: `encoder`, `benchmark`, `dataset` and, by task, `figures` with their values by seed.

    Raises
    ------
    InputError
        The encoder cannot be imported, or returns something of another shape or that is not finite; the dataset is another
        one than the benchmark's; `out` holds results of something else.

    Examples
    --------
    >>> class Level:
    ...     def embed(self, batch):
    ...         return 20 * np.log10(np.abs(batch.csi).max((1, 2)) + 1e-30)[:, None]
    >>> found = benchmark(Level(), "stores/six", ["localization"])  # doctest: +SKIP
    >>> found["tasks"]["localization"]["figures"][0]["mean"]  # doctest: +SKIP
    31.2
    """
    protocol = protocol or shipped_protocol()
    wanted = list(protocol.tasks if tasks is None else tasks)
    if unknown := [task for task in wanted if task not in protocol.tasks]:
        raise InputError(f"task {unknown[0]}: benchmark {protocol.name} has {', '.join(protocol.tasks)}")
    given = str(encoder) if isinstance(encoder, str | Path) else type(encoder).__name__
    found = _encoder_of(encoder) if isinstance(encoder, str | Path) else encoder
    data = data or load_data(str(store))
    protocol.check_cities(data)
    marks = _marks(Frozen(found, given, data, protocol.csi_patch), protocol)
    result: Json = {
        "form": FORM,
        "encoder": {
            "name": name or _short(given),
            "given_as": given,
            "parameters": parameters_of(found),
            "marks": marks,
        },
        "benchmark": {"name": protocol.name, "version": protocol.version, "sha256": protocol.sha256},
        "dataset": {
            "channels_sha256": data.channels_sha256,
            "fingerprint": data.version,
            "manifest_sha256": data.attributes.get("manifest", ""),
            "recipe": data.attributes.get("recipe", {}).get("name", ""),
            "attribution": data.attributes.get("attribution", ""),
        },
        "versions": package_versions(),
        "tasks": {},
    }
    if out is not None:
        result["tasks"] = {} if overwrite else _held(Path(out), result)
    for task in wanted:
        if task in result["tasks"]:
            log.info("%s: %s is there", out, task)
            continue
        # A new one: tasks show other numbers of antennas, on which the size of an embedding may depend.
        frozen = Frozen(found, given, data, protocol.csi_patch)
        started = time.perf_counter()
        with stage(f"{task}: {result['encoder']['name']}"), torch.random.fork_rng(devices=[]):
            findings = RUN[task](frozen, protocol.evaluation, protocol.seed)
        seconds = round(time.perf_counter() - started, 1)
        result["tasks"][task] = {
            "seconds": seconds,
            "width": frozen.width,
            "figures": figures(findings.records),
            "facts": findings.facts,
        }
        if out is not None:
            write_json(Path(out), result)
    return result


def _encoder_of(name: str | Path) -> Encoder:
    return load_encoder(str(name)) if is_encoder_name(str(name)) else OurRun(name)


def _short(given: str) -> str:
    """The last part of `package.module:name` or of a path."""
    return given.rpartition(":")[2] if is_encoder_name(given) else Path(given).name


def _marks(frozen: Frozen, protocol: Protocol) -> list[float]:
    """Some numbers that tell an encoder from others: projections of a few users' embeddings."""
    samples = frozen.data.splits["test"]
    users = collate(samples.__getitems__(list(range(min(USERS, len(samples))))))
    shown = frozen.pilots(protocol.evaluation.localization.csi, protocol.seed)
    features = frozen.features(users, shown, torch.zeros(len(users), dtype=torch.float64)).double().numpy()
    directions = np.random.default_rng(0).standard_normal((features.shape[1], DIRECTIONS)) / math.sqrt(
        features.shape[1]
    )
    return [float(f"{one:.6g}") for one in (features @ directions).ravel()]


def _held(out: Path, result: Json) -> Json:
    """Finished tasks of a results file, empty where there is none; refuses those of something else."""
    if not out.exists():
        return {}
    held = read_json(out)
    remedy = "name another --out, or replace it with --overwrite"
    if not isinstance(held, dict) or held.get("form") != FORM:
        raise InputError(f"{out}: no results of this version's benchmark; {remedy}")
    for part, key in (
        ("benchmark", "sha256"),
        ("dataset", "channels_sha256"),
        ("encoder", "given_as"),
        ("encoder", "name"),
    ):
        if held[part][key] != result[part][key]:
            old, new = (str(one[part][key])[:40] for one in (held, result))
            raise InputError(f"{out} holds results of another {part} ({key} {old}, here {new}); {remedy}")
    marks = [np.array(one["encoder"]["marks"]) for one in (held, result)]
    if len(marks[0]) != len(marks[1]) or np.abs(marks[0] - marks[1]).max() > EQUAL * np.sqrt(
        np.square(marks[0]).mean()
    ):
        raise InputError(f"{out} holds results of another encoder of this name, which gives other embeddings; {remedy}")
    return dict(held["tasks"])


def figures(records: Sequence[Record]) -> list[Json]:
    """Values over all scenes as JSON: mean, standard deviation over the seeds of the heads, and the values by seed."""
    found: dict[tuple[str, str, float | None], list[Record]] = {}
    for record in records:
        if record.condition == WHOLE:
            x = None if math.isnan(record.x) else record.x
            found.setdefault((record.metric, record.method, x), []).append(record)
    return [
        {
            "metric": metric,
            "method": method,
            "labels": x,
            "unit": group[0].metric.unit,
            "better": group[0].metric.better,
            "mean": float(np.mean([one.value for one in group])),
            "deviation": deviation(np.array([one.value for one in group])),
            "values": {str(one.seed): one.value for one in group},
            "n": group[0].n,
        }
        for (metric, method, x), group in found.items()
    ]

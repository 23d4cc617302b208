"""Records of an evaluation: one measured value each, kept in `results/<task>.parquet`.

The columns are those of `SCHEMA`, with a description each; names are those of `wavecity.model.results.names`.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wavecity.dataset import InputError
from wavecity.dataset.files import atomic_path
from wavecity.model.results.names import Method, Metric, TestSet

# What tasks say besides records: JSON-ready facts, and arrays for figures.
Facts = dict[str, Any]
Arrays = dict[str, NDArray[Any]]
# Of the table; a reader refuses another.
FORM = "2"
_FORM_KEY = b"wavecity_results"


@dataclass(frozen=True)
class Condition:
    """What was held fixed; None where it does not apply."""

    scene: Annotated[str | None, "scene that the users stand in; null for all"] = None
    user_kind: Annotated[str | None, "walker, cyclist or vehicle; or line of sight, reflected or diffracted only"] = (
        None
    )
    test_set: Annotated[
        TestSet | None, "test users of `equivariance`: seen, unseen, modulated, vehicles or shifted"
    ] = None
    shifted: Annotated[str | None, "name of a shifted set, as in the recipe"] = None
    horizon: Annotated[int | None, "snapshots ahead"] = None
    csi_masked: Annotated[float | None, "share of the CSI that is hidden"] = None
    scene_masked: Annotated[float | None, "share of the height patches that is hidden"] = None
    hidden_layers: Annotated[
        str | None, "widths of the head's hidden layers, joined by `-`, or `none`; null where it is not varied"
    ] = None
    learning_rate: Annotated[float | None, "learning rate, where it is varied and not chosen"] = None
    shift_axis: Annotated[str | None, "axis along which channels are shifted, or `all`"] = None
    on_grid: Annotated[bool | None, "whether shifts are whole bins; null where they are random"] = None
    precision: Annotated[str | None, "of channels and wrapper: float32 or float64"] = None
    width: Annotated[int | None, "width of the model, where it is varied"] = None
    layers: Annotated[int | None, "layers of the model, where it is varied"] = None
    batch: Annotated[int | None, "users in a timed forward pass"] = None
    threads: Annotated[int | None, "CPU threads of a timed inference"] = None
    region: Annotated[float | None, "share of the model's mixture that a stated region holds"] = None
    disturbed: Annotated[str | None, "what is wrong on purpose in map, panel, heights or noise; null for nothing"] = (
        None
    )

    def fits(self, **wanted: object) -> bool:
        """Whether all these fields have these values; of a tuple, any."""
        return all(
            getattr(self, name) in (value if isinstance(value, tuple) else (value,)) for name, value in wanted.items()
        )


WHOLE = Condition()


@dataclass(frozen=True)
class Record:
    """One measured value.

    Attributes
    ----------
    value : float
        In the metric's unit.
    seed : int
        Of the head; of the evaluation where nothing is trained.
    n : int
        Users, clusters or calls that the value is over.
    x : float
        Place on the metric's axis; not-a-number for a method that has none, e.g. takes no labels.
    paths : int, optional
        Paths that a pursuit may use.

    Examples
    --------
    >>> record = Record(Metric.SU_RATE, Method.PHYSC_PROBE, 12.5, seed=0, n=300, x=0.1)
    >>> record.metric.unit, record.metric.axis.value, record.method.regime.value
    ('bit/s/Hz', 'label_share', 'frozen')
    """

    metric: Metric
    method: Method
    value: float
    seed: int
    n: int
    x: float = math.nan
    condition: Condition = WHOLE
    paths: int | None = None


@dataclass(frozen=True)
class Findings:
    """What a task gives."""

    records: list[Record]
    facts: Facts = field(default_factory=dict)  # Sample sizes, checks, chosen settings; JSON-ready
    arrays: Arrays = field(default_factory=dict)  # What only the figures need


_TYPES = {str: pa.string(), TestSet: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
_CONDITION = {name: get_args(hint) for name, hint in get_type_hints(Condition, include_extras=True).items()}
_COLUMNS: tuple[tuple[str, pa.DataType, str], ...] = (
    ("task", pa.string(), "evaluation task, as in `wavecity evaluate --task`"),
    ("metric", pa.string(), "what is measured, e.g. `location_error`"),
    ("method", pa.string(), "what is compared, e.g. `physc_mlp`"),
    ("regime", pa.string(), "how the method came by what it knows: pretrained, frozen (a head on the frozen model), fine_tuned, "
     "from_scratch, random (a head on random weights), supervised (trained without the model), untrained"),
    ("axis", pa.string(), "what x is: labels, label_share, shift_bins or training_users; null where x is"),
    ("x", pa.float64(), "number of labels, share of them, shift in bins or number of training users; null where nothing is swept "
     "or the method takes none"),
    ("seed", pa.int64(), "of the head, or of the evaluation where nothing is trained"),
    ("value", pa.float64(), "what was measured, in `unit`"),
    ("unit", pa.string(), "dB, m, %, °, bit/s/Hz, ms; empty for a pure number"),
    ("better", pa.string(), "`lower` or `higher`"),
    ("n", pa.int64(), "users, clusters or calls that the value is over"),
    ("paths", pa.int64(), "paths that orthogonal matching pursuit may use"),
    *((name, _TYPES[get_args(kind)[0]], text) for name, (kind, text) in _CONDITION.items()),
    ("checkpoint", pa.string(), "fingerprint of the pretraining"),
    ("data_version", pa.string(), "fingerprint of the dataset version that was evaluated on"),
)  # fmt: skip
SCHEMA = pa.schema(
    [pa.field(name, kind, metadata={"description": text}) for name, kind, text in _COLUMNS], metadata={_FORM_KEY: FORM}
)
# Columns whose values are names.
_NAMES: Mapping[str, type[StrEnum]] = {"metric": Metric, "method": Method, "test_set": TestSet}


def write_records(path: Path, records: Iterable[Record], task: str, checkpoint: str, data_version: str) -> None:
    """Write a table of records, whole or not at all; with fingerprints of the pretraining and of the dataset version."""
    shared = {"task": task, "checkpoint": checkpoint, "data_version": data_version}
    lines = [shared | _line(record) for record in records]
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(lines, schema=SCHEMA), temporary)


def read_records(path: Path, task: str) -> list[Record]:
    """Read a table of records.

    Parameters
    ----------
    task : str
        For the error's remedy.

    Raises
    ------
    InputError
        The file was written by another version.
    """
    table = pq.read_table(path)
    try:
        if (table.schema.metadata or {}).get(_FORM_KEY, b"").decode() != FORM:
            raise ValueError
        return [_record(line) for line in table.to_pylist()]
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{path}: results in the form of another version of Wavecity; evaluate again: wavecity evaluate RUN --task {task} "
            "--data STORE"
        ) from error


def _line(record: Record) -> Facts:
    """Line of a table, but for what all of them have in common."""
    values = asdict(record)
    metric, swept = record.metric, not math.isnan(record.x)
    said = {"unit": metric.unit, "better": metric.better, "regime": record.method.regime}
    return values.pop("condition") | values | said | ({"axis": metric.axis} if swept else {"axis": None, "x": None})


def _record(line: Facts) -> Record:
    """Record of one line of a table."""
    named = {name: kind(line[name]) for name, kind in _NAMES.items() if line[name] is not None}
    line = line | named | {"x": math.nan if line["x"] is None else line["x"]}
    own = {one.name: line[one.name] for one in fields(Record) if one.name != "condition"}
    return Record(**own, condition=Condition(**{name: line.get(name) for name in _CONDITION}))

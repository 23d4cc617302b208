"""Records: their names, their file, and the rows and verdicts made of them."""

import math
import statistics
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from wavecity.dataset import InputError
from wavecity.model.results.names import Axis, Method, Metric, Regime, TestSet
from wavecity.model.results.outcomes import read_outcomes
from wavecity.model.results.records import SCHEMA, WHOLE, Condition, Record, read_records, write_records
from wavecity.model.results.rows import Row, frame_of, rows_of
from wavecity.model.results.words import condition_of, in_words, name_of, place_of, verdict_of

MODEL, CNN, KNN = Method.PHYSC_MLP, Method.RAW_CNN, Method.KNN


def record(method, seed, value, x=math.nan):
    return Record(Metric.LOCATION_ERROR, method, value, seed, 10, x)


def test_rows_are_means_and_spreads_over_the_seeds():
    values = {10.0: (4.0, 5.0, 9.0), 100.0: (1.0, 2.0, 3.0)}
    records = [record(MODEL, seed, value, x) for x, of in values.items() for seed, value in enumerate(of)]
    records += [record(KNN, 0, 7.0), record(CNN, 0, 8.0, 10.0)]
    rows = rows_of(frame_of(records))
    assert [row.x for row in rows] == [10.0, 100.0]
    for row in rows:
        assert row.values[MODEL] == pytest.approx(statistics.mean(values[row.x]))
        assert row.spread[MODEL] == pytest.approx(statistics.stdev(values[row.x]))
        # Without labels: in the row of every number of them; one value has no spread.
        assert row.values[KNN] == 7.0
        assert KNN not in row.spread
        assert type(row.metric) is Metric
        assert all(type(method) is Method for method in row.values)
    assert rows[0].values[CNN] == 8.0
    assert CNN not in rows[1].values


@pytest.mark.parametrize(
    ("values", "metric", "verdict"),
    [
        ({Method.MODEL: -20.0, Method.OMP: -10.0, Method.ZEROS: 0.0}, Metric.CSI_NMSE, "ahead of OMP, 16 paths"),
        ({Method.MODEL: 50.0, Method.ZERO_FILLED: 83.0}, Metric.DIRECTION_TOP5, "behind zero-filled DFT"),
        ({Method.MODEL: 99.0, Method.ZERO_FILLED: 100.0}, Metric.DIRECTION_TOP5, "level with zero-filled DFT"),
        ({MODEL: math.nan, CNN: 3.0}, Metric.LOCATION_ERROR, "not measured"),
        ({Method.MODEL: 1.0}, Metric.CSI_NMSE, "not compared"),
        ({Method.PHYSC_PROBE: 9.0, Method.RAW_PROBE: 5.0, Method.EXHAUSTIVE_SEARCH: 10.0}, Metric.MU_RATE,
         "ahead of raw CSI, linear probe"),
    ],
)  # fmt: skip
def test_verdicts(values, metric, verdict):
    assert verdict_of(Row(metric, WHOLE, values).compare(), 16) == verdict


def test_a_gap_within_the_spread_is_no_lead():
    values = {MODEL: 10.0, CNN: 12.0}
    assert Row(Metric.LOCATION_ERROR, WHOLE, values, spread={MODEL: 0.5, CNN: 0.5}).compare().place == "ahead"
    assert Row(Metric.LOCATION_ERROR, WHOLE, values, spread={MODEL: 2.0, CNN: 1.0}).compare().place == "level"


RECORDS = [
    Record(Metric.MU_RATE, Method.PHYSC_HEAD, 3.5, 1, 12, 0.2, Condition(hidden_layers="32-32", learning_rate=1e-3)),
    Record(Metric.CSI_NMSE, Method.OMP, -4.0, 7, 48, condition=Condition(csi_masked=0.94), paths=16),
    Record(Metric.FORECAST_NMSE, Method.WRAPPED, -6.0, 0, 5, condition=Condition(test_set=TestSet.SHIFTED, shifted="azimuth")),
    Record(Metric.EQUIVARIANCE_ERROR, Method.WRAPPED_PRETRAINED, -130.0, 0, 5, 0.5,
           Condition(shift_axis="all", on_grid=False, precision="float32")),
    Record(Metric.PREDICTION_NMSE, Method.RIDGE, -3.0, 0, 24, condition=Condition(user_kind="walker", horizon=4)),
    Record(Metric.REGION_HELD, Method.MODEL, 88.0, 0, 24, condition=Condition(region=0.9, disturbed="footprints 1 m off")),
]  # fmt: skip


def test_a_file_of_records_is_read_as_it_was_written_and_says_what_it_is(tmp_path):
    path = tmp_path / "t.parquet"
    write_records(path, RECORDS, "mu-mimo", "of a checkpoint", "of a dataset")
    again = read_records(path, "mu-mimo")
    assert again == [*RECORDS[:1], *again[1:]]
    # x is not a number where nothing is swept, and not-a-number equals nothing.
    assert [str(one) for one in again] == [str(one) for one in RECORDS]
    frame = pd.read_parquet(path)
    assert list(frame.columns) == SCHEMA.names
    first = frame.iloc[0]
    assert (first["task"], first["checkpoint"], first["data_version"]) == ("mu-mimo", "of a checkpoint", "of a dataset")
    assert (first["unit"], first["better"], first["axis"], first["regime"]) == (
        "bit/s/Hz", "higher", "label_share", "frozen",
    )  # fmt: skip
    assert frame["x"].isna().tolist() == [False, True, True, False, True, True]
    assert frame["axis"].isna().tolist() == frame["x"].isna().tolist()
    described = pq.read_schema(path)
    assert all(described.field(name).metadata[b"description"] for name in SCHEMA.names)


def test_tables_of_before_a_column_was_there_are_read(tmp_path):
    path = tmp_path / "t.parquet"
    write_records(path, RECORDS[:5], "mu-mimo", "c", "v")
    pq.write_table(pq.read_table(path).drop_columns(["region", "disturbed"]), path)
    assert [str(one) for one in read_records(path, "mu-mimo")] == [str(one) for one in RECORDS[:5]]


def test_every_column_is_a_field_and_every_field_a_column():
    fields = set(Record.__dataclass_fields__) - {"condition"} | set(Condition.__dataclass_fields__)
    derived = {"unit", "better", "axis", "regime"}
    assert set(SCHEMA.names) == fields | derived | {"task", "checkpoint", "data_version"}


@pytest.mark.parametrize("damage", ["older form", "another form", "unknown metric"])
def test_a_table_of_another_version_is_refused_in_one_line_that_says_to_evaluate_again(tmp_path, damage):
    path = tmp_path / "results" / "mu-mimo.parquet"
    path.parent.mkdir()
    write_records(path, RECORDS, "mu-mimo", "c", "v")
    table = pq.read_table(path)
    if damage == "older form":
        pd.DataFrame({"quantity": ["MU-MIMO sum-rate"], "value": [1.0]}).to_parquet(path)
    elif damage == "another form":
        pq.write_table(table.replace_schema_metadata({b"wavecity_results": b"1"}), path)
    else:
        names = ["mu_rates", *table["metric"].to_pylist()[1:]]
        pq.write_table(table.set_column(1, SCHEMA.field("metric"), [names]), path)
    path.with_suffix(".json").write_text('{"facts": {}}')
    with pytest.raises(
        InputError, match=r"mu-mimo\.parquet: .*; evaluate again: wavecity evaluate RUN --task mu-mimo"
    ) as error:
        read_outcomes(tmp_path)
    assert "\n" not in str(error.value)


# What is measured: renaming one breaks this list, and what reads results of before.
LISTED = """
hidden_location_p90 m lower              region_held % higher
csi_nmse dB lower                     path_angle_error ° lower              direction_top1 % higher
direction_top5 % higher               hidden_location_error m lower         occupancy_precision - higher
occupancy_f1 - higher                 csi_loss - lower                      location_loss - lower
occupancy_loss - lower                spectrum_loss - lower                 location_error m lower labels
cross_location_error m lower labels   silhouette - higher                   beam_top1 % higher label_share
beam_top5 % higher label_share        mu_rate bit/s/Hz higher label_share   receive_top2 % higher label_share
transmit_top2 % higher label_share    beam_pair % higher label_share        su_rate bit/s/Hz higher label_share
latency ms lower                      prediction_nmse dB lower label_share  prediction_median_nmse dB lower label_share
prediction_clean_nmse dB lower label_share                                  attention_factor × higher
equivariance_error dB lower shift_bins                                      trained_equivariance_error dB lower shift_bins
scale_equivariance_error dB lower training_users                            estimation_nmse dB lower
estimation_own_nmse dB lower          estimation_scale_nmse dB lower training_users
forecast_nmse dB lower                forecast_own_nmse dB lower            forecast_scale_nmse dB lower training_users
forward_time ms lower                 wrapper_cost % lower
radio_map_rmse dB lower               radio_map_mae dB lower
few_location_error m lower labels     few_nlos_accuracy % higher labels     few_beam_top1 % higher labels
"""
METHOD_REGIMES = {
    Regime.PRETRAINED: "model model_spectrum model_filled_csi model_location_head model_spectrum_beam model_pytorch "
    "model_torch_export model_onnx model_zero_shot physc wrapped_pretrained vanilla_pretrained",
    Regime.FROZEN: "physc_mlp physc_probe physc_head encoder",
    Regime.FINE_TUNED: "physc_fine_tuned model_fine_tuned",
    Regime.FROM_SCRATCH: "twin dense_twin wrapped vanilla augmented penalised",
    Regime.RANDOM: "untrained_mlp untrained_probe",
    Regime.SUPERVISED: "raw_cnn raw_probe raw_head dft_probe gru unet distance_fit",
    Regime.UNTRAINED: "raw waves physics knn knn_level knn_training mean_labelled mean_training neighbour_mean occupancy_prior "
    "prevalence all_occupied zeros zero_filled zero_filled_beam omp omp_beam omp_4_beam lmmse sbl sbl_beam ridge persistence "
    "first_guess exhaustive_search sparse_attention rbf kriging",
}


def test_the_names_are_these():
    entries = [entry.split() for line in LISTED.strip().splitlines() for entry in line.split("  ") if entry.strip()]
    listed = {name: (unit.strip("-"), better, *axis) for name, unit, better, *axis in entries}
    assert listed == {
        metric.value: (metric.unit, metric.better, *([metric.axis.value] if metric.axis else [])) for metric in Metric
    }
    assert all(metric.meaning and metric.label for metric in Metric)
    assert {regime: set(text.split()) for regime, text in METHOD_REGIMES.items()} == {
        regime: {method.value for method in Method if method.regime is regime} for regime in Regime
    }
    assert {one.value for one in Axis} == {"labels", "label_share", "shift_bins", "training_users"}
    assert {one.value for one in TestSet} == {"seen", "unseen", "modulated", "vehicles", "shifted"}


def test_the_documentation_lists_every_column_metric_and_method():
    page = (Path(__file__).parents[2] / "docs" / "records.md").read_text(encoding="utf-8")
    described = {name: SCHEMA.field(name).metadata[b"description"].decode() for name in SCHEMA.names}
    lines = [
        *(f"| `{name}` | {SCHEMA.field(name).type} | {text}" for name, text in described.items()),
        *(f"| `{name}` | {name.unit} | {name.better} | " for name in Metric),
        *(f"| `{name}` | {name.regime} | " for name in Method),
    ]
    assert [line for line in lines if line not in page] == []
    assert page.count("\n| `") == len(lines) + 3


def test_no_two_rows_of_a_table_read_the_same():
    titles = [metric.label for metric in Metric if metric is not Metric.FORECAST_NMSE]
    assert len(set(titles)) == len(titles)
    named = [method.label for method in Method if method is not Method.WRAPPED_PRETRAINED]
    assert len(set(named)) == len(named)
    assert Method.PHYSC_PROBE.ours
    assert not Method.EXHAUSTIVE_SEARCH.rival


def test_records_in_words():
    assert [condition_of(one.metric, one.condition) for one in RECORDS] == [
        "hidden 32-32, learning rate 0.001", "0.94 of the CSI masked", "unseen scenes, other azimuth",
        "all axes, off the grid, float32", "walker, horizon 4", "region of 90 %, wrong: footprints 1 m off",
    ]  # fmt: skip
    assert name_of(Method.OMP, 16) == "OMP, 16 paths"
    # A single label is one label, and a share of 1 is all of them.
    assert (place_of(Metric.LOCATION_ERROR, 1), place_of(Metric.MU_RATE, 1.0)) == ("1", "100 %")
    row = in_words(rows_of(frame_of(RECORDS[:1]))[0])
    assert row == {
        "quantity": "MU-MIMO sum-rate", "condition": "hidden 32-32, learning rate 0.001", "unit": "bit/s/Hz",
        "better": "higher", "x": 0.2, "over": "labels", "values": {"[PHYSC], head": 3.5}, "spread": {},
        "verdict": "not compared",
    }  # fmt: skip

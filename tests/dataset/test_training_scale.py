"""Pretraining on a store of a million users: memory that does not grow with it."""

import json
import time

import pytest
from processes import python
from synthetic_scale import Scale, build_units, make_plan

from wavecity.dataset.checks.validate import processes
from wavecity.dataset.draft import open_draft
from wavecity.dataset.finish import finish_draft
from wavecity.dataset.users import find_users

MILLION = Scale(scenes=5_000, cities=100, users=399, columns=4, rows=4)
LIMIT = 2 * 10**9

TRAIN = """
import json, re, sys, time
from pathlib import Path
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.training.pretrain import pretrain

def peak():
    # Linux hands the parent's ru_maxrss down to a new program; VmHWM starts anew.
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

settings = TrainingSettings.model_validate({
    "model": {"width": 8, "encoder_layers": 1, "decoder_layers": 1, "heads": 1, "csi_patch": 2, "height_patch": 10,
              "spectrum_map": 4, "spectrum_size": 4, "spectrum_channels": 4},
    "epochs": 1, "batch_size": 1024, "threads": 1, "accelerator": "cpu",
})
before, start = peak(), time.perf_counter()
pretrain(sys.argv[1], settings, Path(sys.argv[2]), seed=0)
print(json.dumps({"before": before, "peak": peak(), "seconds": time.perf_counter() - start}))
"""


@pytest.mark.heavy
@pytest.mark.skipif("sys.platform != 'linux'", reason="the peak is read from /proc")
def test_a_million_users_are_trained_on_within_two_gigabytes(tmp_path, capsys):
    start = time.perf_counter()
    draft = open_draft(tmp_path / "store", MILLION.fingerprint, MILLION.layout)
    with processes(2) as each:
        build_units(draft, MILLION, make_plan(MILLION), draft.missing(), each)
    finish_draft(draft, MILLION.attributes, {"map": {"name": "synthetic"}})
    built = time.perf_counter() - start
    users = sum(len(find_users(draft.folder, split, include_outage=True)) for split in ("train", "validation", "test"))
    assert users > 990_000
    figures = json.loads(python(TRAIN, draft.folder, tmp_path / "run").splitlines()[-1])
    summary = json.loads((tmp_path / "run" / "pretrain.json").read_text())
    with capsys.disabled():
        print(f"\n{users} users built in {built:.0f} s; {figures}; {summary['samples']} samples trained on")
    assert summary["samples"] == summary["train_users"] // 1024 * 1024
    assert figures["peak"] < LIMIT

"""A build goes on after damage to what it had finished, in one command; units come from the toy's generator."""

import json
import logging
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
from toy import ATTRIBUTES, make_layout, write_synthetic_unit

from wavecity.dataset.checks.findings import CheckFailed
from wavecity.dataset.checks.validate import validate
from wavecity.dataset.draft import load_draft, open_draft
from wavecity.dataset.finish import finish_draft, seal
from wavecity.dataset.reader import open_store
from wavecity.flows import pipeline, publishing
from wavecity.flows.recipe import load_recipe
from wavecity.flows.reuse import Reuse

SHARD = "data.zarr/csi/c/1/0/0/0"

TILES = [SimpleNamespace(id=f"toy-{number:04d}", n_buildings=3) for number in range(6)]


@pytest.fixture
def parts(monkeypatch, tmp_path):
    """`build_dataset` with a toy's plan, units and finish; notes which units were built."""
    built = []

    def draft_of(*_):
        return open_draft(tmp_path / "store", "0123456789abcdef0123", make_layout())

    def run_units(client, draft, missing, *_, log=None):
        for unit in missing:
            write_synthetic_unit(draft, unit)
            built.append(unit)

    def finish(draft, *_):
        finish_draft(draft, ATTRIBUTES, {"map": {"name": "toy"}})
        seal(draft)

    @contextmanager
    def lock(*_):
        yield SimpleNamespace(check=lambda: None)

    for module, name, part in (
        (
            pipeline,
            "plan_on_cluster",
            lambda *_: SimpleNamespace(short=[], accepted=TILES, sources={}, tiles=[], cities=[]),
        ),
        (pipeline, "published", lambda *_: None),
        (pipeline, "reuse_of", lambda *_: Reuse({}, {}, {})),
        (pipeline, "draft_of", draft_of),
        (pipeline, "share_maps", lambda *_: None),
        (pipeline, "compute", lambda *_: nullcontext()),
        (pipeline, "turn", lock),
        (pipeline, "run_units", run_units),
        (pipeline, "finish", finish),
        (pipeline, "_refuse_by_gates", lambda *_: None),
        (pipeline, "check_and_publish", publishing.check_and_publish),
        (pipeline, "cluster_map", lambda client: map),
        (pipeline, "get_run_logger", lambda: logging.getLogger("build")),
        (pipeline.artifacts, "show_version", lambda *_: None),
    ):
        monkeypatch.setattr(module, name, part)

    def run(verify=False, **options):
        built.clear()
        recipe = load_recipe("quickstart", ())
        version = pipeline.build_dataset.fn(recipe, str(tmp_path / "store"), announce=False, verify=verify, **options)
        return version, list(built)

    draft = draft_of()
    run_units(None, draft, [0, 1])
    return SimpleNamespace(run=run, draft=draft, store=tmp_path / "store")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:50])


def test_finished_units_stay(parts):
    assert parts.run()[1] == [2]


@pytest.mark.parametrize("name", [SHARD, "buildings/unit-00001.parquet", "receipts/unit-00001.json"])
def test_a_unit_of_which_a_file_was_cut_is_built_again(parts, name):
    cut(parts.draft.folder / name)
    version, built = parts.run()
    assert built == [1, 2]
    assert validate(version.folder).ok


@pytest.mark.parametrize(("verify", "order"), [(True, [1, 2]), (False, [2, 1])])
def test_a_unit_of_which_a_byte_has_changed_is_built_again_before_publishing(parts, caplog, verify, order):
    """By sizes nothing is wrong: the check of every byte before publishing finds it, unless it was asked for at once."""
    flip(parts.draft.folder / SHARD)
    version, built = parts.run(verify)
    assert built == order
    assert f"finished, but damaged since, so it is built again: unit 1: {SHARD} has changed" in caplog.text
    assert open_store(parts.store, verify=True).sizes["scene"] == 6
    assert validate(version.folder).ok


def test_what_is_wrong_for_another_reason_is_not_built_for_ever(parts, monkeypatch):
    write = write_synthetic_unit

    def wrong(draft, unit):
        with monkeypatch.context() as patch:
            patch.setattr("toy.FREQUENCY", 40e9)
            return write(draft, unit)

    monkeypatch.setitem(globals(), "write_synthetic_unit", wrong)
    with pytest.raises(CheckFailed, match=r"validation failed: friis at scene toy-0004"):
        parts.run()
    assert not (parts.store / "versions").exists()


def test_units_with_quarantined_scenes_are_tried_again(parts, caplog):
    """Those of the draft, where that is asked for; the receipts of the others stay."""
    path = parts.draft.folder / "receipts/unit-00001.json"
    receipt = json.loads(path.read_text())
    receipt["scenes"][0] |= {"status": "quarantined", "stage": "raytrace", "reason": "RuntimeError: out of luck"}
    path.write_text(json.dumps(receipt))
    assert parts.draft.discard_damaged(verify=True) == []
    caplog.set_level(logging.INFO)
    version, built = parts.run(retry_quarantined=True)
    assert built == [1, 2]
    lost = [scene["scene_id"] for scene in receipt["scenes"] if scene["status"] != "done"]
    assert f"tried again: {', '.join(lost)} quarantined before" in caplog.text
    # What the generator makes of it, whatever the receipt said.
    outcomes = {
        scene["scene_id"]: scene["status"] for unit in load_draft(version.folder).receipts() for scene in unit["scenes"]
    }
    assert outcomes[lost[0]] == "done"

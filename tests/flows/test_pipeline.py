"""The main job on real Helsinki tiles, small: twice, killed in between, and with something broken."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from command import wavecity, wavecity_process
from processes import python
from small import SET, SMALL

import wavecity as wavecity_package
from wavecity.dataset.reader import open_store
from wavecity.flows import units
from wavecity.flows.drafts import draft_of, reuse_of
from wavecity.flows.planning import plan_scenes
from wavecity.flows.recipe import load_recipe
from wavecity.flows.run_checks import tasks_of
from wavecity.flows.units import jobs_of, run_unit
from wavecity.geo.errors import InputError, SceneError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    result = wavecity_process("run", "quickstart-paper", "--out", out, *SET)
    assert result.returncode == 0, result.stderr
    return out, result


def test_tasks_are_those_asked_for_or_all_of_the_model():
    every = ["reconstruction", "localization", "cross-localization", "mu-mimo", "su-mimo", "latency"]
    assert tasks_of(load_recipe("quickstart-paper")) == every
    # What its dataset does not allow is said, not dropped in silence.
    assert tasks_of(load_recipe("quickstart-paper", ("features.paths=false",))) == every
    assert tasks_of(load_recipe("quickstart-paper", ("training.evaluation.tasks=[latency, mu-mimo]",))) == [
        "latency",
        "mu-mimo",
    ]
    assert tasks_of(load_recipe("quickstart-paper", ("training.backbone=temporal",))) == ["prediction"]
    with pytest.raises(InputError, match=r"training\.evaluation\.tasks"):
        load_recipe("quickstart-paper", ("training.evaluation.tasks=[beams]",))


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.system
def test_it_ends_with_five_lines_of_what_was_made(run):
    out, result = run
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert list(lines) == ["run", "results", "report", "store", "next"]
    data = xr.open_zarr(out / "store" / "latest.zarr")
    assert lines["run"] == f"{out} (4 scenes, {int(data['n_users'].sum())} users, dataset v1)"
    assert lines["report"] == str(out / "report.html")
    assert lines["store"] == str(out / "store")
    assert "Localisation, median error" in lines["results"]


@pytest.mark.system
def test_every_stage_has_a_line(run):
    _, result = run
    lines = iter(result.stderr.splitlines())
    tasks = tasks_of(load_recipe("quickstart-paper"))
    stages = [
        "wavecity run quickstart-paper: ",
        "build 1/4: plan",
        "build 2/4: trace (4 scenes)",
        "build 3/4: ",
        "build 4/4: ",
        "pretrain",
    ]
    stages += [f"evaluate {number}/{len(tasks)}: {task}" for number, task in enumerate(tasks, 1)]
    for stage in [*stages, "report"]:
        assert any(line.startswith(stage) for line in lines), stage


@pytest.mark.system
def test_the_store_is_published_valid_and_readable(run):
    out, _ = run
    assert wavecity("validate", out / "store").returncode == 0
    data = xr.open_zarr(out / "store" / "latest.zarr")
    assert data.sizes["scene"] == 4
    assert (data["n_users"].values >= 24).all()
    assert set(data["status"].values) == {"done"}
    receipts = [json.loads(path.read_text()) for path in (out / "store").rglob("unit-*.json")]
    assert sum(len(receipt["scenes"]) for receipt in receipts) == 4


@pytest.mark.system
def test_a_second_run_recomputes_nothing(run):
    out, _ = run
    store, checkpoint = snapshot(out / "store"), snapshot(out / "checkpoints")
    result = wavecity_process("run", "quickstart-paper", "--out", out, *SET)
    assert result.returncode == 0, result.stderr
    assert "nothing to do" in result.stderr
    assert snapshot(out / "store") == store
    assert snapshot(out / "checkpoints") == checkpoint


@pytest.mark.system
def test_killed_before_the_pointer_was_moved_a_version_is_found_again(run, tmp_path):
    out, _ = run
    store = shutil.copytree(out / "store", tmp_path / "store", symlinks=True)
    (store / "latest.zarr").unlink()
    (store / "versions" / "v1" / "published.json").unlink()
    before = snapshot(store / "versions")
    result = wavecity_process("build", "quickstart-paper", "--out", store, *SET)
    assert result.returncode == 0, result.stderr
    assert (store / "latest.zarr").resolve() == store / "versions" / "v1" / "data.zarr"
    after = snapshot(store / "versions")
    assert {path.name for path in after.keys() - before.keys()} == {"published.json"}
    assert {path: after[path] for path in before} == before


@pytest.mark.system
def test_the_report_needs_no_network(run):
    out, _ = run
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "OpenStreetMap" in page
    assert "data:image/png;base64" in page
    for needle in ('src="http', "src='http", '<link rel="stylesheet" href="http', "@import"):
        assert needle not in page


@pytest.mark.system
@pytest.mark.skipif(shutil.which("chromium") is None, reason="Debian's chromium is not installed")
def test_the_report_opens_in_a_browser(run):
    """No console error, no request that leaves the page, every picture decoded."""
    from playwright.sync_api import sync_playwright

    out, _ = run
    problems, requests = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-background-networking"]
        )
        page = browser.new_page()
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requests.append(request.url[:80]))
        page.goto((out / "report.html").as_uri())
        pictures = page.eval_on_selector_all("img", "all => all.map(i => [i.complete, i.naturalWidth])")
        title = page.title()
        browser.close()
    assert problems == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert len(pictures) >= 3
    assert all(complete and width > 100 for complete, width in pictures)
    assert "Wavecity" in title


@pytest.mark.system
def test_every_task_leaves_a_table_with_several_seeds(run):
    out, _ = run
    for task in tasks_of(load_recipe("quickstart-paper")):
        frame = pd.read_parquet(out / "results" / f"{task}.parquet")
        assert len(frame), task
        assert set(frame["task"]) == {task}
        if "mimo" in task or "localization" in task:
            assert set(frame["seed"]) == {0, 1}, task
    rates = pd.read_parquet(out / "results" / "su-mimo.parquet").query("metric == 'su_rate'")
    assert (rates["value"] > 0).all()


@pytest.mark.system
def test_results_with_other_settings_are_kept_next_to_the_runs_own_and_the_encoder_is_exported(run, tmp_path):
    out, _ = run
    run_folder = shutil.copytree(out, tmp_path / "run", symlinks=True)
    command = ("evaluate", run_folder, "--task", "mu-mimo", "--data", out / "store")
    kept = wavecity(*command, "--json")
    assert kept.returncode == 0, kept.stderr
    assert json.loads(kept.stdout)["seeds"] == 2
    other = wavecity(*command, "--set", "training.evaluation.heads.seeds=1")
    assert other.returncode == 0, other.stderr
    assert "MU-MIMO sum-rate" in other.stdout
    assert "1 seed(s)" in other.stdout
    assert "training.evaluation.heads.seeds: 2 -> 1" in other.stdout
    assert str(run_folder / "results" / "mu-mimo-") in other.stdout
    again = wavecity(*command, "--json")
    assert json.loads(again.stdout) == json.loads(kept.stdout)
    wrong = wavecity(*command, "--set", "training.evaluation.heads.seeds=0")
    assert wrong.returncode == 2
    assert "training.evaluation.heads.seeds = 0" in wrong.stderr
    exported = wavecity("export-model", run_folder, "--out", tmp_path / "encoder.pt2")
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "encoder.pt2").stat().st_size > 1e5


@pytest.mark.system
def test_a_task_that_is_not_possible_is_reported_and_the_others_go_on(run, tmp_path):
    out, _ = run
    copied = shutil.copytree(out, tmp_path / "run", symlinks=True)
    tasks = ("--set", "training.evaluation.tasks=[localization, latency]")
    result = wavecity_process(
        "run",
        "quickstart-paper",
        "--out",
        copied,
        *SET,
        *tasks,
        "--set",
        "training.evaluation.localization.labels=[25]",
    )
    assert result.returncode == 0, result.stderr
    why = "training.evaluation.localization.labels asks for 25 labelled users of a scene at least"
    assert result.stderr.index(f"localization will not be possible: {why}") >= 0
    last = result.stdout.splitlines()[-1]
    assert last.startswith("localization is not possible: ")
    assert why in last
    page = (copied / "report.html").read_text(encoding="utf-8")
    assert why in page
    assert 'id="results-latency"' in page
    assert 'id="results-localization"' not in page


@pytest.mark.system
def test_any_number_of_workers_gives_the_same_bytes(run, tmp_path):
    """One process here against two there; units redone after a kill are the same too."""
    out, _ = run
    recipe = load_recipe("quickstart-paper", tuple(f"{key}={value}" for key, value in SMALL.items()))
    plan = plan_scenes(recipe, tmp_path / "maps")
    draft = draft_of(recipe, plan, tmp_path / "store")
    code = (
        "import sys, pickle; from wavecity.flows.units import run_unit\n"
        "draft, jobs, sources, recipe = pickle.load(open(sys.argv[1], 'rb'))\n"
        "run_unit(draft, 0, jobs, sources, recipe)"
    )
    import pickle

    job = tmp_path / "job.pickle"
    jobs = jobs_of(draft, 0, plan, reuse_of(recipe, plan, tmp_path / "store"))
    job.write_bytes(pickle.dumps((draft, jobs, plan.sources, recipe)))
    python(code, job)
    published = open_store(out / "store")
    folder = (out / "store" / "latest.zarr").resolve().parent
    theirs = json.loads((folder / "receipts" / "unit-00000.json").read_text())
    ours = draft.receipt(0)
    assert ours is not None
    assert ours["sha256"] == theirs["sha256"]
    assert published.attrs["fingerprint"] == draft.fingerprint


@pytest.mark.system
def test_input_that_is_wrong_for_every_scene_stops_the_build(tmp_path):
    """ITU's marble ends at 60 GHz: no scene can be traced at 90, and none is quarantined for it."""
    result = wavecity_process("build", "quickstart-paper", "--out", tmp_path, *SET, "--set", "radio.wall_material=marble",
                      "--set", "radio.frequency=9.0e+10")  # fmt: skip
    assert result.returncode == 2, result.stderr
    assert "marble" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.rglob("unit-*.json"))


def test_a_scene_that_fails_is_quarantined_and_the_others_go_on(tmp_path, monkeypatch):
    recipe = load_recipe("quickstart-paper", tuple(f"{key}={value}" for key, value in SMALL.items()))
    plan = plan_scenes(recipe, tmp_path / "maps")
    draft = draft_of(recipe, plan, tmp_path / "store")
    real = units.build_scene

    def fail_first(tile, *arguments):
        if tile.id == plan.accepted[0].id:
            raise SceneError("walls cross")
        return real(tile, *arguments)

    monkeypatch.setattr(units, "build_scene", fail_first)
    jobs = jobs_of(draft, 0, plan, reuse_of(recipe, plan, tmp_path / "store"))
    receipt = run_unit(draft, 0, jobs, plan.sources, recipe)
    assert [scene["status"] for scene in receipt["scenes"]] == ["quarantined", "done"]
    assert receipt["scenes"][0]["stage"] == "scene"
    assert "walls cross" in receipt["scenes"][0]["reason"]
    assert "Traceback" in receipt["scenes"][0]["traceback"]


def test_a_unit_handed_out_again_after_its_receipt_is_not_done_again(tmp_path, monkeypatch):
    """As Dask does when a worker is killed between its last write and its answer."""
    recipe = load_recipe("quickstart-paper", tuple(f"{key}={value}" for key, value in SMALL.items()))
    plan = plan_scenes(recipe, tmp_path / "maps")
    draft = draft_of(recipe, plan, tmp_path / "store")
    jobs = jobs_of(draft, 0, plan, reuse_of(recipe, plan, tmp_path / "store"))
    first = run_unit(draft, 0, jobs, plan.sources, recipe)
    before = snapshot(tmp_path / "store")
    monkeypatch.setattr(units, "build_scene", lambda *_: pytest.fail("built again"))
    assert run_unit(draft, 0, jobs, plan.sources, recipe) == first
    assert snapshot(tmp_path / "store") == before


@pytest.mark.system
def test_the_quickstart_trains_the_path_model_and_leaves_what_the_readme_shows(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # the waves, which are recovered once for all runs
    out = tmp_path / "run"
    small = (*SET, "--set", "training.rays.draws=1", "--set", "training.evaluation.su_mimo.users=40")
    done = wavecity_process("run", "quickstart", "--out", out, *small)
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert lines["report"] == str(out / "report.html")
    tasks = tasks_of(load_recipe("quickstart"))
    assert tasks[0] == "zero-shot"
    page = (out / "report.html").read_text(encoding="utf-8")
    for task in tasks:
        assert set(pd.read_parquet(out / "results" / f"{task}.parquet")["task"]) == {task}
        assert f'id="results-{task}"' in page
    before = snapshot(out)
    again = wavecity_process("run", "quickstart", "--out", out, *small)
    assert again.returncode == 0, again.stderr
    assert "nothing to do" in again.stderr
    for folder in ("store", "checkpoints", "results"):
        of_it = {path: at for path, at in before.items() if (out / folder) in path.parents}
        assert of_it == snapshot(out / folder), folder

    data = open_store(out / "store").isel(scene=0)
    count, height = int(data.n_users), data.height.values
    shown = np.zeros((32, 32), bool)
    shown[:16, :16] = True
    model, surroundings = wavecity_package.load(out), wavecity_package.surroundings(out / "store", 0)
    found = model.predict(data.csi[:count].values, shown, surroundings, height)
    physc = model.embed(data.csi[:count].values, shown, surroundings, height)
    assert found.location.best().shape == (count, 2)
    assert physc.shape == (count, model.settings.rays.model.width)
    exported = wavecity("export-model", out, "--out", tmp_path / "model.pt2")
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "model.pt2").stat().st_size > 1e5

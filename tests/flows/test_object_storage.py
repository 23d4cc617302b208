"""The command line on an S3-compatible server, as on a disk."""

import os
from pathlib import Path
from typing import Any

import pytest
from command import wavecity, wavecity_process
from s3_server import CREDENTIALS
from servers import dask_cluster
from test_kill import content

from wavecity.dataset.files import files_below, location
from wavecity.dataset.publish import latest

pytestmark = pytest.mark.system

SETTINGS = ["area.scenes=2", "users.minimum=20", "users.maximum=24", "solver.rays=20000", "store.unit=1"]
SET = [word for setting in SETTINGS for word in ("--set", setting)]


@pytest.fixture(scope="module")
def store(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"{bucket}/helsinki"
    maps = tmp_path_factory.mktemp("maps")
    result = wavecity_process("build", "quickstart", "--out", url, "--maps", maps, "--workers", "2", *SET)
    assert result.returncode == 0, result.stderr
    assert "2 scenes traced: no version before" in result.stdout
    assert f"published v1: {url}/versions/v1/data.zarr" in result.stdout
    return url


@pytest.fixture(scope="module")
def on_a_disk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Content of what one process builds on a disk."""
    local = tmp_path_factory.mktemp("disk") / "store"
    assert wavecity_process("build", "quickstart", "--out", local, "--workers", "1", *SET).returncode == 0
    return content(local)


def copied(store: str, folder: Path) -> dict[str, Any]:
    """Content of the latest version on object storage."""
    version = latest(store)
    assert version is not None
    for name in files_below(version.folder):
        target = folder / "versions" / "v1" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((version.folder / name).read_bytes())
    (folder / "latest.zarr").symlink_to("versions/v1/data.zarr")
    return content(folder)


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_the_same_bytes_as_on_a_disk(store: str, on_a_disk: dict[str, Any], tmp_path: Path) -> None:
    assert_same(copied(store, tmp_path / "copy"), on_a_disk)


def test_two_machines_that_share_only_the_store_make_the_bytes_of_one(
    bucket: str, on_a_disk: dict[str, Any], tmp_path: Path
) -> None:
    """A scheduler and two workers, each with a home, a working folder and a folder for maps of its own."""
    machines = {}
    for name in ("one", "two"):
        home = tmp_path / f"home-{name}"
        home.mkdir()
        machines[name] = {**os.environ, "HOME": str(home), "WAVECITY_MAPS": str(home / "maps")}
    with dask_cluster(tmp_path, machines) as (scheduler, _):
        url = f"{bucket}/two-machines"
        # The planner's maps lie in its working folder, where no other one finds them.
        words = ["build", "quickstart", "--out", url, "--maps", "maps", "--dask", scheduler, *SET]
        planner = tmp_path / "planner"
        planner.mkdir()
        result = wavecity_process(*words, cwd=planner)
        assert result.returncode == 0, result.stderr
    # Both took part: each fetched the map of its own.
    assert all(list((tmp_path / f"home-{name}" / "maps").rglob("*.parquet")) for name in machines)
    assert_same(copied(url, tmp_path / "copy"), on_a_disk)


def test_validate_inspect_preview_and_publish_take_the_url(store: str, tmp_path: Path) -> None:
    result = wavecity("validate", store, "--workers", "2")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.rstrip().endswith("valid")
    result = wavecity("inspect", store, "--scenes", "--card", tmp_path / "card.html")
    assert result.returncode == 0, result.stderr
    assert "helsinki-" in result.stdout
    assert "OpenStreetMap" in (tmp_path / "card.html").read_text()
    scene = next(word for word in result.stdout.split() if word.startswith("helsinki-0"))
    result = wavecity("preview", store, "--scene", scene, "--out", tmp_path / "scene.png")
    assert result.returncode == 0, result.stderr
    assert wavecity("publish", store).returncode == 0


def test_a_second_build_finds_everything_done(store: str, tmp_path: Path) -> None:
    before = set(files_below(location(store)))
    result = wavecity_process("build", "quickstart", "--out", store, "--maps", tmp_path, *SET)
    assert result.returncode == 0, result.stderr
    assert set(files_below(location(store))) == before


def test_what_cannot_be_reached_gets_one_line(bucket: str) -> None:
    for arguments in (["build", "quickstart", "--out", "s3://no-such-bucket/a", *SET],
                      ["validate", f"{bucket}/nothing"], ["inspect", "s4://bucket/store"]):  # fmt: skip
        result = wavecity(*arguments)
        assert result.returncode == 2, result.stderr
        assert "Traceback" not in result.stderr
        assert result.stderr.strip().splitlines()[-1].startswith("wavecity: ")
    assert not Path("s3:").exists()


def test_a_store_that_does_not_answer_gets_one_line(tmp_path: Path) -> None:
    # Processes of their own: in this one s3fs has its connection already. Nothing listens on port 9.
    nobody = {**CREDENTIALS, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    for command, message, code in (
        (["build", "quickstart", "--maps", tmp_path, *SET, "--out"], "the store does not answer: ", 1),
        (["inspect"], "s3://bucket/store: cannot be read (", 2),
    ):
        result = wavecity_process(*command, "s3://bucket/store", cwd=tmp_path, **nobody)
        assert result.returncode == code, result.stderr
        assert "Traceback" not in result.stderr
        last = result.stderr.splitlines()[-1]
        assert last.startswith(f'wavecity: {message}Could not connect to the endpoint URL: "http://127.0.0.1:9/')

"""The command line on an S3-compatible server, as on a disk."""

from pathlib import Path

import pytest
from test_cli import wavecity
from test_kill import content

from dataset.files import files_below, location
from dataset.publish import latest

SETTINGS = ["area.scenes=2", "users.minimum=20", "users.maximum=24", "solver.rays=20000", "store.unit=1"]
SET = [word for setting in SETTINGS for word in ("--set", setting)]


@pytest.fixture(scope="module")
def store(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"{bucket}/helsinki"
    maps = tmp_path_factory.mktemp("maps")
    result = wavecity("build", "quickstart", "--out", url, "--maps", maps, "--workers", "2", *SET)
    assert result.returncode == 0, result.stderr
    assert "2 scenes traced: no version before" in result.stdout
    assert f"published v1: {url}/versions/v1/data.zarr" in result.stdout
    return url


def test_the_same_bytes_as_on_a_disk(store: str, tmp_path: Path) -> None:
    version = latest(store)
    assert version is not None
    for name in files_below(version.folder):
        target = tmp_path / "copy" / "versions" / "v1" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((version.folder / name).read_bytes())
    (tmp_path / "copy" / "latest.zarr").symlink_to("versions/v1/data.zarr")
    local = tmp_path / "store"
    assert wavecity("build", "quickstart", "--out", local, *SET).returncode == 0
    ours, theirs = content(tmp_path / "copy"), content(local)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


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
    result = wavecity("build", "quickstart", "--out", store, "--maps", tmp_path, *SET)
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

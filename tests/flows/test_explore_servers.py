"""`wavecity explore` in a real browser: damaged stores, other servers, stores of many scenes."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import boto3
import numpy as np
import pytest
from command import wavecity
from pages import NEEDS_CHROMIUM, opened
from toy import build_store, make_layout

from wavecity.dataset.reader import resolve
from wavecity.flows.explore.server import serving
from wavecity.flows.explore.site import Site, make_site

pytestmark = [pytest.mark.system, NEEDS_CHROMIUM]


# Damage


@pytest.fixture
def damaged(toy_store: Path, tmp_path: Path) -> Path:
    shutil.copytree(toy_store, tmp_path / "store", symlinks=True)
    return tmp_path / "store"


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("data.zarr/csi/c/0/0/0/0", Path.unlink, "Cannot show the channel. data.zarr/csi/c/0/0/0/0 is missing"),
        ("data.zarr/csi/c/0/0/0/0", zeros, "Cannot show the channel. data.zarr/csi/c/0/0/0/0 is damaged"),
        ("data.zarr/paths/gain/c/0/0/0", Path.unlink, "Cannot show the paths. data.zarr/paths/gain/c/0/0/0 is missing"),
        ("data.zarr/los/c/0/0", zeros, "Cannot show the users of the scene. data.zarr/los/c/0/0 is damaged"),
        ("buildings/unit-00000.parquet", Path.unlink, "Cannot show the buildings. buildings/unit-00000.parquet is missing"),
        ("buildings/unit-00000.parquet", lambda path: path.write_bytes(b"PAR1"), "Cannot show the buildings."),
    ],
)  # fmt: skip
def test_a_damaged_file_is_said_where_it_would_be_shown(
    chromium: Any, damaged: Path, name: str, damage: Callable[[Path], object], said: str
) -> None:
    site = make_site(damaged)
    damage(resolve(damaged).parent / name)
    with serving(site) as address, opened(chromium, address) as look:
        page = look.go("#/scene/toy-0000?user=1")
        page.wait_for_function("text => document.body.innerText.includes(text)", arg=said)
        if "paths" in name:
            assert "Cannot show all that is known of the users. data.zarr/paths/gain/c/0/0/0" in look.text()
            assert page.locator("figure:has-text('Spatial spectrum') image").count() > 0
        elif "los" not in name:
            assert page.locator(".paths tbody tr").count() == 1
        look.go("#/scene/toy-0004?user=1")
        assert page.locator("main .problem").count() == 0


def test_damage_that_is_known_stands_on_every_page(chromium: Any, damaged: Path) -> None:
    (resolve(damaged) / "csi/c/1/0/0/0").unlink()
    with serving(make_site(damaged)) as address, opened(chromium, address) as look:
        look.go("#/")
        assert "1 file is damaged: data.zarr/csi/c/1/0/0/0 is missing" in look.text()


# Elsewhere


def test_a_site_on_a_server_without_ranges(chromium: Any, toy_store: Path, tmp_path: Path) -> None:
    """Python's own server sends whole files: slower, but the same page."""
    shutil.copytree(toy_store, tmp_path / "store", symlinks=True)
    assert wavecity("explore", tmp_path / "store", "--out", tmp_path / "site").returncode == 0

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with opened(chromium, f"http://127.0.0.1:{server.server_address[1]}/site/") as look:
            page = look.go("#/scene/toy-0000?user=1")
            page.wait_for_selector("figure:has-text('Spatial spectrum') image")
            assert page.locator(".paths tbody tr").count() == 1
            page.click(".user .code summary")
            assert f'xr.open_zarr("{look.address.removesuffix("site/")}store/versions/v1/data.zarr")' in look.text(
                ".user pre"
            )
            assert look.problems == []
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_store_on_an_s3_server(chromium: Any, bucket: str) -> None:
    """The page in the same bucket, and the local server in front of it."""
    store = f"{bucket}/explored/store"
    build_store(store, make_layout(scenes=2))
    allow = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject"}
    name = bucket.removeprefix("s3://")
    policy = {"Version": "2012-10-17", "Statement": [{**allow, "Resource": f"arn:aws:s3:::{name}/*"}]}
    boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"]).put_bucket_policy(
        Bucket=name, Policy=json.dumps(policy)
    )
    ran = wavecity("explore", store, "--out", f"{bucket}/explored/site")
    assert ran.returncode == 0, ran.stderr
    public = f"{os.environ['AWS_ENDPOINT_URL']}/{name}/explored/site/index.html"
    with serving(make_site(store)) as local:
        for address in (public, local):
            with opened(chromium, address) as look:
                page = look.go("#/scene/toy-0000?user=1")
                page.wait_for_selector("figure:has-text('Spatial spectrum') image")
                assert page.locator(".paths tbody tr").count() == 1
                assert look.problems == []


def test_ten_thousand_scenes_are_few_bytes_and_few_rows(chromium: Any, toy_store: Path) -> None:
    site = make_site(toy_store)
    with serving(many(site, 10_000)) as address, opened(chromium, address) as look:
        sizes: list[int] = []
        look.page.on("response", lambda answer: sizes.append(len(answer.body())))
        page = look.go("#/")
        assert "10,000 scenes" in look.text(".lead")
        assert page.locator(".table tbody tr").count() < 60
        assert page.locator(".map .city").count() == 40
        assert 5e5 < sum(sizes) < 5e6
        page.eval_on_selector(".table", "table => table.scrollTo(0, 9000 * 34)")
        page.wait_for_selector("text=toy-09000")
        assert look.problems == []


def many(site: Site, scenes: int) -> Site:
    """A site whose index has many scenes, those of a small store again and again in 40 cities."""
    rng = np.random.default_rng(0)
    columns = site.index["scenes"]
    rows = np.arange(scenes) % 6

    def again(values: list[Any]) -> list[Any]:
        return [values[row] for row in rows]

    longer = {name: again(values) for name, values in columns.items() if name != "heights"}
    longer["id"] = [f"toy-{number:05d}" for number in range(scenes)]
    longer["city"] = (np.arange(scenes) // (scenes // 40)).tolist()
    longer["latitude"] = rng.uniform(-50, 60, scenes).round(6).tolist()
    longer["heights"] = {name: rng.integers(0, 50, scenes).tolist() for name in ("tag", "levels", "imputed", "guess")}
    cities = [
        {
            "name": f"City {number}",
            "country": "FI",
            "latitude": float(3 * number - 60),
            "longitude": float(9 * number - 175),
        }
        for number in range(40)
    ]
    return replace(site, index={**site.index, "scenes": longer, "cities": cities})

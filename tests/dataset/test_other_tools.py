"""A store in the hands of other people's tools: every test uses the tool itself."""

import json
import re
import shutil
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import xarray as xr
import zarr
from processes import finished
from toy import ATTRIBUTES

import wavecity
from wavecity.dataset.checks.validate import validate
from wavecity.dataset.draft import load_draft
from wavecity.dataset.files import files_below
from wavecity.dataset.finish import seal
from wavecity.dataset.reader import open_store

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "howto" / "other-tools.md"


def small(store: Path) -> xr.Dataset:
    return xr.open_zarr(store / "latest.zarr").isel(scene=slice(2), user=slice(3))


@pytest.fixture
def old_store(toy_store: Path, tmp_path: Path) -> Path:
    """As schema 1 has it: objects and truth values in the attributes, no ids in the groups, no index."""
    shutil.copytree(toy_store, tmp_path / "old", symlinks=True)
    draft = load_draft((tmp_path / "old" / "latest.zarr").resolve().parent)
    root = zarr.open_group(str(draft.data), mode="r+")
    attributes = wavecity.attributes_of(root.attrs)
    root.attrs.clear()
    root.attrs.update(
        {name: value for name, value in attributes.items() if name != "comment"} | {"schema_version": "1"}
    )
    for name in ("scene", "paths/scene", "paths/city", "paths/split"):
        shutil.rmtree(draft.data / name)
    root["paths"].attrs.clear()
    zarr.consolidate_metadata(str(draft.data))
    seal(draft)
    return tmp_path / "old"


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_netcdf_holds_the_same(toy_store: Path, tmp_path: Path, engine: str) -> None:
    pytest.importorskip({"netcdf4": "netCDF4"}.get(engine, engine))
    # netCDF-C has complex numbers only if asked; h5netcdf always.
    options = {"auto_complex": True} if engine == "netcdf4" else {}
    for name, data in (("plain", small(toy_store)), ("ours", open_store(toy_store).isel(scene=slice(2)))):
        data.to_netcdf(tmp_path / f"{name}.nc", engine=engine, **options)
        with xr.open_dataset(tmp_path / f"{name}.nc", engine=engine, **options) as back:
            xr.testing.assert_equal(back.load(), data.load())
            assert back["csi"].dtype == np.complex64
            assert wavecity.attributes_of(back.attrs)["array"] == ATTRIBUTES["array"]


def test_attributes_are_those_that_netcdf_has(toy_store: Path, old_store: Path) -> None:
    """Texts, numbers, and lists of them (CF 1.11, section 2.6): also of a store of schema 1, as `open_store` gives them."""
    for attrs in (xr.open_zarr(toy_store / "latest.zarr").attrs, open_store(old_store).attrs):
        for name, value in attrs.items():
            for one in value if isinstance(value, list) else [value]:
                assert type(one) in (str, int, float), name
        decoded = wavecity.attributes_of(attrs)
        assert decoded["los_traced"] is True
        assert {name: decoded[name] for name in ATTRIBUTES} == ATTRIBUTES
        assert "best_beam" in decoded["conventions"]


def test_a_derived_view_can_be_saved(toy_store: Path, tmp_path: Path) -> None:
    pytest.importorskip("h5netcdf")
    from wavecity.dataset.views import derived_csi

    view = derived_csi(toy_store, columns=4, rows=4).isel(scene=slice(1))
    view.to_netcdf(tmp_path / "view.nc", engine="h5netcdf")
    with xr.open_dataarray(tmp_path / "view.nc", engine="h5netcdf") as back:
        np.testing.assert_array_equal(back.values, view.values)
        assert wavecity.attributes_of(back.attrs)["array"]["columns"] == 4


def test_a_copy_without_the_encoding_is_right(toy_store: Path, tmp_path: Path) -> None:
    data = small(toy_store)
    assert "drop_encoding" in data.attrs["comment"]
    for name, source in (("plain", data.drop_encoding()), ("ours", open_store(toy_store))):
        source.to_zarr(tmp_path / name, zarr_format=3, consolidated=False)
        xr.testing.assert_identical(xr.open_zarr(tmp_path / name, consolidated=False).load(), source.load())


def test_scenes_are_found_by_their_id_in_every_group(toy_store: Path, old_store: Path) -> None:
    for data, paths in (
        (xr.open_zarr(toy_store / "latest.zarr"), xr.open_zarr(toy_store / "latest.zarr", group="paths")),
        (open_store(toy_store), open_store(toy_store, "paths")),
        (open_store(old_store), open_store(old_store, "paths")),
    ):
        one, its_paths = data.sel(scene="toy-0004").load(), paths.sel(scene="toy-0004").load()
        np.testing.assert_array_equal(one["csi"].values, data["csi"].values[4])
        np.testing.assert_array_equal(its_paths["delay"].values, paths["delay"].values[4])
        assert one["scene_id"].item() == "toy-0004"
        assert its_paths["split"].item() == one["split"].item() == "test"
        assert its_paths["city"].item() == "Toy"


def test_grouping_by_split_needs_no_load(toy_store: Path) -> None:
    expected = {}
    root = zarr.open_group(str(toy_store / "latest.zarr"), mode="r")
    splits, gain = root["split"][:], root["path_gain"][:]
    for split in ("test", "train", "validation"):
        expected[split] = gain[splits == split].mean(dtype=float)
    for data in (open_store(toy_store), xr.open_dataset(toy_store / "latest.zarr", engine="zarr")):
        found = data["path_gain"].astype(float).groupby("split").mean(...)
        assert dict(zip(found["split"].values.tolist(), found.values, strict=True)) == pytest.approx(expected)
    paths = open_store(toy_store, "paths")["n_paths"].groupby("split").sum(...)
    assert int(paths.sum()) == int(root["paths/n_paths"][:].sum())


def test_old_stores_are_valid_and_read(old_store: Path, toy_store: Path) -> None:
    assert validate(old_store).findings == []
    old, new = open_store(old_store), open_store(toy_store)
    xr.testing.assert_equal(old.load(), new.load())
    assert {**old.attrs, "schema_version": "1.1", "comment": new.attrs["comment"]} == new.attrs


def test_another_scene_in_a_group_is_found(toy_store: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_store, tmp_path / "store", symlinks=True)
    draft = load_draft((tmp_path / "store" / "latest.zarr").resolve().parent)
    zarr.open_group(str(draft.data), mode="r+")["paths/city"][2] = "Elsewhere"
    seal(draft)
    found = [(finding.check, finding.where) for finding in validate(tmp_path / "store").findings]
    assert found == [("structure", "paths/city of scene toy-0002")]


def the_same(data: xr.Dataset, store: Path) -> None:
    here = zarr.open_group(str(store / "latest.zarr"), mode="r")
    assert data["scene"].values.tolist() == here["scene_id"][:].tolist()
    for name in ("csi", "height", "los", "path_gain"):
        np.testing.assert_array_equal(data[name].values, here[name][:])


def test_a_zip_archive_is_read_as_it_is(toy_store: Path, tmp_path: Path) -> None:
    folder = (toy_store / "latest.zarr").resolve()
    with zipfile.ZipFile(tmp_path / "store.zip", "w", zipfile.ZIP_STORED) as archive:
        for name in files_below(folder):
            archive.write(folder / name, name)
    the_same(xr.open_zarr(zarr.storage.ZipStore(tmp_path / "store.zip", mode="r")), toy_store)


def test_dask_computes_on_it(toy_store: Path) -> None:
    array = zarr.open_group(str(toy_store / "latest.zarr"), mode="r")["csi"]
    power = dask.array.from_zarr(array)
    assert power.chunks is not None
    found = (abs(power) ** 2).sum(axis=(2, 3)).compute()
    np.testing.assert_allclose(found, (np.abs(array[:]) ** 2).sum(axis=(2, 3)), rtol=1e-6)


class Ranges(BaseHTTPRequestHandler):
    """Files of a folder and ranges of them, as any web server gives them."""

    folder: Path

    def log_message(self, *_: Any) -> None:
        """Nothing on the console."""

    def do_GET(self) -> None:
        path = self.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        content, status = path.read_bytes(), 200
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked is not None:
            first, last = asked[1], asked[2]
            content = content[int(first) : int(last) + 1 if last else None] if first else content[-int(last) :]
            status = 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET


@pytest.mark.system
def test_a_web_server_is_enough(toy_store: Path) -> None:
    pytest.importorskip("aiohttp")
    handler = type("Handler", (Ranges,), {"folder": (toy_store / "latest.zarr").resolve()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        the_same(xr.open_zarr(f"http://127.0.0.1:{server.server_port}"), toy_store)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_tensorstore_reads_the_numbers(toy_store: Path) -> None:
    tensorstore = pytest.importorskip("tensorstore")
    root = zarr.open_group(str(toy_store / "latest.zarr"), mode="r")
    for name in ("csi", "height", "los", "best_beam", "user_position", "paths/gain"):
        path = str((toy_store / "latest.zarr").resolve() / name)
        found = tensorstore.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}).result()
        np.testing.assert_array_equal(found[4].read().result(), root[name][4])


def test_duckdb_and_geopandas_read_the_buildings(toy_store: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    duckdb = pytest.importorskip("duckdb")
    files = toy_store / "versions" / "v1" / "buildings"
    tables = [geopandas.read_parquet(file) for file in sorted(files.glob("*.parquet"))]
    query = f"SELECT scene_id, count(*), max(height) FROM '{files}/*.parquet' GROUP BY scene_id ORDER BY scene_id"
    assert duckdb.sql(query).fetchall() == [
        (scene, 1, 12.0) for scene in sorted(scene for table in tables for scene in table["scene_id"])
    ]


def test_gdal_reads_the_copy_of_the_page(toy_store: Path, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="needs wavecity[geotiff]")
    with rasterio.Env() as environment:
        if "Zarr" not in environment.drivers():
            pytest.skip("this GDAL has no Zarr driver")
    block = re.search(r"```python\n(part = [^`]*for-gdal[^`]*)```", PAGE.read_text(encoding="utf-8"))
    assert block is not None
    exec(block[1].replace('"STORE"', repr(str(toy_store))).replace('"for-gdal.zarr"', repr(str(tmp_path / "copy"))))
    root = zarr.open_group(str(toy_store / "latest.zarr"), mode="r")
    with rasterio.open(f'ZARR:"{tmp_path}/copy":/height') as file:
        np.testing.assert_array_equal(file.read(), root["height"][:])
    with rasterio.open(f'ZARR:"{tmp_path}/copy":/path_gain') as file:
        np.testing.assert_array_equal(file.read(1), root["path_gain"][:])
    # Should a later one read the store itself, the page has to say so.
    with pytest.raises(rasterio.errors.RasterioIOError, match="sharding_indexed"):
        rasterio.open(f'ZARR:"{toy_store}/latest.zarr":/height')


NODE = """
import * as zarr from "zarrita";
import { FileSystemStore } from "@zarrita/storage";
import { complexAsPairs } from "./complex-as-pairs.mjs";

const path = process.argv[2];
const floats = complexAsPairs(new FileSystemStore(path));
const found = {};
for (const store of [floats, await zarr.withConsolidatedMetadata(floats, { format: "v3" })]) {
  const root = zarr.root(store);
  const wanted = { csi: [4, 2, null, null], "paths/gain": [4, 2, null], scene: null, best_beam: [4, null] };
  for (const [name, at] of Object.entries(wanted)) {
    const array = await zarr.open.v3(root.resolve(name), { kind: "array" });
    const { data } = await zarr.get(array, at);
    found[name] = Array.from(data);
  }
}
try {
  await zarr.open.v3(zarr.root(new FileSystemStore(path)).resolve("csi"), { kind: "array" });
} catch (error) {
  found.plain = error.message;
}
console.log(JSON.stringify(found));
"""


@pytest.mark.system
def test_zarrita_reads_complex_numbers_as_the_page_says(toy_store: Path, tmp_path: Path) -> None:
    """With the module that the page shows; npm's registry, or its cache, has to be there."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm on this machine")
    if finished([npm, "install", "--prefer-offline", "--no-audit", "zarrita@0.7"], cwd=tmp_path).returncode:
        pytest.skip("zarrita cannot be installed here")
    module = re.search(r"```js\n(// complex-as-pairs\.mjs\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert module is not None
    (tmp_path / "complex-as-pairs.mjs").write_text(module[1], encoding="utf-8")
    (tmp_path / "read.mjs").write_text(NODE, encoding="utf-8")
    run = finished(["node", "read.mjs", str((toy_store / "latest.zarr").resolve())], cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    root = zarr.open_group(str(toy_store / "latest.zarr"), mode="r")
    for name in ("csi", "paths/gain"):
        pairs = np.array(found[name], np.float32)
        np.testing.assert_array_equal(pairs.view(np.complex64), root[name][4, 2].ravel())
    assert found["scene"] == root["scene_id"][:].tolist()
    assert found["best_beam"] == root["best_beam"][4].tolist()
    # Should it learn complex numbers one day, the page has to say so.
    assert "complex64" in found["plain"]

"""Paths that Sionna RT has traced with one antenna, as a store: its channels are Sionna's own of a panel."""

from pathlib import Path

import numpy as np
from raytrace_helpers import BLOCKS, SOURCE, stock_paths, users_around, world_of

from wavecity.dataset.checks.validate import validate
from wavecity.dataset.exchange.importing import PathSettings
from wavecity.dataset.exchange.sionna_paths import import_paths
from wavecity.dataset.reader import open_store

FREQUENCY = 28.5e9


def test_channels_of_imported_paths_are_sionnas_cfr(tmp_path: Path) -> None:
    users, world = users_around(BLOCKS, 20), world_of(BLOCKS)
    single = stock_paths(world, SOURCE, users)
    settings = PathSettings(frequency=FREQUENCY, columns=8, rows=4, azimuth=-60.0, max_paths=256, split="test")
    version = import_paths({"blocks": single}, str(tmp_path / "store"), settings)
    result = validate(version.folder)
    assert result.ok, result.findings
    store = open_store(tmp_path / "store").isel(scene=0)
    np.testing.assert_allclose(store.user_position, users - SOURCE, atol=1e-5)

    orientation = (np.deg2rad(-60.0), 0.0, 0.0)
    panel = stock_paths(world, SOURCE, users, rows=4, columns=8, orientation=orientation)
    cfr = panel.cfr(frequencies=[0.0], normalize_delays=False, out_type="numpy")[:, 0, 0, :, 0, 0]
    # The phase of a path is that of a float32 delay at the carrier: some hundredths of a radian.
    size = np.linalg.norm(cfr, axis=1)
    served = size > 0
    assert served.sum() > 8
    error = np.linalg.norm(store.csi.values.reshape(20, -1) - cfr, axis=1)[served] / size[served]
    assert error.max() < 2e-2
    np.testing.assert_array_equal(store.outage.values, ~served)


def test_the_vertices_of_sionnas_paths_are_where_their_delays_say(tmp_path: Path) -> None:
    """Publishing compares the way over them with every delay; here its first stop with the direction of departure."""
    users, world = users_around(BLOCKS, 20), world_of(BLOCKS)
    settings = PathSettings(frequency=FREQUENCY, columns=2, rows=2, split="test", interactions="positions")
    import_paths({"blocks": stock_paths(world, SOURCE, users)}, str(tmp_path / "store"), settings)
    paths = open_store(tmp_path / "store", "paths").isel(scene=0).load()
    bounced = paths.interactions.values[..., 0] != 0
    assert bounced.sum() > 8
    first = paths.vertices.values[bounced][:, 0].astype(float)
    zenith, azimuth = (paths[f"aod_{name}"].values[bounced].astype(float) for name in ("zenith", "azimuth"))
    away = np.stack([np.sin(zenith) * np.cos(azimuth), np.sin(zenith) * np.sin(azimuth), np.cos(zenith)], -1)
    assert (np.linalg.norm(np.cross(first, away), axis=1) < 1e-3 * np.linalg.norm(first, axis=1)).all()
    assert ((first * away).sum(1) > 0).all()

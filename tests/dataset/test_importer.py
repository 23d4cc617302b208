"""Arrays of one's own become a valid store that all readers take, or are refused in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from processes import python
from toy import build_store

from wavecity.dataset import InputError
from wavecity.dataset.checks.validate import validate
from wavecity.dataset.importing.channel_files import LAYOUT
from wavecity.dataset.importing.importer import ImportSettings, import_channels
from wavecity.dataset.publish import versions
from wavecity.dataset.records import attributes_of
from wavecity.dataset.torch_data import ChannelDataset
from wavecity.flows.cli import cli

CARRIER = ImportSettings(frequency=3.5e9)


def make(users=12, shape=(8, 4), seed=0):
    """Plane waves of users south of the base station, at -80 to -100 dB."""
    rng = np.random.default_rng(seed)
    position = np.stack((rng.uniform(-90, 90, users), rng.uniform(-180, -10, users), np.full(users, -8.5)), -1)
    x, y = np.meshgrid(*map(np.arange, shape), indexing="ij")
    turns = rng.uniform(-0.5, 0.5, (2, users, 1, 1))
    gain = 10 ** (rng.uniform(-100, -80, users) / 20) * np.exp(2j * np.pi * rng.random(users))
    return {"csi": gain[:, None, None] * np.exp(2j * np.pi * (turns[0] * x + turns[1] * y)), "user_position": position}


def save(path: Path, **arrays) -> Path:
    np.savez(path, **arrays)
    return path


def opened(store):
    return xr.open_zarr(store / "latest.zarr").load()


def test_two_arrays_are_enough(tmp_path):
    arrays = make()
    version = import_channels([save(tmp_path / "yard.npz", **arrays)], str(tmp_path / "store"), CARRIER)
    assert version.number == 1
    found = validate(tmp_path / "store")
    assert found.ok, found.findings
    store = opened(tmp_path / "store")
    # One scene: its users are divided, every one of them is in one split.
    assert dict(zip(store.split.values, store.n_users.values, strict=True)) == {"train": 10, "validation": 1, "test": 1}
    assert list(store.scene_id.values) == ["yard-train", "yard-validation", "yard-test"]
    real = np.arange(store.sizes["user"]) < store.n_users.values[:, None]
    order = [np.flatnonzero((place == arrays["user_position"].astype(np.float32)).all(1))[0]
             for place in store.user_position.values[real]]  # fmt: skip
    assert sorted(order) == list(range(12))
    np.testing.assert_array_equal(store.csi.values[real], arrays["csi"][order].astype(np.complex64))
    # Spectrum, beam, gain from their definitions.
    csi = arrays["csi"][order]
    power = np.abs(np.fft.fft2(csi)) ** 2
    np.testing.assert_allclose(store.spectrum.values[real], power, rtol=1e-4, atol=1e-6 * power.max())
    beams = np.exp(-2j * np.pi * np.add.outer(np.outer(np.arange(8), np.arange(8)) / 8,
                                              np.outer(np.arange(4), np.arange(4)) / 4))  # fmt: skip
    received = np.abs(np.einsum("uxy,axby->uab", csi.conj(), beams)) ** 2
    np.testing.assert_array_equal(store.best_beam.values[real], received.reshape(12, -1).argmax(1))
    np.testing.assert_allclose(store.path_gain.values[real], 20 * np.log10(np.abs(csi[:, 0, 0])), atol=1e-3)
    assert not store.outage.values[real].any()
    assert not store.los.values.any()
    assert not store.height.values.any()
    assert store.height.shape[1:] == (200, 200)
    attributes = attributes_of(store.attrs)
    assert attributes["frequency_hz"] == 3.5e9
    assert attributes["array"] == {"columns": 8, "rows": 4, "spacing_wavelengths": 0.5, "azimuth_deg": -90.0}
    # 1.5 m above the ground stands the lowest user.
    assert attributes["bs_position_m"] == [0.0, 100.0, 10.0]
    assert attributes["split_by"] == "user"
    assert "OpenStreetMap" not in attributes["attribution"]
    assert "height is 0 everywhere" in attributes["conventions"]["imported"]
    assert len(ChannelDataset(tmp_path / "store", "train", ("csi", "height"))) == 10


def test_scenes_maps_names_splits_gains_and_sight_are_taken_as_given(tmp_path):
    arrays = make(9)
    scene = np.array([0, 1, 2] * 3)
    height = np.zeros((3, 40, 40), np.float32)
    height[1, :15, :15] = (
        7.5  # of a tile of 200 m the north-west corner, built all over: 3 x 3 whole patches and two halves
    )
    extra = {
        "scene": scene, "scene_id": np.array(["a", "b", "c"]), "split": np.array(["test", "train", "validation"]),
        "height": height, "path_gain": np.linspace(-90, -82, 9), "los": scene == 2,
    }  # fmt: skip
    file = save(tmp_path / "three.npz", **arrays, **extra)
    import_channels([file], str(tmp_path / "store"), CARRIER)
    assert validate(tmp_path / "store").ok
    store = opened(tmp_path / "store")
    assert list(store.scene_id.values) == ["a", "b", "c"]
    assert list(store.split.values) == ["test", "train", "validation"]
    np.testing.assert_array_equal(store.n_users, [3, 3, 3])
    np.testing.assert_array_equal(store.height, height)
    expected = np.zeros((3, 4, 4))
    expected[1, 0, 0] = 1  # a quarter of a patch is not built mostly
    np.testing.assert_array_equal(store.occupancy, expected)
    np.testing.assert_allclose(store.path_gain, extra["path_gain"].reshape(3, 3).T, rtol=1e-6)
    np.testing.assert_array_equal(store.los.values, [[False] * 3, [False] * 3, [True] * 3])
    assert store.attrs["split_by"] == "scene"
    assert "height is 0" not in attributes_of(store.attrs)["conventions"]["imported"]


def test_scenes_may_be_named_instead_of_numbered(tmp_path):
    arrays = make(6)
    scene = np.array(["yard", "hall", "roof", "yard", "hall", "roof"])
    height = np.stack([np.full((20, 20), value, np.float32) for value in (1, 2, 3)])
    import_channels([save(tmp_path / "x.npz", **arrays, scene=scene, height=height)], str(tmp_path / "store"), CARRIER)
    store = opened(tmp_path / "store")
    assert list(store.scene_id.values) == ["hall", "roof", "yard"]
    np.testing.assert_array_equal(store.height[:, 0, 0], [1, 2, 3])
    for row, name in enumerate(store.scene_id.values):
        np.testing.assert_array_equal(
            store.user_position[row], arrays["user_position"][scene == name].astype(np.float32)
        )


def test_several_files_are_several_scenes_and_are_divided_as_wholes(tmp_path):
    files = [save(tmp_path / f"{name}.npz", **make(5, seed=seed)) for seed, name in enumerate("abcd")]
    import_channels(files, str(tmp_path / "store"), CARRIER)
    store = opened(tmp_path / "store")
    assert list(store.scene_id.values) == ["a", "b", "c", "d"]
    assert sorted(store.split.values) == ["test", "train", "train", "validation"]
    assert store.attrs["split_by"] == "scene"
    other = ImportSettings(frequency=3.5e9, split="test")
    import_channels(files, str(tmp_path / "other"), other)
    assert set(opened(tmp_path / "other").split.values) == {"test"}


def test_a_split_of_every_user_is_taken_as_given(tmp_path):
    split = np.array(["train", "test"] * 6)
    arrays = make()
    import_channels([save(tmp_path / "yard.npz", **arrays, split=split)], str(tmp_path / "store"), CARRIER)
    store = opened(tmp_path / "store")
    for row, name in enumerate(store.split.values):
        np.testing.assert_array_equal(
            store.user_position[row], arrays["user_position"][split == name].astype(np.float32)
        )


def test_normalised_channels_get_their_gain_back_or_say_that_they_have_none(tmp_path):
    arrays = make()
    rms = np.sqrt((np.abs(arrays["csi"]) ** 2).mean((1, 2), keepdims=True))
    gain = 20 * np.log10(rms[:, 0, 0])
    plain = {**arrays, "csi": arrays["csi"] / rms}
    settings = ImportSettings(frequency=3.5e9, normalised=True, split="test")
    import_channels([save(tmp_path / "with.npz", **plain, path_gain=gain)], str(tmp_path / "with"), settings)
    with_gain = opened(tmp_path / "with")
    np.testing.assert_allclose(with_gain.csi[0], arrays["csi"], rtol=1e-5)
    assert attributes_of(with_gain.attrs)["imported"]["level"] == "absolute"
    import_channels([save(tmp_path / "without.npz", **plain)], str(tmp_path / "without"), settings)
    without = opened(tmp_path / "without")
    np.testing.assert_allclose(without.csi[0], plain["csi"], rtol=1e-6)
    assert attributes_of(without.attrs)["imported"]["level"] == "normalised"
    assert "normalised" in attributes_of(without.attrs)["conventions"]["imported"]


def test_users_without_a_channel_are_in_outage_and_users_within_buildings_are_allowed(tmp_path):
    arrays = make()
    arrays["csi"][3] = 0
    height = np.full((40, 40), 9.0)
    settings = ImportSettings(frequency=3.5e9, split="test")
    import_channels([save(tmp_path / "in.npz", **arrays, height=height)], str(tmp_path / "store"), settings)
    assert validate(tmp_path / "store").ok
    store = opened(tmp_path / "store").isel(scene=0)
    np.testing.assert_array_equal(np.flatnonzero(store.outage), [3])
    assert int(store.best_beam[3]) == -1
    assert float(store.path_gain[3]) == -200
    assert len(ChannelDataset(tmp_path / "store", "test", ("csi",))) == 11


def test_the_same_again_changes_nothing_other_channels_are_the_next_version(tmp_path):
    file = save(tmp_path / "yard.npz", **make())
    first = import_channels([file], str(tmp_path / "store"), CARRIER)
    manifest = (first.folder / "manifest.json").read_bytes()
    assert import_channels([file], str(tmp_path / "store"), CARRIER) == first
    assert (first.folder / "manifest.json").read_bytes() == manifest
    save(file, **make(seed=1))
    second = import_channels([file], str(tmp_path / "store"), CARRIER)
    assert second.number == 2
    assert not np.array_equal(opened(tmp_path / "store").csi, xr.open_zarr(first.data).csi)


def test_an_import_that_was_killed_goes_on(tmp_path, monkeypatch):
    files = [save(tmp_path / f"{name}.npz", **make(5, seed=seed)) for seed, name in enumerate("abc")]
    monkeypatch.setattr("wavecity.dataset.importing.importer.UNIT_BYTES", 1)  # a unit for every scene

    def killed(units):
        yield from units[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_channels(files, str(tmp_path / "store"), CARRIER, killed)
    assert not versions(tmp_path / "store")
    left = []
    import_channels(files, str(tmp_path / "store"), CARRIER, lambda units: left.extend(units) or units)
    assert left == [2]
    assert validate(tmp_path / "store").ok


GOOD = make(6)
BAD = {
    "no positions": ({"csi": GOOD["csi"]}, "no array 'user_position'; expected float"),
    "unknown": ({**GOOD, "positions": GOOD["csi"]}, f"array 'positions' is not known; known are {', '.join(LAYOUT)}"),
    "real": ({**GOOD, "csi": GOOD["csi"].real}, "csi is float64, expected complex numbers"),
    "one axis": ({**GOOD, "csi": GOOD["csi"][:, :, 0]}, "csi has shape (6, 8), expected complex (user, x, y)"),
    "nan": ({**GOOD, "csi": np.where(np.arange(6)[:, None, None] == 2, np.nan, GOOD["csi"])}, "csi[2, 0, 0] is not finite"),
    "huge": ({**GOOD, "csi": GOOD["csi"] * 1e60}, "csi is too large for complex64"),
    "flat": ({**GOOD, "user_position": GOOD["user_position"][:, :2]}, "user_position has shape (6, 2), expected (6, 3)"),
    "far": ({**GOOD, "user_position": GOOD["user_position"] * 9}, "give --tile-size, or the base station's place"),
    "gap": ({**GOOD, "scene": np.array([0, 0, 2, 2, 2, 2])}, "scene has numbers 0 to 2, some without users"),
    "twice": ({**GOOD, "scene": np.array(["a"] * 6), "scene_id": np.array(["b"])}, "scene has names already"),
    "names": ({**GOOD, "scene_id": np.array(["a", "b"])}, "scene_id has shape (2,), expected (1,)"),
    "split": ({**GOOD, "split": np.array(["train", "dev"] * 3)}, "split holds 'dev', expected train, validation, test"),
    "oblong": ({**GOOD, "height": np.zeros((40, 30))}, "height has shape (40, 30), expected (1, n, n) or (n, n)"),
    "grain": ({**GOOD, "height": np.zeros((45, 45))}, "n a multiple of 10"),
    "dug": ({**GOOD, "height": np.full((40, 40), -1.0)}, "height is -1 m somewhere"),
    "los": ({**GOOD, "los": np.ones(6)}, "los is float64, expected bool (user,)"),
    "few": ({name: values[:2] for name, values in GOOD.items()}, "2 users of scene bad cannot be divided into 3 splits"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named_in_one_line_and_nothing_is_published(tmp_path, name):
    arrays, words = BAD[name]
    file = save(tmp_path / "bad.npz", **arrays)
    with pytest.raises(InputError) as caught:
        import_channels([file], str(tmp_path / "store"), CARRIER)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_files_that_do_not_fit_together_are_refused(tmp_path):
    one = save(tmp_path / "one.npz", **make())
    with pytest.raises(InputError, match=r"two\.npz: csi of 4 x 4, in one\.npz it is 8 x 4"):
        import_channels([one, save(tmp_path / "two.npz", **make(shape=(4, 4)))], str(tmp_path / "store"), CARRIER)
    with pytest.raises(InputError, match=r"one\.npz: given twice"):
        import_channels([one, one], str(tmp_path / "store"), CARRIER)
    named = [save(tmp_path / f"{name}.npz", **make(), scene_id=np.array(["same"])) for name in "xyz"]
    with pytest.raises(InputError, match="scene 'same' is there twice"):
        import_channels(named, str(tmp_path / "store"), CARRIER)
    (tmp_path / "text.npz").write_text("no archive")
    np.save(tmp_path / "single.npy", np.zeros(3))
    for name, words in (
        ("text.npz", "cannot be read as .npz"),
        ("single.npy", "a single array"),
        ("no.npz", "No such"),
    ):
        with pytest.raises(InputError, match=words):
            import_channels([tmp_path / name], str(tmp_path / "store"), CARRIER)


def test_a_store_that_was_built_from_a_recipe_stays_what_it_is(tmp_path):
    build_store(tmp_path / "store")
    before = json.loads((tmp_path / "store" / "latest.zarr" / "zarr.json").read_text())
    # What a build writes; the toy has none.
    with pytest.raises(InputError, match="built from a recipe; name another store"):
        import_channels([save(tmp_path / "yard.npz", **make())], str(tmp_path / "store"), CARRIER)
    assert json.loads((tmp_path / "store" / "latest.zarr" / "zarr.json").read_text()) == before


def run(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], standalone_mode=False)


def test_the_command_line_imports_inspects_and_validates(tmp_path):
    file, store = save(tmp_path / "yard.npz", **make()), tmp_path / "store"
    done = run("import-channels", file, "--out", store, "--frequency", "3.5e9", "--bs-position", 0, 95, 25,
               "--licence", "CC-BY-4.0", "--attribution", "Example Lab", "--test", 0.25)  # fmt: skip
    assert done.exception is None
    assert f"published v1: {store / 'versions' / 'v1' / 'data.zarr'}" in done.output
    attributes = opened(store).attrs
    assert (attributes["licence"], attributes["attribution"]) == ("CC-BY-4.0", "Example Lab")
    assert attributes["bs_position_m"] == [0, 95, 25]
    assert dict(zip(opened(store).split.values, opened(store).n_users.values, strict=True))["test"] == 3
    shown = run("inspect", store, "--scenes")
    assert shown.exception is None
    assert "imported from yard.npz" in shown.output
    assert "height is 0" in shown.output
    assert run("publish", store).exception is None
    wrong = run("import-channels", file, "--out", store, "--frequency", -5)
    assert str(wrong.exception) == "--frequency -5.0: input should be greater than 0"
    card = run("inspect", store, "--card", tmp_path / "card.html")
    assert "imported channels have none" in str(card.exception)


def test_importing_and_validating_need_the_base_install_alone(tmp_path):
    """Without the extras there is neither shapely nor geopandas."""
    file = save(tmp_path / "yard.npz", **make())
    code = (
        "import sys; sys.modules['shapely'] = sys.modules['geopandas'] = None\n"
        "from wavecity.flows.cli import cli\n"
        "cli.main(sys.argv[1:5] + ['--frequency', '3.5e9'], standalone_mode=False)\n"
        "cli.main(['inspect', sys.argv[4]], standalone_mode=False)\n"
        "cli.main(['validate', sys.argv[4], '--workers', '1'], standalone_mode=False)\n"
    )
    shown = python(code, "import-channels", file, "--out", tmp_path / "store")
    assert "not checked: los" in shown
    assert shown.rstrip().endswith("valid")

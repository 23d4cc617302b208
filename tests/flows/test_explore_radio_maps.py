"""Radio maps of `wavecity explore` in a real browser."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from pages import ABOVE, NEEDS_CHROMIUM, Opened, colour, colours, opened, pixel
from toy import ATTRIBUTES, make_layout, write_synthetic_unit

from wavecity.dataset.draft import open_draft
from wavecity.dataset.files import open_group
from wavecity.dataset.finish import finish_draft, seal
from wavecity.flows.explore.server import serving
from wavecity.flows.explore.site import make_site

pytestmark = [pytest.mark.system, NEEDS_CHROMIUM]

CELLS, SPACING = 20, 10.0


@pytest.fixture
def radio_store(tmp_path: Path) -> Path:
    """The toy with radio maps of cells of 10 m, as a build leaves them: strong in the north-east, silent in the south."""
    draft = open_draft(tmp_path / "store", "radio0123456789abcdef", make_layout())
    for unit in draft.missing():
        write_synthetic_unit(draft, unit)
    gain = np.full((6, CELLS, CELLS), -110, np.float32)
    gain[:, :10, 10:] = -70
    gain[:, -1] = -200
    # The block of the toy's buildings: 80 to 40 m west, 25 to 60 m north; the quarantined scene has nothing.
    block = np.zeros((CELLS, CELLS), bool)
    block[4:7, 2:6] = True
    gain[:, block] = gain[3] = np.nan
    seen = np.where(np.isnan(gain), np.nan, gain == -70).astype(np.float32)
    beam = np.where(np.isnan(gain), np.nan, np.where(gain == -200, -1, 31 * 32 + 5)).astype(np.float32)
    # 0 both where one path arrives and where none does.
    spread = np.where(np.isnan(gain), np.nan, np.where(gain == -70, 40, 0)).astype(np.float32)
    group = open_group(draft.data, "r+").create_group("radio_map")
    for name, values, units in (
        ("path_gain", gain, "dB"), ("los", seen, "1"), ("delay_spread", spread, "ns"), ("best_beam", beam, "1"),
    ):  # fmt: skip
        array = group.create_array(
            name, shape=values.shape, shards=(2, CELLS, CELLS), chunks=(1, CELLS, CELLS), dtype="float32",
            fill_value=np.nan, dimension_names=("scene", "map_row", "map_column"),
            attributes={"units": units, "long_name": name, "spacing_m": SPACING, "receiver_height_m": 1.5},
        )  # fmt: skip
        array[:] = values
    finish_draft(draft, ATTRIBUTES, {"map": {"name": "toy"}})
    seal(draft)
    return Path(draft.folder)


def test_a_radio_map_lies_on_the_ground_where_its_cells_are(chromium: Any, radio_store: Path) -> None:
    with serving(make_site(radio_store)) as address, opened(chromium, address) as look:
        page = look.go(f"#/scene/toy-0000?map=path_gain&users=none&{ABOVE}")
        page.wait_for_function("document.querySelector('canvas')?.dataset.map === 'path_gain'")
        strong, weak, silent, roof = colours(page, (55, 45), (-55, -45), (-55, -95), (-60, 45))
        # The ends of magma, grey, and no map where a building stands.
        np.testing.assert_allclose(strong, colour("#fcfdbf"), atol=8)
        np.testing.assert_allclose(weak, colour("#000004"), atol=8)
        np.testing.assert_allclose(silent, colour("#b4b9be"), atol=8)
        assert min(np.abs(roof - other).max() for other in (strong, weak, silent)) > 30
        key = look.text(".keys").replace("\xa0", " ")
        assert "Ground: path gain" in key
        assert "−110 dB" in key
        assert "−70 dB" in key
        assert f"no path: {100 * 20 / 388:.1f} % of the cells" in key
        assert "At 1.5 m above ground, in 388 cells of 10.0 m" in key
        page.mouse.move(*pixel(page, 55, 45))
        page.wait_for_selector(".hint")
        assert look.text(".hint").replace("\xa0", " ").splitlines() == ["path gain: −70 dB", "55, 45 m"]
        page.mouse.move(*pixel(page, -55, -95))
        page.wait_for_function("document.querySelector('.hint')?.innerText.startsWith('no path')")
        assert look.problems == []


def test_every_metric_of_a_radio_map_can_be_chosen_and_its_code_copied(chromium: Any, radio_store: Path) -> None:
    with serving(make_site(radio_store)) as address, opened(chromium, address) as look:
        page = look.go(f"#/scene/toy-0004?{ABOVE}")
        choice = page.locator("label:has-text('Ground by') select")
        # Only those that the store has.
        assert choice.locator("option").all_inner_texts() == [
            "nothing", "path gain", "line of sight", "RMS delay spread", "best beam, horizontal index",
        ]  # fmt: skip
        choice.select_option("los")
        page.wait_for_function("document.querySelector('canvas').dataset.map === 'los'")
        assert "map=los" in page.url
        assert "line of sight\n" in look.text(".keys") + "\n"
        shown, hidden = colours(page, (-5, 5), (5, 45))
        np.testing.assert_allclose(hidden, colour("#0072b2"), atol=8)
        np.testing.assert_allclose(shown, colour("#e69f00"), atol=8)
        page.click("main > .code summary")
        names: dict[str, Any] = {}
        exec(page.inner_text("main > .code pre[data-code='xarray']"), names)
        values = zarr.open_array(radio_store / "data.zarr/radio_map/los", mode="r")[4]
        np.testing.assert_array_equal(names["radio_map"], values)
        choice.select_option("delay_spread")
        page.wait_for_function("document.querySelector('canvas').dataset.map === 'delay_spread'")
        page.select_option("label:has-text('Users by') select", "none")
        long, short, silent = colours(page, (55, 45), (-55, -45), (-55, -95))
        for shown, expected in ((long, "#fde725"), (short, "#440154"), (silent, "#b4b9be")):
            np.testing.assert_allclose(shown, colour(expected), atol=8)
        assert f"no path: {100 * 20 / 388:.1f} % of the cells" in look.text(".keys").replace("\xa0", " ")
        choice.select_option("best_beam")
        page.wait_for_function("document.querySelector('canvas').dataset.map === 'best_beam'")
        choice.select_option("")
        page.wait_for_function("document.querySelector('canvas').dataset.map === ''")
        assert "map=" not in page.url
        assert look.problems == []


def test_stores_without_radio_maps_do_not_offer_them(look: Opened) -> None:
    page = look.go("#/scene/toy-0000?map=path_gain")
    assert page.locator("label:has-text('Ground by')").count() == 0


def test_a_missing_radio_map_is_said_where_it_would_be_explained(chromium: Any, radio_store: Path) -> None:
    site = make_site(radio_store)
    shutil.rmtree(radio_store / "data.zarr/radio_map/path_gain/c/0")
    with serving(site) as address, opened(chromium, address) as look:
        page = look.go("#/scene/toy-0000?map=path_gain")
        page.wait_for_selector("text=Cannot show the radio map")
        assert "data.zarr/radio_map/path_gain/c/0/0/0 is missing" in look.text()
        assert page.locator(".users tbody tr").count() == 8

"""DeepMIMO v4 scenarios (PyPI `deepmimo`): a folder of path matrices and triangles for each scene.

Nothing here imports the package: its files are JSON and NumPy's `.npz`. Not through its converter from Sionna, which
drops the carrier's phase and takes 25 paths of a user.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wavecity.dataset.buildings import read_buildings
from wavecity.dataset.exchange.blocks import GROUND, ROOF, WALL, Block, ground, prism
from wavecity.dataset.exchange.deepmimo_paths import EXACT_DIGITS, csi_of, rereferenced, rotation, to_deepmimo
from wavecity.dataset.exchange.exporter import Item
from wavecity.dataset.exchange.scenario_files import (
    about,
    plain_name,
    radio_of,
    scenario_items,
    scene_lines,
    several_lines,
)
from wavecity.dataset.exchange.selection import PATH_FIELDS, Scene, Selection, Station, needed, with_paths
from wavecity.dataset.files import read_json
from wavecity.dataset.reader import open_store
from wavecity.dataset.records import Content, attributes_of
from wavecity.dataset.schema import Arrays, Values
from wavecity.dataset.views import radio_of_panel
from wavecity.geo.errors import InputError
from wavecity.raytrace.settings import RadioSettings

FIELDS = (*PATH_FIELDS, "paths/power_cut", "user_position", "height")
# Sets of transmitters and receivers.
TX, RX = 0, 1
# Version of DeepMIMO whose files these are.
VERSION = "4.0.5"
# DeepMIMO's own defaults: OFDM subcarriers of which the first, at the carrier, is selected.
SUBCARRIERS = 512
METRES_PER_DEGREE = 111_320.0
# ITU-R P.2040-3: relative permittivity, and c and d of the conductivity c f^d in S/m, f in GHz.
MATERIALS = {
    "concrete": (5.24, 0.0462, 0.7822),
    "brick": (3.91, 0.0238, 0.16),
    "wood": (1.99, 0.0047, 1.0718),
    "glass": (6.31, 0.0036, 1.3394),
    "marble": (7.074, 0.0055, 0.9262),
    "asphalt_concrete": (4.83, 0.0108, 1.3969),
    "metal": (1.0, 1e7, 0.0),
}


class LoadedScenario(Protocol):
    """What `deepmimo.load` returns, as far as it is used here."""

    phase: NDArray[np.floating]
    aod_el: NDArray[np.floating]
    aod_az: NDArray[np.floating]
    rt_params: Content
    txrx: Content

    def compute_channels(self, params: object = None, **options: object) -> NDArray[np.complexfloating]:
        """Compute channels of all users."""


class Scenarios:
    """The format `deepmimo`."""

    def __init__(self, store: str, array: str | None) -> None:
        with_paths(store)
        needed("geopandas", "generate", "the buildings of a DeepMIMO scenario")
        self.radio = array_settings(store, array)

    def settings(self) -> dict[str, object]:
        """The array of the phases."""
        return self.radio.model_dump(mode="json")

    def items(self, selection: Selection) -> list[Item]:
        """A scenario for each scene."""
        return scenario_items(selection, {scene.id: plain_name(scene.id) for scene in selection.scenes})

    def write(self, selection: Selection, item: Item, path: Path) -> None:
        """Write a scenario's folder."""
        (scene,) = item.scenes
        blocks = scene_blocks(selection, scene)
        path.mkdir()
        links: list[tuple[Station, Arrays]] = []
        reached: list[NDArray[np.bool_]] = []
        for tx, station in enumerate(selection.stations(scene)):
            values = selection.read(scene, station.number)
            matrices = path_matrices(values, radio_of(self.radio, station), station.position)
            matrices["rx_pos"] = (values["user_position"] + station.position).astype(np.float32)
            matrices["tx_pos"] = station.position[None].astype(np.float32)
            for name, matrix in matrices.items():
                _save(path / f"{name}_{suffix(TX, tx, RX)}.npz", {name: matrix})
            # What the description needs of a link, without the paths themselves.
            links.append(
                (station, {name: values[name] for name in ("height", "paths/power_cut", "paths/interactions")})
            )
            reached.append(np.isfinite(matrices["power"][:, 0]))
        _write_blocks(path, blocks)
        params = _params(selection, scene, self.radio, links, np.array(reached), blocks)
        (path / "params.json").write_text(json.dumps(params, indent=1, ensure_ascii=False), encoding="utf-8")

    def finish(self, selection: Selection, items: Sequence[Item], out: Path) -> str:
        """The page that says how to load the scenarios."""
        radio, attributes = self.radio, selection.attributes
        paths = next(array.shape[2] for name, array in selection.arrays.items() if name.endswith("paths/gain"))
        first = selection.stations(items[0].scenes[0])
        loaded = f'dm.load("{items[0].name}", max_paths={paths})'
        return "\n".join(
            [
                "# DeepMIMO v4 scenarios",
                "",
                attributes["attribution"],
                "",
                "```python",
                "import deepmimo as dm",
                "import numpy as np",
                "",
                f'dm.config.set("scenarios_folder", "{out.resolve()}")',
                *(
                    [f"links = {loaded}  # DeepMIMO loads 25 paths by default", "scenario = links[0]  # a transmitter"]
                    if len(first) > 1
                    else [f"scenario = {loaded}  # DeepMIMO loads 25 paths by default"]
                ),
                f'array = {{"shape": [{radio.columns}, {radio.rows}], "spacing": {radio.spacing}, '
                f'"rotation": {rotation(radio_of(radio, first[0]))}}}',
                f"channel = scenario.compute_channels(dm.ChannelParameters(num_paths={paths}, bs_antenna=array))",
                "",
                "# The same as csi of the dataset, (user, x, y), with y downwards and sqrt(power gain):",
                f"csi = channel[:, 0, :, 0].reshape(-1, {radio.rows}, {radio.columns})[:, ::-1].swapaxes(1, 2)",
                f"csi = csi * np.sqrt({SUBCARRIERS})  # DeepMIMO divides by it",
                "```",
                "",
                *several_lines(selection),
                f"Phases are those of antenna (0, 0) of an array of {radio.columns} x {radio.rows} antennas, "
                f"{radio.spacing} wavelengths apart. For channels of another array:",
                "",
                "```python",
                "from wavecity.dataset.exchange.deepmimo_v4 import scenario_csi",
                "",
                "csi = scenario_csi(scenario, columns=8, rows=4)",
                "```",
                "",
                "Positions of interactions are those of the store (`inter_pos`)."
                if "paths/vertices" in selection.fields
                else "Positions of interactions are not stored (`inter_pos` is NaN), so rays cannot be plotted.",
                "",
                *scene_lines(items),
                "",
            ]
        )


def path_fields(store: str) -> tuple[str, ...]:
    """Arrays of a store that scenarios are made of; where interactions are, if it has that."""
    return (*FIELDS, *["paths/vertices"] * ("vertices" in open_store(store, "paths")))


def array_settings(store: str, array: str | None) -> RadioSettings:
    """Panel of a store, with another size and spacing where `array` says so: `16x8`, `16x8@0.7`."""
    changes: dict[str, float | None] = {}
    if array is not None:
        found = re.fullmatch(r"(\d+)x(\d+)(?:@(\d*\.?\d+))?", array)
        if found is None:
            msg = f"--array {array}: expected COLUMNSxROWS or COLUMNSxROWS@SPACING, e.g. 16x8 or 16x8@0.7"
            raise InputError(msg)
        columns, rows, spacing = found.groups()
        changes = {"columns": int(columns), "rows": int(rows), "spacing": float(spacing) if spacing else None}
    return radio_of_panel(store, attributes_of(open_store(store).attrs), changes, "--array")


def path_matrices(values: Arrays, radio: RadioSettings, base: NDArray[np.floating]) -> Arrays:
    """Path matrices of a scenario as DeepMIMO loads them; `base` (3,) is the base station in m."""
    matrices = to_deepmimo(values, radio)
    place = matrices.pop("inter_pos")
    # DeepMIMO's own converters write all in float32: in such degrees the channel of a deeply faded user is exact to -86 dB.
    single = {"delay", *(["inter"] if place.shape[2] <= EXACT_DIGITS else [])}
    result: Arrays = {
        name: matrix.astype(np.float32) if name in single else matrix for name, matrix in matrices.items()
    }
    result["inter_pos"] = (place + base).astype(np.float32)
    return result


def scene_blocks(selection: Selection, scene: Scene) -> list[Block]:
    """The ground, and the buildings of a scene where the version has them."""
    blocks = [ground(selection.attributes["tile_size_m"])]
    draft = read_json(selection.folder / "draft.json")
    if draft is None:  # a copy of the arrays alone
        return blocks
    path = selection.folder / "buildings" / f"unit-{scene.row // draft['layout']['unit']:05d}.parquet"
    if not path.exists():
        return blocks
    table = read_buildings(path)
    table = table[table["scene_id"] == scene.id]
    columns = (table[name] for name in ("osm_type", "osm_id", "base", "height"))
    for shape, kind, number, base, top in zip(table.geometry, *columns, strict=True):
        block = prism(f"{kind}/{number}", shape, float(base), float(top))
        if block is not None:
            blocks.append(block)
    return blocks


def scenario_csi(
    scenario: LoadedScenario,
    columns: int | None = None,
    rows: int | None = None,
    spacing: float | None = None,
    subcarriers: int | None = None,
    bandwidth: float | None = None,
) -> NDArray[np.complex64]:
    """Channels of a loaded scenario with the axes, level and phase of a dataset's `csi`, computed by DeepMIMO.

    Parameters
    ----------
    scenario : deepmimo.Dataset
        From `deepmimo.load(..., max_paths=...)` of a scenario that was exported from a store; of one with several base
        stations one of its links, `deepmimo.load(...)[0]`.
    columns, rows : int, optional
        Size of the base station's array; that of the export unless given.
    spacing : float, optional
        In wavelengths.
    subcarriers, bandwidth : int and float, optional
        OFDM, Hz; without them the channel at the carrier.

    Returns
    -------
    complex64 (user, [subcarrier], x, y)
        Subcarrier k is k * bandwidth / subcarriers above the carrier.

    Raises
    ------
    InputError
        The scenario was not exported from a store, or it is not a single link.

    Examples
    --------
    >>> scenario = deepmimo.load("helsinki-0003", max_paths=32)
    >>> scenario_csi(scenario, columns=8, rows=4).shape
    (83, 8, 4)
    """
    if links := vars(scenario).get("datasets"):
        msg = f"scenario_csi: the scenario has {len(links)} links; give one of them, e.g. scenario[0]"
        raise InputError(msg)
    origin = dict(scenario.rt_params).get("raw_params", {}).get("wavecity")
    if origin is None:
        msg = "scenario_csi: the scenario was not exported from a store, so nobody says what its phases refer to"
        raise InputError(msg)
    tx = int(dict(scenario.txrx)["tx_idx"]) if "base_stations" in origin else 0
    written = reference_of(origin, float(scenario.rt_params["frequency"]), tx)
    changes = {"columns": columns, "rows": rows, "spacing": spacing}
    radio = written.model_copy(update={name: value for name, value in changes.items() if value is not None})
    paths = int(scenario.phase.shape[1])
    antennas = {"shape": [radio.columns, radio.rows], "spacing": radio.spacing, "rotation": rotation(radio)}
    count = subcarriers or SUBCARRIERS
    ofdm: dict[str, object] = {"subcarriers": count}
    if subcarriers is not None and bandwidth is not None:
        ofdm |= {"selected_subcarriers": np.arange(subcarriers), "bandwidth": bandwidth}
    phase = scenario.phase
    try:
        scenario.phase = rereferenced(phase, scenario.aod_el, scenario.aod_az, written, radio)
        channel = scenario.compute_channels(num_paths=paths, bs_antenna=antennas, ofdm=ofdm)
    finally:
        scenario.phase = phase
    csi = csi_of(channel, radio.columns, radio.rows, count)
    return csi if subcarriers is not None else csi[:, 0]


def reference_of(origin: Content, frequency: float, tx: int = 0) -> RadioSettings:
    """The array that the phases of a transmitter belong to, by what a scenario says of its origin."""
    reference, several = origin["phase_reference"], origin.get("base_stations")
    return RadioSettings(
        frequency=frequency,
        columns=reference["columns"],
        rows=reference["rows"],
        spacing=reference["spacing_wavelengths"],
        azimuth=several["transmitters"][tx]["azimuth_deg"] if several else reference["azimuth_deg"],
        downtilt=reference["downtilt_deg"],
    )


def suffix(tx_set: int, tx: int, rx_set: int) -> str:
    """End of the name of a matrix's file."""
    return f"t{tx_set:03}_tx{tx:03}_r{rx_set:03}"


def _save(path: Path, arrays: Mapping[str, Values]) -> None:
    """Write arrays as `.npz`."""
    np.savez_compressed(path, **Content(arrays))


def _write_blocks(path: Path, blocks: Sequence[Block]) -> None:
    """Write objects as DeepMIMO's lossless triangles."""
    offsets = np.cumsum([0, *(len(block.vertices) for block in blocks)])
    faces = {str(i): block.faces + offset for i, (block, offset) in enumerate(zip(blocks, offsets, strict=False))}
    _save(path / "vertices.npz", {"vertices": np.concatenate([block.vertices for block in blocks])})
    _save(path / "faces.npz", {key: array.astype(np.int32) for key, array in faces.items()})
    materials = {str(i): block.materials.astype(np.int32) for i, block in enumerate(blocks)}
    _save(path / "materials.npz", materials)
    objects = [
        {"name": block.name, "label": block.label, "id": i, "mesh_key": str(i)} for i, block in enumerate(blocks)
    ]
    (path / "objects.json").write_text(json.dumps(objects, ensure_ascii=False), encoding="utf-8")


def _params(
    selection: Selection,
    scene: Scene,
    radio: RadioSettings,
    links: Sequence[tuple[Station, Arrays]],
    reached: NDArray[np.bool_],
    blocks: Sequence[Block],
) -> Content:
    """Content of `params.json`; `reached` (transmitter, user) says who has a path."""
    solver = selection.attributes.get("recipe", {}).get("solver", {})
    # Paths that were imported are another ray tracer's, whose name no store has.
    traced = "imported" not in selection.attributes
    versions = (read_json(selection.folder / "lineage.json") or {}).get("versions", {})
    depth = links[0][1]["paths/interactions"].shape[-1]
    triangles = sum(len(block.faces) for block in blocks)
    return {
        "version": VERSION,
        "rt_params": {
            "raytracer_name": "Sionna Ray Tracing" if traced else "not stated",
            "raytracer_version": versions.get("sionna-rt", "not stated") if traced else "not stated",
            "frequency": radio.frequency,
            "max_path_depth": depth,
            "max_reflections": depth,
            "max_diffractions": int(solver.get("diffraction", False)),
            "max_scattering": int(solver.get("diffuse", False)),
            "max_transmissions": depth if solver.get("refraction", False) else 0,
            "diffuse_reflections": 0,
            "diffuse_diffractions": 0,
            "diffuse_transmissions": 0,
            "diffuse_final_interaction_only": False,
            "diffuse_random_phases": False,
            "terrain_reflection": True,
            "terrain_diffraction": False,
            "terrain_scattering": False,
            "num_rays": solver.get("rays", 1_000_000),
            "ray_casting_method": "fibonacci",
            "synthetic_array": True,
            "ray_casting_range_az": 360.0,
            "ray_casting_range_el": 180.0,
            "gps_bbox": _box(selection, scene),
            # Kept by `deepmimo.load`, as no other key of ours would be.
            "raw_params": {"wavecity": about(selection, scene, radio, links)},
        },
        "txrx_sets": {
            "txrx_set_0": _points(
                "base stations" if selection.has_several else "base station",
                TX,
                is_tx=True,
                count=len(links),
                active=int(reached.any(1).sum()),
            ),
            "txrx_set_1": _points("users", RX, is_tx=False, count=scene.users, active=int(reached.any(0).sum())),
        },
        "scene": {
            "num_scenes": 1,
            "n_objects": len(blocks),
            "n_vertices": sum(len(block.vertices) for block in blocks),
            "n_faces": triangles,
            "n_triangular_faces": triangles,
            "representation": "mesh",
        },
        "materials": _materials(selection, radio),
        "attribution": selection.attributes["attribution"],
        "licence": selection.attributes["licence"],
    }


def _points(name: str, number: int, *, is_tx: bool, count: int, active: int) -> Content:
    """A set of transmitters or receivers."""
    return {
        "name": name,
        "id_orig": number,
        "id": number,
        "is_tx": is_tx,
        "is_rx": not is_tx,
        "num_points": count,
        "num_active_points": active,
        "num_ant": 1,
        "dual_pol": False,
        "ant_rel_positions": [[0, 0, 0]],
        "array_orientation": [0, 0, 0],
    }


def _materials(selection: Selection, radio: RadioSettings) -> dict[str, Content]:
    """Materials of walls, roofs and ground by their number in `materials.npz`."""
    names = {WALL: radio.wall_material, ROOF: radio.roof_material, GROUND: radio.ground_material}
    result = {}
    for number, name in names.items():
        permittivity, c, d = MATERIALS[name]
        result[f"material_{number}"] = {
            "id": number,
            # DeepMIMO makes equal materials one, which would shift the numbers of those after them.
            "name": f"{('wall', 'roof', 'ground')[number]}: ITU {name}",
            "permittivity": permittivity,
            "conductivity": c * (radio.frequency / 1e9) ** d,
            "scattering_model": "lambertian" if radio.scattering else "none",
            "scattering_coefficient": radio.scattering,
            "cross_polarization_coefficient": radio.scattering_xpd,
        }
    return result


def _box(selection: Selection, scene: Scene) -> list[float]:
    """South, west, north and east of a scene's tile in degrees; zeros where its place is not known."""
    if not np.isfinite([scene.latitude, scene.longitude]).all():
        return [0.0, 0.0, 0.0, 0.0]
    north = selection.attributes["tile_size_m"] / 2 / METRES_PER_DEGREE
    east = north / np.cos(np.deg2rad(scene.latitude))
    return [scene.latitude - north, scene.longitude - east, scene.latitude + north, scene.longitude + east]

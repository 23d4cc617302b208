"""A store as HDF5, and as MATLAB files."""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wavecity.dataset.arrays import is_per_user
from wavecity.dataset.exchange.exporter import Item
from wavecity.dataset.exchange.scenario_files import scene_lines
from wavecity.dataset.exchange.selection import Selection, needed
from wavecity.dataset.records import Content
from wavecity.dataset.schema import SCENE_FIELDS
from wavecity.geo.errors import InputError

if TYPE_CHECKING:
    import h5py
    from zarr.types import ArrayV3

# Scenes of a part: units of a store have 16.
PART = 16
WHOLE = "data.h5"
# Bytes of an HDF5 chunk.
CHUNK = 2**20
# MATLAB's version 5 counts a variable's bytes in 32 bits, with sign.
LARGEST = 2**31 - 1


class Hdf5:
    """The format `hdf5`: files of some scenes each, and `data.h5`, in which all of them are one (virtual datasets)."""

    def __init__(self) -> None:
        needed("h5py", "exchange", "--to hdf5")

    def settings(self) -> dict[str, object]:
        """Scenes of a part."""
        return {"part": PART}

    def items(self, selection: Selection) -> list[Item]:
        """A file for 16 scenes."""
        scenes = selection.scenes
        return [
            Item(f"parts/part-{number:05d}.h5", tuple(scenes[first : first + PART]))
            for number, first in enumerate(range(0, len(scenes), PART))
        ]

    def write(self, selection: Selection, item: Item, path: Path) -> None:
        """Write a part, a scene at a time."""
        import h5py

        with h5py.File(path, "w") as file:
            for name, array in selection.arrays.items():
                shape = (len(item.scenes), *_shape(selection, array)[1:])
                file.create_dataset(
                    name,
                    shape,
                    array.dtype,
                    chunks=_chunk(shape, array.dtype.itemsize),
                    compression="gzip",
                    compression_opts=1,
                    shuffle=True,
                    fillvalue=array.fill_value,
                )
            for row, scene in enumerate(item.scenes):
                for name, values in selection.read(scene).items():
                    file[name][(row, *(slice(size) for size in values.shape))] = values

    def finish(self, selection: Selection, items: Sequence[Item], out: Path) -> str:
        """Write `data.h5`."""
        import h5py

        temporary = out / f"{WHOLE}.partial"
        with h5py.File(temporary, "w") as file:
            for name, array in selection.arrays.items():
                shape = (len(selection.scenes), *_shape(selection, array)[1:])
                layout = h5py.VirtualLayout(shape, array.dtype)
                first = 0
                for item in items:
                    part = (len(item.scenes), *shape[1:])
                    layout[first : first + part[0]] = h5py.VirtualSource(item.name, name, part, array.dtype)
                    first += part[0]
                dataset = file.create_virtual_dataset(name, layout, fillvalue=array.fill_value)
                _describe(dataset, array)
            _write_scenes(file, selection)
            for key, value in selection.attributes.items():
                file.attrs[key] = (
                    value if isinstance(value, str | float | int) else json.dumps(value, ensure_ascii=False)
                )
        temporary.rename(out / WHOLE)
        listed = ", ".join(f"`{name}`" for name in selection.arrays)
        return "\n".join(
            [
                "# HDF5",
                "",
                selection.attributes["attribution"],
                "",
                f"`{WHOLE}` shows all scenes as one; their values are in `parts/`, so move the folder as a whole.",
                "",
                "```python",
                "import h5py",
                "",
                f'with h5py.File("{WHOLE}") as file:',
                '    test = file["split"].asstr()[:] == "test"',
                '    users = file["n_users"][:]  # the rest of the user axis is padding',
                f'    first = file["{next(iter(selection.arrays))}"][0, : users[0]]',
                "```",
                "",
                f"Arrays: {listed}. Axes are the labels of their dimensions, units and meaning are attributes; conventions "
                "and licence are attributes of the file, as JSON where they are not text.",
                "",
                *_station_lines(
                    selection, "Arrays of base station k after the first are `bs/k/...`, e.g. `bs/{number}/csi`"
                ),
            ]
        )


class Matlab:
    """The format `mat`: a MATLAB file (version 5) for each scene."""

    def __init__(self) -> None:
        needed("scipy.io", "exchange", "--to mat")

    def settings(self) -> dict[str, object]:
        """Nothing."""
        return {}

    def items(self, selection: Selection) -> list[Item]:
        """A file for each scene."""
        names = [re.sub(r"[^\w.-]", "_", scene.id) for scene in selection.scenes]
        if len(set(names)) < len(names):
            msg = f"{selection.store}: two scenes would have the same file; export them apart with --scenes"
            raise InputError(msg)
        sizes: Counter[str] = Counter()
        for field, array in selection.arrays.items():
            # A struct is one variable, with all of its fields.
            variable = field.split("/")[0]
            sizes[variable] += array.dtype.itemsize * math.prod(_shape(selection, array)[1:])
            if sizes[variable] > LARGEST:
                msg = (
                    f"{selection.store}: {variable} of a scene has {sizes[variable] / 1e9:.1f} GB, a variable of a MATLAB file "
                    "holds 2; use --to hdf5, or leave arrays out with --fields"
                )
                raise InputError(msg)
        return [Item(f"{name}.mat", (scene,)) for name, scene in zip(names, selection.scenes, strict=True)]

    def write(self, selection: Selection, item: Item, path: Path) -> None:
        """Write a scene's file."""
        from scipy.io import savemat

        (scene,) = item.scenes
        content: Content = {}
        for name, values in selection.read(scene).items():
            *groups, last = name.split("/")
            place = content
            for group in groups:
                # Names of fields begin with a letter in MATLAB.
                place = place.setdefault(f"bs{group}" if group.isdecimal() else group, {})
            place[last] = values
        about: Content = {name: selection.attributes[name] for name in ("frequency_hz", "bs_position_m", "tile_size_m")}
        about["bs_position_m"] = np.asarray(about["bs_position_m"], np.float64)
        text = {name: selection.attributes[name] for name in ("attribution", "licence")}
        conventions = json.dumps(selection.attributes["conventions"], ensure_ascii=False)
        if selection.has_several:
            text["base_station_settings"] = json.dumps(selection.attributes["base_stations"])
        if "trajectory" in selection.attributes:
            text["trajectory_settings"] = json.dumps(selection.attributes["trajectory"], ensure_ascii=False)
        array = dict(selection.attributes["array"])
        content |= {**scene.facts(), **about, **text, "array": array, "conventions": conventions}
        savemat(path, content, appendmat=False, do_compression=True, long_field_names=True)

    def finish(self, selection: Selection, items: Sequence[Item], out: Path) -> str:
        """The page that says what is in a file."""
        return "\n".join(
            [
                "# MATLAB files",
                "",
                selection.attributes["attribution"],
                "",
                "```matlab",
                f"scene = load('{items[0].name}');",
                "size(scene.csi)      % users, x, y",
                "scene.attribution",
                "```",
                "",
                "Arrays have the names, units and conventions of the dataset, without padding; those of group `paths` are "
                "fields of the struct `paths`.",
                "",
                *_station_lines(
                    selection,
                    "Arrays of base station k after the first are in `bs.bsk`, e.g. `scene.bs.bs{number}.csi`",
                ),
                *scene_lines(items),
                "",
            ]
        )


def _station_lines(selection: Selection, where: str) -> list[str]:
    """Where the links of several base stations are; `where` names a `number`."""
    if not selection.has_several:
        return []
    number = max(max(selection.numbers), 1)
    numbers = ", ".join(map(str, selection.numbers))
    return [
        f"Links of base stations {numbers}. {where.format(number=number)}; `user_position` is relative to the base station. "
        "Group `bs` has positions, azimuths and cells of all base stations; one that found no place has position NaN.",
        "",
    ]


def _shape(selection: Selection, array: "ArrayV3") -> tuple[int, ...]:
    """Shape of an array in the export: users as many as the largest scene has."""
    users = max(scene.users for scene in selection.scenes)
    return (array.shape[0], users, *array.shape[2:]) if is_per_user(array) else array.shape


def _chunk(shape: tuple[int, ...], item: int) -> tuple[int, ...]:
    """Chunk of an array: of one scene, users of some `CHUNK` bytes together, one at least."""
    if len(shape) < 2:
        return shape
    rows = max(min(CHUNK // (item * math.prod(shape[2:])), shape[1]), 1)
    return 1, rows, *shape[2:]


def _describe(dataset: "h5py.Dataset", array: "ArrayV3") -> None:
    """Names of the axes, unit and meaning."""
    for axis, label in enumerate(array.metadata.dimension_names or ()):  # type: ignore[union-attr]
        dataset.dims[axis].label = label or ""
    for name, value in array.attrs.items():
        if name in ("units", "long_name"):
            dataset.attrs[name] = value


def _write_scenes(file: "h5py.File", selection: Selection) -> None:
    """Coordinates of the scenes."""
    import h5py

    units = {field.name: field for field in SCENE_FIELDS}
    columns: dict[str, list[object]] = {}
    for scene in selection.scenes:
        place = {"latitude": scene.latitude, "longitude": scene.longitude}
        for name, value in {**scene.facts(), **place}.items():
            columns.setdefault(name, []).append(value)
    for name, values in columns.items():
        field = units[name]
        text = field.dtype == "str"
        dataset = file.create_dataset(name, data=values, dtype=h5py.string_dtype() if text else field.dtype)
        dataset.dims[0].label = "scene"
        dataset.attrs["long_name"] = field.long_name
        if field.units:
            dataset.attrs["units"] = field.units

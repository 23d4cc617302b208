"""A store as tar shards that WebDataset reads: one sample for each user, of several base stations one for each link.

Written with Python's own tarfile: WebDataset's writer would import torch, and puts the time into every member.
"""

import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from wavecity.dataset.arrays import is_per_user
from wavecity.dataset.exchange.exporter import Item
from wavecity.dataset.exchange.selection import SPLITS, Scene, Selection, Station
from wavecity.dataset.reader import open_store
from wavecity.dataset.records import Content
from wavecity.dataset.schema import Values
from wavecity.geo.errors import InputError

# Arrays unless others are asked for; single values of a user are in its JSON.
FIELDS = ("csi", "user_position", "path_gain", "los", "outage", "best_beam")
# A shard has at least one scene, and else no more bytes than this.
SHARD = 2**28


class Tar:
    """The format `webdataset`."""

    def settings(self) -> dict[str, object]:
        """Bytes of a shard."""
        return {"shard": SHARD}

    def items(self, selection: Selection) -> list[Item]:
        """Shards of each split, of whole scenes in their order."""
        keys = Counter(_key(scene) for scene in selection.scenes)
        twice = [key for key, count in keys.items() if count > 1]
        if twice:
            msg = f"{selection.store}: two scenes would have the keys {twice[0]}-...; export them apart with --scenes"
            raise InputError(msg)
        sample = sum(int(np.prod(_user_shape(array.shape, is_per_user(array)))) * array.dtype.itemsize
                     for number in selection.numbers for array in selection.link_arrays(number).values())  # fmt: skip
        items = []
        for split in (*SPLITS, *sorted({scene.split for scene in selection.scenes} - set(SPLITS))):
            for number, scenes in enumerate(_shards(selection.scenes, split, sample)):
                items.append(Item(f"{split}-{number:06d}.tar", tuple(scenes)))
        return items

    def write(self, selection: Selection, item: Item, path: Path) -> None:
        """Write a shard, a scene at a time."""
        about: Content = {name: selection.attributes[name] for name in ("attribution", "licence")}
        with tarfile.open(path, "w") as tar:
            for scene in item.scenes:
                for station in selection.stations(scene):
                    _add_link(tar, selection, scene, station, about)

    def finish(self, selection: Selection, items: Sequence[Item], out: Path) -> str:
        """The page that says how to read the shards."""
        shards = Counter(item.name.rsplit("-", 1)[0] for item in items)
        split, count = next(iter(shards.items()))
        users = dict.fromkeys(shards, 0)
        for item in items:
            samples = sum(scene.users * len(selection.stations(scene)) for scene in item.scenes)
            users[item.name.rsplit("-", 1)[0]] += samples
        first = next((name.replace("/", "_") for name in selection.fields if name == "csi"), selection.fields[0])
        return "\n".join(
            [
                "# WebDataset shards",
                "",
                selection.attributes["attribution"],
                "",
                "```python",
                "import webdataset as wds",
                "",
                f'urls = "{split}-{{000000..{count - 1:06d}}}.tar"',
                f'data = wds.WebDataset(urls, shardshuffle={count}).shuffle(1000).decode().to_tuple("{first}.npy", "json")',
                "```",
                "",
                f"A sample is a {'link of a user and a base station' if selection.has_several else 'user'}; its JSON has the "
                f"scene, city, split{', base station' * selection.has_several} and single values. Conventions are those of the "
                "dataset:",
                "",
                *(f"- {name}: {text}" for name, text in selection.attributes["conventions"].items()),
                "",
                f"| split | shards | {'samples' if selection.has_several else 'users'} |",
                "|---|---|---|",
                *(f"| {name} | {shards[name]} | {users[name]} |" for name in shards),
                "",
            ]
        )


def fields_of(store: str) -> tuple[str, ...]:
    """Arrays unless others are asked for; of several base stations with the one that serves the user."""
    return (*FIELDS, *["bs/serving"] * ("base_stations" in open_store(store).attrs))


def _add_link(tar: tarfile.TarFile, selection: Selection, scene: Scene, station: Station, about: Content) -> None:
    """Add a sample for each user of a base station."""
    arrays = selection.link_arrays(station.number)
    values = selection.read(scene, station.number)
    per_user = {name: is_per_user(arrays[name]) for name in values}
    of_link: Content = {}
    if selection.has_several:
        known = station.facts()
        of_link = {"bs": known["number"], "bs_position_m": known["position_m"], "bs_azimuth_deg": known["azimuth_deg"]}
    for user in range(scene.users):
        key = f"{_key(scene)}-{user:05d}" + f"-bs{station.number}" * selection.has_several
        facts: Content = {**scene.facts(), "user": user, **of_link, **about}
        for name, array in values.items():
            value = array[user] if per_user[name] else array
            if value.ndim:
                _add(tar, f"{key}.{name.replace('/', '_')}.npy", _npy(value))
            else:
                facts[name] = value.item()
        _add(tar, f"{key}.json", json.dumps(facts, ensure_ascii=False).encode())


def _shards(scenes: Sequence[Scene], split: str, sample: int) -> Iterator[list[Scene]]:
    """Scenes of a split by shard; `sample` is a user's bytes."""
    shard: list[Scene] = []
    for scene in scenes:
        if scene.split != split:
            continue
        if shard and sample * sum(one.users for one in (*shard, scene)) > SHARD:
            yield shard
            shard = []
        shard.append(scene)
    if shard:
        yield shard


def _key(scene: Scene) -> str:
    """Start of the keys of a scene's users: WebDataset ends a key at the first dot."""
    return re.sub(r"[^\w-]", "_", scene.id)


def _user_shape(shape: tuple[int, ...], per_user: bool) -> tuple[int, ...]:
    """Shape of an array's values for one user."""
    return shape[2:] if per_user else shape[1:]


def _npy(value: Values) -> bytes:
    """An array as `.npy`."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(value))
    return file.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a member; without time and owner the same data give the same bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))

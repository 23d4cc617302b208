"""The users of a split, the links of one or all base stations among them, and where they are in the store."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from zarr.types import ArrayV3

from wavecity.dataset.arrays import open_arrays
from wavecity.dataset.bands import Carrier, Port
from wavecity.dataset.base_stations import Links, chosen
from wavecity.dataset.files import StorePath
from wavecity.dataset.reader import open_store, resolve
from wavecity.dataset.records import StoreAttributes, attributes_of
from wavecity.dataset.selection import rows_of
from wavecity.geo.errors import InputError


@dataclass(frozen=True)
class Users:
    """The users of one split, and the arrays that hold them.

    Attributes
    ----------
    path : path
        The Zarr group, with the `latest` pointer followed.
    split : str
    scene_index, user_index : int64 (N,)
        Scene and user of every sample, as in the store; scenes ascend. With `links` scene s of base station k is scene
        `k * scenes + s` (`arrays.LinkArray`).
    unit : int64 (N,)
        Unit (shard) of every sample.
    attrs : dict
        Attributes of the store.
    cities : str (scene,)
        City of every scene of the store, empty where it has none.
    links : int
        Number of the store's base stations where they were asked for; 0: the links of base station 0 are read.
    scenes : int
        Of the store.
    carrier : float, "all" or None
        Which carrier is read, of a store with several.
    port : str or None
        Which pair of ports, of a store with several.
    """

    path: StorePath
    split: str
    scene_index: NDArray[np.int64]
    user_index: NDArray[np.int64]
    unit: NDArray[np.int64]
    attrs: StoreAttributes
    cities: NDArray[np.str_] = field(default_factory=lambda: np.array([], str))
    links: int = 0
    scenes: int = 0
    carrier: Carrier = None
    port: Port = None

    def identity(self, scene_index: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        """`scene` as in the store, and with `links` the number `bs` of the base station."""
        if not self.links:
            return {"scene": scene_index}
        return {"scene": scene_index % self.scenes, "bs": scene_index // self.scenes}

    def open_arrays(self, fields: Sequence[str]) -> dict[str, ArrayV3]:
        """Arrays of the links, carriers and ports that are read."""
        return open_arrays(self.path, fields, self.links, self.carrier, self.port)

    def __len__(self) -> int:
        return len(self.scene_index)

    def facts(self) -> list[tuple[str, str]]:
        """What readers show of themselves."""
        identity = self.identity(self.scene_index)
        scenes = np.unique(identity["scene"])
        numbers = np.unique(identity["bs"]).tolist() if self.links else []
        places = np.unique(self.cities[scenes]).tolist() if len(self.cities) else []
        more = f" and {len(places) - 4} more" if len(places) > 4 else ""
        where = f" in {', '.join(places[:4])}{more}" if places else ""
        return [
            ("store", f"{self.path}, fingerprint {str(self.attrs.get('fingerprint', ''))[:16]}"),
            ("split", self.split),
            ("users", f"{len(self):,} of {len(scenes):,} scene{'s' * (len(scenes) != 1)}{where}"),
            *([("base stations", ", ".join(map(str, numbers)))] if self.links else []),
        ]

    def spread(self, limit: int | None) -> "Users":
        """At most `limit` of these users, evenly spread over them."""
        count = len(self)
        if limit is None or count <= limit:
            return self
        chosen = np.arange(limit) * count // limit
        parts = {name: getattr(self, name)[chosen] for name in ("scene_index", "user_index", "unit")}
        return replace(self, **parts)


def find_users(
    store: str | StorePath,
    split: str,
    include_outage: bool = False,
    verify: bool = False,
    scenes: Sequence[str] | None = None,
    cities: Sequence[str] | None = None,
    version: int | None = None,
    bs: Links | None = None,
    carrier: Carrier = None,
    port: Port = None,
) -> Users:
    """Look up the users of a split.

    Parameters
    ----------
    store : path or URL
        Folder of a build, of a version, or a `.zarr`.
    split : str
        `train`, `validation` or `test`.
    include_outage : bool
        Whether users without a path count.
    verify : bool
        Whether every byte of the store is compared with its manifest.
    scenes, cities : sequence of str, optional
        Only these scenes, by id or a pattern such as `helsinki-*`, and only those of these cities.
    version : int, optional
        Number of a published version; the latest by default.
    bs : int or "all", optional
        Of several base stations the one whose links are the samples, or all of them; by default base station 0.
    carrier : float or "all", optional
        Of a store with several: the one with this frequency in Hz, or all; then a user counts who has a path at any.
    port : str, optional
        Of a store with several pairs of ports: the one of this name, or `all`.

    Raises
    ------
    InputError
        Not a store, files of it are missing or damaged, no such version, scene, city, base station or carrier, or a
        split without scenes.
    """
    path = resolve(store, version)
    data = open_store(path, verify=verify, carrier=carrier, port=port)
    splits = data["split"].values.astype(str)
    n_users = data["n_users"].values
    wanted = np.ones(len(splits), bool)
    if scenes is not None or cities is not None:
        ids, places = (data[name].values if name in data.coords else None for name in ("scene", "city"))
        wanted = rows_of(store, ids, places, scenes, cities)
    rows = np.flatnonzero((splits == split) & (n_users > 0) & wanted)
    if not len(rows):
        msg = f"{store}: split {split!r} has no scene; it has {', '.join(sorted(set(splits)))}"
        if not wanted.all():
            msg = (
                f"{store}: no chosen scene is in split {split!r}; they are in {', '.join(sorted(set(splits[wanted])))}"
            )
        raise InputError(msg)
    attributes, count = attributes_of(data.attrs), data.sizes["scene"]
    numbers = None if bs is None else chosen(store, attributes, bs)
    links = len(chosen(store, attributes, "all")) if numbers and "base_stations" in attributes else 0
    if links and numbers:
        rows = (np.array(numbers)[:, None] * count + rows).ravel()
    real = np.arange(data.sizes["user"]) < n_users[rows % count, None]
    outage = open_arrays(path, ("outage",), links, carrier, port)["outage"]
    if not include_outage:
        # The whole array at once: it is small, and zarr takes milliseconds for every request.
        lost = np.asarray(outage[:])[rows]
        real &= ~(lost if lost.ndim == 2 else lost.all(axis=2))
    row, user_index = np.nonzero(real)
    scene_index = rows[row]
    shard = (outage.shards or outage.chunks)[0]
    number, scene = np.divmod(scene_index, count)
    return Users(
        path,
        split,
        scene_index,
        user_index,
        number * -(-count // shard) + scene // shard,
        attributes,
        data["city"].values.astype(str) if "city" in data.coords else np.array([], str),
        links,
        count,
        carrier,
        port,
    )

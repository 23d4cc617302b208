"""What the temporal model takes from a dataset: wideband CSI along users' trajectories, by index."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wavecity.dataset import InputError
from wavecity.dataset.records import attributes_of
from wavecity.model.data.angle_delay import single_row
from wavecity.model.data.json_types import Json
from wavecity.model.data.users import SPLITS, Rows, Samples, manifest_of, open_splits, picked

CSI = "trajectory/csi"
FIELDS = (CSI, "trajectory/velocity", "trajectory/kind")
# Users of a split that are looked at before training.
CHECKED = 256
# `trajectory/kind`, in the order of its numbers.
KINDS = ("walker", "vehicle", "cyclist")


@dataclass(frozen=True)
class TemporalUsers(Rows):
    """Users' trajectories in tensors."""

    csi: Tensor  # complex64 (N, T, F, X); channel at T snapshots, F subcarriers and X antennas of the linear array
    kind: Tensor  # int64 (N,); place in `KINDS`
    speed: Tensor  # float32 (N,); mean |velocity| over the snapshots, m/s
    scene: Tensor  # int64 (N,); row of the scene in the store


@dataclass(frozen=True)
class TemporalData:
    """A dataset with trajectories as the model sees it."""

    # `train`, `validation`, `test` -> `Samples`, map-style and maybe lazy; `gather_temporal` makes `TemporalUsers`
    splits: Mapping[str, Samples]
    # Of the store: `fingerprint` names the version; `trajectory` says `interval_s`, `steps`, `subcarriers` and
    # `subcarrier_spacing_hz`
    attributes: Json
    cities: list[str]  # City of every scene, by row of the store
    name: str  # What error messages call it
    path: str = ""  # The Zarr group, with the `latest` pointer followed

    @property
    def version(self) -> str:
        """Fingerprint of the dataset version."""
        return str(self.attributes.get("fingerprint", ""))

    @property
    def interval(self) -> float:
        """Seconds between two snapshots."""
        return float(self.attributes["trajectory"]["interval_s"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Snapshots, subcarriers and antennas of a sample."""
        snapshots, subcarriers, antennas = single_row(next(iter(self.splits.values()))[0][CSI]).shape
        return int(snapshots), int(subcarriers), int(antennas)


def load_temporal(store: str, splits: Sequence[str] = SPLITS, preload: bool | None = None) -> TemporalData:
    """Open the splits that are needed of a published dataset with trajectories; `preload` as `ChannelDataset` has it.

    Refused are stores without trajectories, with a planar array, or without a user in one of the splits.
    """
    from wavecity.dataset.arrays import open_arrays
    from wavecity.dataset.reader import open_store, resolve

    path = str(resolve(store))
    opened = open_store(path)
    attributes = {**attributes_of(opened.attrs), "manifest": manifest_of(path)}
    try:
        open_arrays(path, FIELDS)
    except InputError as error:
        msg = f"{store}: no array 'trajectory/csi'; the temporal model needs a recipe with `mobility`, e.g. temporal"
        raise InputError(msg) from error
    samples = open_splits(store, path, splits, FIELDS, preload)
    data = TemporalData(samples, attributes, [str(city) for city in opened["city"].values], store, path)
    _ = data.shape  # refuses a planar array
    return data


def gather_temporal(samples: Samples, limit: int | None = None) -> TemporalUsers:
    """Bring users of a split into tensors; with a limit, evenly spread over the split."""
    return collate_temporal(picked(samples, limit))


def collate_temporal(items: list[Json]) -> TemporalUsers:
    """Samples to tensors."""
    velocity = torch.stack([torch.as_tensor(item["trajectory/velocity"]) for item in items]).float()
    return TemporalUsers(
        csi=single_row(torch.stack([torch.as_tensor(item["trajectory/csi"]) for item in items])),
        kind=torch.tensor([int(item["trajectory/kind"]) for item in items]),
        speed=velocity.norm(dim=-1).mean(-1),
        scene=torch.tensor([int(item["scene"]) for item in items]),
    )


def channels(batch: dict[str, Tensor]) -> Tensor:
    """Channels of a batch of the loader, complex64 (B, T, F, X)."""
    return single_row(batch[CSI])


def check_temporal(data: TemporalData) -> None:
    """Refuse, before training, channels that are not finite or all zero: looks at some users of every split."""
    for split, samples in data.splits.items():
        csi = gather_temporal(samples, CHECKED).csi
        finite = bool(torch.isfinite(torch.view_as_real(csi)).all())
        if not finite or not bool(csi.abs().amax() > 0):
            what = "is zero everywhere" if finite else "is not finite"
            raise InputError(f"{data.name}: trajectory/csi of split {split!r} {what}; rebuild the store")

import os
import shutil
import tempfile
import warnings

import numpy as np
import pytest
import torch
import xarray as xr
import zarr

from wavecity.model.data.tokens import Statistics
from wavecity.model.data.users import SceneTable, WirelessData
from wavecity.model.settings.training import TrainingSettings

SIZE = 200.0


class FakeSamples:
    """Map-style samples in memory, of the shape of `ChannelDataset`."""

    def __init__(self, arrays, scene_index, user_index):
        self.arrays, self.scene_index, self.user_index = arrays, scene_index, user_index

    def __len__(self):
        return len(self.scene_index)

    def __getitem__(self, index):
        item = {name: torch.as_tensor(values[index]) for name, values in self.arrays.items()}
        return item | {"scene": int(self.scene_index[index]), "user": int(self.user_index[index])}

    def __getitems__(self, indices):
        return [self[index] for index in indices]


def two_path_csi(position, rng, edge=32):
    """Channel of a line of sight and one echo towards users at `position` (N, 3), half-wavelength UPA facing south."""
    direction = position / np.linalg.norm(position, axis=-1, keepdims=True)
    echo = direction + rng.normal(0, 0.3, direction.shape)
    echo /= np.linalg.norm(echo, axis=-1, keepdims=True)
    x, y = np.meshgrid(np.arange(edge), np.arange(edge), indexing="ij")

    def wave(unit):
        return np.exp(1j * np.pi * (unit[:, 0, None, None] * x + unit[:, 2, None, None] * y))

    gain = 1e-5 * 10 / np.linalg.norm(position, axis=-1)
    phase = np.exp(2j * np.pi * rng.random((2, len(position))))
    csi = gain[:, None, None] * (phase[0, :, None, None] * wave(direction) + 0.3 * phase[1, :, None, None] * wave(echo))
    return csi.astype(np.complex64)


def scene_arrays(rng, users):
    """Arrays of one scene with a few boxes: height, occupancy, positions, CSI, labels."""
    height = np.zeros((200, 200), np.float32)
    for _ in range(8):
        row, column = rng.integers(0, 160, 2)
        height[row : row + rng.integers(15, 40), column : column + rng.integers(15, 40)] = rng.uniform(6, 30)
    covered = (height > 0).reshape(20, 10, 20, 10).mean((1, 3))
    position = np.stack((rng.uniform(-95, 95, users), rng.uniform(-190, -5, users), np.full(users, -13.5)), -1)
    csi = two_path_csi(position, rng)
    power = np.abs(np.fft.fft2(csi)) ** 2
    beams = np.roll(power[:, ::-1, ::-1], 1, axis=(1, 2)).reshape(users, -1).argmax(-1)
    return {
        "height": height,
        "occupancy": (covered > 0.6).astype(np.uint8),
        "csi": csi,
        "user_position": position.astype(np.float32),
        "los": rng.random(users) < 0.5,
        "path_gain": (20 * np.log10(np.abs(csi[:, 0, 0]))).astype(np.float32),
        "best_beam": beams.astype(np.int16),
    }


def make_data(splits=(("train", 4), ("validation", 2), ("test", 2)), users=24, seed=0):
    """A synthetic `WirelessData`."""
    rng = np.random.default_rng(seed)
    scenes = [scene_arrays(rng, users) for _, count in splits for _ in range(count)]
    samples, first = {}, 0
    for split, count in splits:
        rows = range(first, first + count)
        first += count
        arrays = {
            name: np.concatenate([scenes[row][name] for row in rows])
            for name in ("csi", "user_position", "los", "path_gain", "best_beam")
        }
        samples[split] = FakeSamples(arrays, np.repeat(list(rows), users), np.tile(np.arange(users), count))
    decibel = 10 * np.log10((np.abs(samples["train"].arrays["csi"]) ** 2).mean((1, 2)))
    table = SceneTable(
        height=torch.from_numpy(np.stack([scene["height"] for scene in scenes])),
        occupancy=torch.from_numpy(np.stack([scene["occupancy"] for scene in scenes])),
        bs=torch.tensor([[0.0, SIZE / 2]]).repeat(len(scenes), 1),
        size=SIZE,
        names=[f"synthetic-{row:04d}" for row in range(len(scenes))],
        cities=["Synthetic"] * len(scenes),
    )
    statistics = Statistics(
        csi_rms=float(np.sqrt((np.abs(samples["train"].arrays["csi"]) ** 2).mean())),
        csi_rms_db_mean=float(decibel.mean()),
        csi_rms_db_std=float(decibel.std()),
    )
    attributes = {
        "fingerprint": f"synthetic-{seed}",
        "attribution": "© OpenStreetMap contributors",
        "licence": "ODbL-1.0",
    }
    return WirelessData(samples, table, statistics, attributes, "synthetic")


def stored(data):
    """Folder of a store with the same users, scenes and attributes, which `pretrain` reads; written once."""
    if id(data) in _STORES:
        return _STORES[id(data)][1]
    users = int(max(samples.user_index.max() for samples in data.splits.values())) + 1
    scenes = int(max(samples.scene_index.max() for samples in data.splits.values())) + 1
    root, inner = {"outage": (("scene", "user"), np.ones((scenes, users), bool))}, {}
    split = np.full(scenes, "train", object)
    for name, samples in data.splits.items():
        split[samples.scene_index] = name
        root["outage"][1][samples.scene_index, samples.user_index] = False
        for field, values in samples.arrays.items():
            of, key = (inner, field.split("/")[1]) if "/" in field else (root, field)
            dims = ("scene", "user", *(f"{key}_{axis}" for axis in range(values.ndim - 1)))
            of.setdefault(key, (dims, np.zeros((scenes, users, *values.shape[1:]), values.dtype)))
            of[key][1][samples.scene_index, samples.user_index] = values
    root["n_users"] = ("scene", np.full(scenes, users))
    root.setdefault("csi", (("scene", "user", "x", "y"), np.zeros((scenes, users, 1, 1), np.complex64)))
    attributes = {"schema_version": 1, **data.attributes}
    coordinates = {"split": ("scene", split.astype(str))}
    if isinstance(data, WirelessData):
        table = data.scenes
        root["height"] = (("scene", "row", "column"), table.height.numpy())
        root["occupancy"] = (("scene", "patch_row", "patch_column"), table.occupancy.numpy())
        root["bs_shift"] = ("scene", table.bs[:, 0].numpy())
        coordinates |= {"scene_id": ("scene", table.names), "city": ("scene", table.cities)}
        attributes |= {"tile_size_m": table.size, "bs_position_m": [0.0, float(table.bs[0, 1]), 15.0],
                       "statistics": {"n_samples": len(data.splits["train"]), **data.statistics.to_dict()}}  # fmt: skip
    else:
        coordinates |= {"city": ("scene", data.cities)}
        attributes |= {"statistics": {}}
    path = tempfile.mkdtemp(prefix="synthetic-", dir=_FOLDER.name)
    with warnings.catch_warnings():
        # Of types and metadata that the Zarr specification has not settled.
        warnings.simplefilter("ignore")
        _write(xr.Dataset(root, coordinates, attributes), f"{path}/data.zarr")
        if inner:
            _write(xr.Dataset(inner), f"{path}/data.zarr", group="trajectory")
        zarr.consolidate_metadata(f"{path}/data.zarr")
    # The data are kept as well: an identity is given again.
    _STORES[id(data)] = (data, path)
    return path


def _write(dataset, path, **options):
    """With units of two scenes."""
    encoding = {
        name: {"chunks": (1, *array.shape[1:]), "shards": (2, *array.shape[1:])}
        for name, array in dataset.data_vars.items()
    }
    dataset.to_zarr(path, zarr_format=3, consolidated=False, mode="a", encoding=encoding, **options)
    # A store has Zarr's own type of flags, which older releases of xarray read but do not write.
    group = zarr.open_group(path, path=options.get("group"), mode="a")
    for name, array in dataset.data_vars.items():
        if array.dtype == bool:
            group.create_array(
                name, data=array.values, dimension_names=array.dims, attributes=array.attrs, overwrite=True,
                **encoding[name],
            )  # fmt: skip


# As long as this process lives.
_STORES = {}
_FOLDER = tempfile.TemporaryDirectory(prefix="wavecity-synthetic-")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny matrices: threads cost more than they give, most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data():
    return make_data()


@pytest.fixture(scope="session")
def tiny():
    """Settings of a run of seconds."""
    return TrainingSettings.model_validate(
        {
            "model": {"width": 16, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "height_patch": 20,
                      "spectrum_channels": 4},
            "losses": {"spectrum_form": "kl"},
            "optimiser": {"warmup_steps": 4},
            "evaluation": {
                "heads": {"seeds": 2, "steps": 30, "learning_rates": [0.003], "finetune_steps": 4,
                          "finetune_rates": [0.001]},
                "localization": {"labels": [8, 16]},
                "cross_scene": {"labels": [0, 8]},
                "mu_mimo": {"cluster": 4, "ratios": [0.2, 0.8], "hidden": [[], [8]]},
                "su_mimo": {"ratios": [0.2, 0.8]},
            },
            "epochs": 3,
            "batch_size": 16,
            "accelerator": "cpu",
        }
    )  # fmt: skip


@pytest.fixture(scope="session")
def trained(shared, data, tiny):
    """Folder of a run of one epoch. Read only: `linked` gives a copy that results can be written to."""
    from wavecity.model.training.pretrain import pretrain

    settings = tiny.model_copy(update={"epochs": 1})
    return shared("trained", lambda folder: pretrain(stored(data), settings, folder, seed=1))


@pytest.fixture(scope="module")
def linked(trained, tmp_path_factory):
    """The trained run as a folder of this module's own, of hard links: new files may be added, none changed in place."""
    return shutil.copytree(trained, tmp_path_factory.mktemp("trained") / "run", copy_function=os.link)

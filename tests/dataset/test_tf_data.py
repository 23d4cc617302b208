"""`tf.data`: right types and values, every user once an epoch. In a process of its own: TensorFlow starts slowly."""

import json
import sys

import pytest
import toy
from base_station_store import build_links_store
from processes import python

from wavecity.dataset import InputError
from wavecity.dataset.reader import open_store

SCRIPT = """
import json, sys
import numpy as np
from wavecity.dataset.tf_data import tf_dataset
import tensorflow as tf

store = sys.argv[1]
fields = ("csi", "spectrum", "height", "occupancy", "user_position", "los", "best_beam", "paths/gain")
data = tf_dataset(store, "train", fields, batch_size=4, seed=1)
spec = {name: [list(part.shape), part.dtype.name] for name, part in data.element_spec.items()}
batches = list(data.prefetch(2).as_numpy_iterator())
np.savez(sys.argv[2], **{name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]})

def users(dataset):
    return [[int(a), int(b)] for batch in dataset.as_numpy_iterator() for a, b in zip(batch["scene"], batch["user"])]

two = users(tf_dataset(store, "train", ("los",), batch_size=4, seed=1, epochs=2))
passes = tf_dataset(store, "train", ("los",), batch_size=4, seed=1)
passes = users(passes) + users(passes)
endless = users(tf_dataset(store, "train", ("los",), batch_size=4, seed=1, epochs=None).take(12))
full = tf_dataset(store, "train", ("los",), batch_size=4, seed=1, drop_last=True)
# What a model is trained with: a function traced for these types.
norm = tf.function(lambda batch: tf.reduce_sum(tf.abs(batch["csi"]) ** 2))
power = float(sum(norm(batch) for batch in data))
print(json.dumps({
    "spec": spec, "sizes": [len(batch["scene"]) for batch in batches], "cardinality": int(data.cardinality()),
    "two": two, "passes": passes,
    "endless": endless, "power": power, "full": [list(part) for part in [full.element_spec["los"].shape]],
    "full_sizes": [len(batch["los"]) for batch in full],
}))
"""


LINKS = """
import json, sys
import numpy as np
from wavecity.dataset.tf_data import tf_dataset

store, low, high = sys.argv[1], 3.5e9, 28.5e9
fields = ("csi", "user_position", "height", "bs/position", "bs/azimuth", "bs/serving", "paths/delay")
cases = {
    "all": {"bs": "all", "carrier": low}, "one": {"bs": 2, "carrier": high}, "both": {"bs": 1, "carrier": "all"},
    "none": {"carrier": high},
}
said = {}
for name, chosen in cases.items():
    data = tf_dataset(store, "train", fields if "bs" in chosen else ("csi",), batch_size=5, seed=1, **chosen)
    said[name] = {key: [list(part.shape), part.dtype.name] for key, part in data.element_spec.items()}
    batches = list(data.as_numpy_iterator())
    assert [len(batch["csi"]) for batch in batches[:-1]] == [5] * (int(data.cardinality()) - 1)
    values = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    np.savez(f"{sys.argv[2]}/{name}.npz", **{key.replace("/", "-"): value for key, value in values.items()})
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def answers(toy_store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tf")
    printed = python(SCRIPT, toy_store, folder / "values.npz")
    import numpy as np

    return json.loads(printed.splitlines()[-1]), dict(np.load(folder / "values.npz"))


def test_signature_and_batches(answers):
    said, _ = answers
    assert said["spec"] == {
        "csi": [[None, 32, 32], "complex64"],
        "spectrum": [[None, 32, 32], "float32"],
        "height": [[None, 200, 200], "float32"],
        "occupancy": [[None, 20, 20], "uint8"],
        "user_position": [[None, 3], "float32"],
        "los": [[None], "bool"],
        "best_beam": [[None], "int16"],
        "paths/gain": [[None, 3], "complex64"],
        "scene": [[None], "int64"],
        "user": [[None], "int64"],
    }
    # 7 + 8 users of the two train scenes.
    assert said["sizes"] == [4, 4, 4, 3]
    assert said["cardinality"] == 4
    assert said["full"] == [[4]]
    assert said["full_sizes"] == [4, 4, 4]


def test_values_are_those_of_xarray(answers, toy_store):
    import numpy as np

    said, values = answers
    root, paths = open_store(toy_store).load(), open_store(toy_store, "paths").load()
    for row, (scene, user) in enumerate(zip(values["scene"], values["user"], strict=True)):
        for name in values.keys() - {"scene", "user"}:
            source = paths[name.removeprefix("paths/")] if name.startswith("paths/") else root[name]
            expected = source.isel(scene=scene, user=user) if "user" in source.dims else source.isel(scene=scene)
            np.testing.assert_array_equal(values[name][row], expected.values)
    power = (np.abs(root["csi"].isel(scene=[0, 1]).values) ** 2).sum()
    assert said["power"] == pytest.approx(float(power), rel=1e-4)


def test_every_user_once_an_epoch(answers):
    said, values = answers
    train = [[0, user] for user in range(7)] + [[1, user] for user in range(8)]
    first, second = said["two"][:15], said["two"][15:]
    assert sorted(first) == sorted(second) == train
    assert first != second
    assert first == [[int(a), int(b)] for a, b in zip(values["scene"], values["user"], strict=True)]
    assert said["passes"] == said["two"]
    # Twelve batches of an endless dataset: three epochs.
    assert said["endless"][:30] == said["two"]
    assert len(said["endless"]) == 45


def test_links_of_any_base_station_and_carrier(shared, tmp_path):
    """Every link once, with its base station; one carrier, or an axis of all."""
    import numpy as np

    carriers = [3.5e9, toy.FREQUENCY]
    folder = shared("toy-link-carriers", lambda folder: build_links_store(folder / "store", carriers=carriers))
    said = json.loads(python(LINKS, folder / "store", tmp_path).splitlines()[-1])
    assert said["all"]["csi"] == [[None, 4, 4], "complex64"]
    assert said["both"]["csi"] == [[None, 2, 4, 4], "complex64"]
    assert said["all"]["bs"] == said["all"]["scene"] == [[None], "int64"]
    assert said["all"]["bs/position"] == [[None, 3], "float64"]
    assert said["none"].keys() == {"csi", "scene", "user"}
    data = open_store(folder / "store", bs="all", carrier="all").load()
    delay = open_store(folder / "store", "paths", bs="all", carrier="all")["delay"].load()
    heard = ~data["outage"].values[:, :2]
    numbers = {"all": [0, 1, 2], "one": [2], "both": [1], "none": [0]}
    bands = {"all": 0, "one": 1, "both": slice(None), "none": 1}
    for name in said:
        values, band = dict(np.load(tmp_path / f"{name}.npz")), bands[name]
        bs, scene, user = values.get("bs", np.zeros_like(values["scene"])), values["scene"], values["user"]
        # Geometry decides who is heard, so that it is the same at both carriers.
        wanted = [(k, *place) for k in numbers[name] for place in np.argwhere(heard[k, ..., 0]).tolist()]
        assert sorted(zip(bs.tolist(), scene.tolist(), user.tolist(), strict=True)) == wanted
        np.testing.assert_array_equal(values["csi"], data["csi"].values[bs, scene, user][:, band])
        if name == "none":
            continue
        np.testing.assert_array_equal(values["paths-delay"], delay.values[bs, scene, user][:, band])
        np.testing.assert_array_equal(values["user_position"], data["user_position"].values[bs, scene, user])
        np.testing.assert_array_equal(values["height"], data["height"].values[scene])
        np.testing.assert_array_equal(values["bs-position"], data["bs_position"].values[scene, bs])
        np.testing.assert_array_equal(values["bs-azimuth"], data["bs_azimuth"].values[scene, bs])
        np.testing.assert_array_equal(values["bs-serving"], data["serving"].values[scene, user][:, band])


def test_without_tensorflow_the_extra_is_named(toy_store, monkeypatch):
    from wavecity.dataset.tf_data import tf_dataset

    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(InputError, match=r"pip install 'wavecity\[tensorflow\]'") as error:
        tf_dataset(toy_store)
    assert "\n" not in str(error.value)

"""The dataset for TensorFlow: shuffled batches as a `tf.data.Dataset`. The only module here that imports TensorFlow."""

from collections.abc import Iterator, Sequence
from itertools import count, repeat
from typing import TYPE_CHECKING

import numpy as np

from wavecity.dataset.arrays import Batch, is_per_user
from wavecity.dataset.bands import Carrier, Port
from wavecity.dataset.base_stations import Links
from wavecity.dataset.files import StorePath
from wavecity.dataset.loader import BatchReader, Order
from wavecity.dataset.users import find_users
from wavecity.geo.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf


def tf_dataset(
    store: str | StorePath,
    split: str = "train",
    fields: Sequence[str] = ("csi", "height", "user_position"),
    batch_size: int = 256,
    seed: int = 0,
    epoch: int = 0,
    epochs: int | None = 1,
    window: int = 4,
    drop_last: bool = False,
    include_outage: bool = False,
    rank: int = 0,
    world: int = 1,
    verify: bool = False,
    scenes: Sequence[str] | None = None,
    cities: Sequence[str] | None = None,
    version: int | None = None,
    bs: Links | None = None,
    carrier: Carrier = None,
    port: Port = None,
) -> "tf.data.Dataset":
    """Shuffled batches of one split, decoded shard by shard, in the order of `wavecity.dataset.loader`.

    Parameters
    ----------
    store : path or URL
        Folder of a build, of a version, or a `.zarr`.
    split : str
        `train`, `validation` or `test`.
    fields : sequence of str
        Arrays of the schema, e.g. `csi` (complex64), `height`, `paths/delay`; those of scenes are repeated for every
        user.
    batch_size : int
        Of one rank.
    seed : int
    epoch : int
        The first one read; every epoch has its own order.
    epochs : int, optional
        How many an iterator reads, one after the other; None continues without end. The next iterator continues with
        the epochs after those, so that every epoch of `Model.fit` is shuffled anew.
    window : int
        Units mixed with each other; two windows are in memory.
    drop_last : bool
        Full batches only.
    include_outage : bool
        Whether users without a path count.
    rank, world : int
        Of the processes that train together; every one gets other users and the same number of batches.
    verify : bool
        Whether every byte of the store is compared with its manifest before anything is read.
    scenes, cities : sequence of str, optional
        Only these scenes, by id or a pattern such as `helsinki-*`, and only those of these cities.
    version : int, optional
        Number of a published version; the latest by default.
    bs : int or "all", optional
        Of several base stations the one whose links are the samples, or all of them; batches have `bs`, int64 (B,). By
        default base station 0.
    carrier : float or "all", optional
        Of a store with several: the one with this frequency in Hz, or all, of which samples have an axis.
    port : str, optional
        Of a store with several pairs of ports: the one of this name, user/base station, or `all`.

    Returns
    -------
    tf.data.Dataset
        Of dicts: every field (B, ...), and `scene` and `user`, int64 (B,), as in the store.

    Raises
    ------
    InputError
        TensorFlow is not installed; not a store, files of it are missing or damaged, a split without scenes, or no such
        array.

    Examples
    --------
    >>> train = tf_dataset("helsinki", split="train", batch_size=32)
    >>> next(iter(train))["csi"].shape
    TensorShape([32, 32, 32])
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        msg = f"tf_dataset needs TensorFlow ({error}): pip install 'wavecity[tensorflow]'"
        raise InputError(msg) from error
    order = Order(batch_size, seed, window, drop_last, rank, world)
    users = find_users(store, split, include_outage, verify, scenes, cities, version, bs, carrier, port)
    reader = BatchReader(users, fields, order)

    numbers = count(epoch)

    def batches() -> Iterator[Batch]:
        for _ in repeat(None) if epochs is None else range(epochs):
            yield from reader.batches(next(numbers))

    rows = batch_size if drop_last else None
    signature = {
        name: tf.TensorSpec((rows, *array.shape[2 if is_per_user(array) else 1 :]), tf.as_dtype(array.dtype), name=None)
        for name, array in reader.arrays.items()
    }
    names = ("scene", "user", "bs") if reader.users.links else ("scene", "user")
    signature |= {name: tf.TensorSpec((rows,), tf.as_dtype(np.dtype(np.int64))) for name in names}
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    if epochs is None:
        return dataset
    return dataset.apply(tf.data.experimental.assert_cardinality(epochs * len(reader)))

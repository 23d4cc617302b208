"""The (chain, receiver) pairs of a call: those that geometry allows, and which of them Sionna's image method confirms."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wavecity.raytrace import sionna_private as sionna
from wavecity.raytrace.bounds import FieldBounds
from wavecity.raytrace.chains import Chains
from wavecity.raytrace.clearance import Clearance
from wavecity.raytrace.device import Numbers, PathsBuffer, dr, load, load_rows, load_table, mi
from wavecity.raytrace.elements import chain_buffer
from wavecity.raytrace.geometry import Unfolded
from wavecity.raytrace.pairs import PairFinder
from wavecity.raytrace.world import World

# Bytes of working memory for a (chain, receiver) pair that is tested, and for one given to the image method, which
# needs that much and again as much for each interaction.
PAIR_BYTES = 64
IMAGE_BYTES = 400


@dataclass(frozen=True)
class BoundedPairs:
    """Pairs (N) that geometry allows.

    Attributes
    ----------
    chain : uint32 (N,)
    receiver : int64 (N,)
    turned : uint32 (N,)
        1 where the edge's faces are to be exchanged.
    power : float64 (N,) or (N, C)
        Largest power gain that the pair may have, in each of C bands where the world has several.
    """

    chain: NDArray[np.uint32]
    receiver: NDArray[np.int64]
    turned: NDArray[np.uint32]
    power: NDArray[np.float64]

    def load(self, at: NDArray[np.int64]) -> tuple[Numbers, Numbers, Numbers]:
        """Pairs as `PairTest.confirm` takes them; one alone twice, since kernels for one are compiled anew."""
        at = at if len(at) > 1 else np.repeat(at, 2)
        chain, receiver, turned = (load(mi.UInt, values[at]) for values in (self.chain, self.receiver, self.turned))
        return chain, receiver, turned


class PairTest:
    """Pairs of the C chains of a source with R receivers.

    Parameters
    ----------
    world : World
    chains : Chains
    unfolded : Unfolded
        Of the chains.
    source : float64 (3,)
    receivers : float64 (R, 3)
        Metres.
    diffraction, lit_region : bool
        As of `solver.ChainSolver`.
    memory : int
        Working memory in MB.
    """

    def __init__(
        self,
        world: World,
        chains: Chains,
        unfolded: Unfolded,
        source: NDArray[np.float64],
        receivers: NDArray[np.float64],
        diffraction: bool,
        lit_region: bool,
        memory: int,
    ) -> None:
        self._world, self._all, self._chains, self._receivers = world, chains, len(chains), len(receivers)
        self._ends = load_rows(mi.Point3f, source), load_table(mi.Point3f, receivers)
        self._kinds = diffraction, lit_region
        self._depth = chains.elements.shape[1]
        self._step = max(1, memory * 1_000_000 // PAIR_BYTES // max(1, len(receivers)))
        self._images_at_once = max(1, memory * 1_000_000 // (IMAGE_BYTES * (1 + self._depth)))
        if not len(chains) or not len(receivers):
            return
        self.finder = PairFinder(world.surfaces, unfolded, receivers, diffraction)

    def plausible(self) -> Iterator[tuple[Numbers, Numbers, Numbers]]:
        """Pairs that geometry allows, in batches: chain, receiver, and 1 where the edge's faces are to be exchanged."""
        if not self._receivers:
            return
        for first in range(0, self._chains, self._step):
            batch = self.finder.find(first, min(first + self._step, self._chains))
            if dr.width(batch[0]):
                yield batch

    def confirm(
        self, chain: Numbers, receiver: Numbers, turned: Numbers
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
        """Chain and receiver (M,) of the pairs that are paths, and the faces (M, D) that they meet."""
        number, row = np.unique(
            (chain + turned * dr.opaque(mi.UInt, self._chains)).numpy().astype(np.int64), return_inverse=True
        )
        buffer, row = self._buffer(number), load(mi.UInt, row)
        found = []
        for low in range(0, dr.width(chain), self._images_at_once):
            count = min(self._images_at_once, dr.width(chain) - low)
            part = dr.arange(mi.UInt, count) + dr.opaque(mi.UInt, low)
            batch = dr.gather(mi.UInt, row, part), dr.gather(mi.UInt, receiver, part)
            found.append(sionna.validate(self._world, buffer, *batch, *self._ends, *self._kinds))
        rows, receivers, faces = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return number[rows] % self._chains, receivers, faces

    def _buffer(self, number: NDArray[np.int64]) -> PathsBuffer:
        """Chains for the image method; those of the second half of the numbers with the faces of their edge exchanged."""
        # A table of one row would be compiled into the kernel.
        number = number if len(number) > 1 else np.repeat(number, 2)
        chain = number % self._chains
        swapped = self._all.swapped[chain] ^ (number >= self._chains)
        return chain_buffer(self._world, self._all.elements[chain], swapped, self._kinds[0])

    def confirm_all(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
        """`confirm` of all plausible pairs."""
        nothing = np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, self._depth), np.int32)
        parts = [nothing, *(self.confirm(*batch) for batch in self.plausible())]
        chain, receiver, faces = (np.concatenate(part) for part in zip(*parts, strict=True))
        return chain, receiver, faces

    def bounded(
        self, unfolded: Unfolded, source: NDArray[np.float64], orientation: tuple[float, float, float], pattern: str
    ) -> BoundedPairs:
        """Plausible pairs with clear ways, and bounds of their power; arguments as of `bounds.FieldBounds`."""
        each = [
            FieldBounds(world, self.finder, unfolded, self._all, source, orientation, pattern)
            for world in self._world.each()
        ]
        shape = (len(each),) if self._world.bands else ()
        clearance = Clearance(self._world, self.finder, source, self._all.elements)
        number = np.empty(0, np.uint32)
        parts = [(number, number, number, np.empty((0, *shape)))]
        for batch in self.plausible():
            pairs = batch if unfolded.passes.any() else clearance.clear(*batch)
            if dr.width(pairs[0]):
                chain, receiver, turned = (numbers.numpy() for numbers in pairs)
                power = np.stack([bounds(*pairs[:2]) for bounds in each], axis=1)
                parts.append((chain, receiver, turned, power.reshape(-1, *shape)))
        chain, receiver, turned, powers = (np.concatenate(part) for part in zip(*parts, strict=True))
        return BoundedPairs(chain, receiver.astype(np.int64), turned, powers)

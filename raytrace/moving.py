"""Channels of users that move: traced where it matters, evolved path by path in between.

A grid of metres cannot give the phase: 5 mm are half a turn at 28.5 GHz. So a user's route is traced at *waypoints*,
and between two of them every path that both have (the same sequence of planes and edges) is continued by itself: its
length is the cubic Hermite polynomial of its lengths and their rates of change, which its directions of arrival give,
so that its phase turns by its Doppler shift; its coefficient without the carrier and its directions of departure change
linearly.

Chains do not depend on the receivers (`wavecity.raytrace.chains`): they are found once per scene, and the waypoints of
all users are traced together. A waypoint in the middle of an interval checks it: where the interpolation was off, or
where paths that carry power begin or end, the halves are halved again, down to single snapshots. So a path appears and
disappears at the right snapshot; what is too weak for that changes in the middle between two waypoints.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from wavecity.geo.errors import InputError
from wavecity.geo.scene import Scene
from wavecity.geo.settings import MobilitySettings
from wavecity.raytrace.arrays import panel_axes
from wavecity.raytrace.channels import Channels, subcarrier_frequencies
from wavecity.raytrace.evolve import Bundle, Evolved, Wave, between, beyond, common, unshared_power
from wavecity.raytrace.settings import RadioSettings, SolverSettings
from wavecity.raytrace.simulate import ONE_AT_A_TIME, chain_solver, collect, panel_orientation, refuse_several
from wavecity.raytrace.solver import Paths, line_of_sight
from wavecity.raytrace.vegetation import path_losses, weakened
from wavecity.raytrace.world import build_world

# m by which a route may leave the straight line between two waypoints. It is corrected to first order; what is left,
# its square over twice the distance to the last vertex, is 1e-7 m at 5 m.
STRAIGHT = 1e-3
# Positions traced at a time.
BATCH = 512

# From a user's snapshot to another one.
Interval = tuple[int, int, int]


@dataclass(frozen=True)
class Moving:
    """What `simulate_moving` finds (U users, T snapshots, F subcarriers, X x Y antennas).

    Attributes
    ----------
    channels : Channels
        Of the first snapshot, with Doppler shifts: what `simulate` gives for it.
    csi : complex64 (U, T, F, X, Y)
        Of all paths found, none cut; 0 where a snapshot has no path, or none above the gain floor.
    traced : bool (U, T)
        Which snapshots were traced; the others are interpolated.
    """

    channels: Channels
    csi: NDArray[np.complex64]
    traced: NDArray[np.bool_]


def simulate_moving(
    scene: Scene, radio: RadioSettings, solver: SolverSettings, mobility: MobilitySettings, seed: int
) -> Moving:
    """Channels of every user of a scene along its route, over a band; the same bytes for the same arguments.

    Parameters
    ----------
    scene : Scene
        With `tracks`, whose first positions are its `users`.
    radio : RadioSettings
        Carrier, materials, panel.
    solver : SolverSettings
        `max_paths` cuts `channels` only: which paths are strongest changes along a route, and a cut would cause jumps.
    mobility : MobilitySettings
        Subcarriers, `waypoint` and `tolerance`; number and times of the snapshots are those of the tracks.
    seed : int
        As of `simulate`.

    Raises
    ------
    InputError
        Several carriers or ports; diffuse scattering, whose paths cannot be followed; a scene without tracks; and what
        `simulate` raises.

    Examples
    --------
    >>> moving = simulate_moving(scene, radio, solver, MobilitySettings(steps=32), seed=0)
    >>> moving.csi.shape  # user, time, subcarrier, x, y
    (83, 32, 64, 32, 32)
    """
    refuse_several(radio, "leave mobility out, or name one frequency and V or H")
    if solver.diffuse:
        msg = (
            "solver.diffuse is true, but diffuse paths cannot be followed along a route; set it to false, or leave "
            "mobility out"
        )
        raise InputError(msg)
    if scene.tracks is None:
        msg = f"{scene.id}: its users do not move; build the scene with mobility"
        raise InputError(msg)
    # Every path is followed, also where it is too weak to be kept.
    exhaustive = solver.model_copy(update={"tolerance": 0.0})
    trace, orientation = chain_solver(exhaustive, seed), panel_orientation(radio)
    wave = wave_of(radio, mobility)
    with ONE_AT_A_TIME:
        world = build_world(scene.mesh, scene.size, radio)
        steps = scene.tracks.position.shape[1]
        along = scene.tracks.position[:, [0, steps // 2, steps - 1]].reshape(-1, 3)
        chains = trace.chains(world, scene.bs_position, along)
        survey = Survey(
            scene.tracks.position.astype(np.float64),
            lambda points: weakened(
                scene.vegetation,
                scene.bs_position,
                points,
                # ruff does not see that this is called before `world` is deleted below.
                trace(world, scene.bs_position, points, orientation, radio.pattern, chains),  # noqa: F821
                radio.frequency,
            )[0],
            panel_axes(radio.azimuth, radio.downtilt)[1:],
        )
        first = survey.visit([(user, 0) for user in range(len(scene.users))])
        visible = line_of_sight(world, scene.bs_position, scene.users)
        survey.explore(mobility.waypoint, mobility.tolerance, wave)
        del world
    loss = path_losses(scene.vegetation, scene.bs_position, scene.users, first, radio.frequency)
    velocity = scene.tracks.velocity[:, 0].astype(np.float64)
    channels = collect(first, visible, radio.frequency, solver, velocity, loss)
    users, steps = scene.tracks.position.shape[:2]
    csi = np.zeros((users, steps, mobility.subcarriers, radio.columns, radio.rows), np.complex64)
    floor = 10 ** (solver.gain_floor / 10)
    for user in range(users):
        power = np.zeros(steps)
        for when, paths in survey.evolve(user):
            wave.add(csi[user], when, paths)
            power[when] += (np.abs(paths.coefficient) ** 2).sum(axis=1)
        csi[user, power < floor] = 0
    return Moving(channels, csi, survey.traced)


def wave_of(radio: RadioSettings, mobility: MobilitySettings) -> Wave:
    """Band and panel of these settings."""
    first = float(subcarrier_frequencies(mobility.subcarriers, mobility.subcarrier_spacing)[0])
    band = radio.frequency, first, mobility.subcarrier_spacing, mobility.subcarriers
    return Wave(*band, radio.columns, radio.rows, radio.spacing)


class Survey:
    """Waypoints of users, and their paths there.

    Parameters
    ----------
    position : float64 (U, T, 3)
        m.
    trace : callable
        Positions (R, 3) to their `Paths`.
    axes : float64 (2, 3)
        Directions of the panel's x and y axes.
    """

    def __init__(
        self,
        position: NDArray[np.float64],
        trace: Callable[[NDArray[np.float64]], Paths],
        axes: NDArray[np.float64],
    ) -> None:
        self.position, self._trace, self._axes = position, trace, axes
        self.traced = np.zeros(position.shape[:2], np.bool_)
        self._bundles: dict[tuple[int, int], Bundle] = {}
        # Sequences of planes and edges, numbered in the order of their appearance.
        self._numbers: dict[bytes, int] = {}

    def visit(self, places: list[tuple[int, int]]) -> Paths:
        """Trace users at snapshots (user, step) and keep their paths; returns them, in the order of `places`."""
        points = self.position[tuple(np.array(places, np.int64).reshape(-1, 2).T)]
        paths = self._trace(points)
        first = np.searchsorted(paths.receiver, np.arange(len(places) + 1))
        number = np.array([self._number(elements) for elements in paths.elements], np.int64)
        cosine = paths.departure @ self._axes.T
        for row, (user, step) in enumerate(places):
            own = slice(first[row], first[row + 1])
            order = np.argsort(number[own])
            coefficient = paths.coefficient[own].astype(np.complex128)
            bundle = Bundle(number[own], paths.length[own], paths.arrival[own], cosine[own], coefficient)
            self._bundles[user, step] = bundle.select(order)
            self.traced[user, step] = True
        return paths

    def _number(self, elements: NDArray[np.int32]) -> int:
        """Number of a sequence of elements."""
        return self._numbers.setdefault(elements.tobytes(), len(self._numbers))

    def _visit_new(self, places: list[tuple[int, int]]) -> None:
        """Trace those of some places that have not been traced."""
        new = [place for place in dict.fromkeys(places) if place not in self._bundles]
        for low in range(0, len(new), BATCH):
            self.visit(new[low : low + BATCH])

    def explore(self, waypoint: float, tolerance: float, wave: Wave) -> None:
        """Trace waypoints until interpolation between them is accurate enough.

        Parameters
        ----------
        waypoint : float
            Longest distance along the route between two of them, m.
        tolerance : float
            Share of a user's power that may be wrong.
        wave : Wave
        """
        ways = [first_waypoints(way, waypoint) for way in self.position]
        self._visit_new([(user, step) for user, way in enumerate(ways) for step in way])
        pending = [(user, *ends) for user, way in enumerate(ways) for ends in pairwise(way)]
        while pending := [(user, start, end) for user, start, end in pending if end - start > 1]:
            self._visit_new([(user, (start + end) // 2) for user, start, end in pending])
            pending = [half for interval in pending for half in self._doubtful(interval, tolerance, wave)]

    def _doubtful(self, interval: Interval, tolerance: float, wave: Wave) -> Iterator[Interval]:
        """Halves of an interval, whose middle was traced, that must be looked at more closely."""
        user, start, end = interval
        middle = (start + end) // 2
        before, between_them, after = (self._bundles[user, step] for step in (start, middle, end))
        off = self._error(interval, wave) > tolerance * between_them.power
        for ends, bundles in (((start, middle), (before, between_them)), ((middle, end), (between_them, after))):
            if off or unshared_power(*bundles) > tolerance:
                yield user, *ends

    def _error(self, interval: Interval, wave: Wave) -> float:
        """Power by which the interpolation misses the middle of an interval."""
        user, start, end = interval
        middle = (start + end) // 2
        before, between_them, after = (self._bundles[user, step] for step in (start, middle, end))
        kept, other = common(before, after)
        before, after = before.select(kept), after.select(other)
        kept, other = common(before, between_them)
        place = self.position[user]
        guess = between(before.select(kept), after.select(kept), place[start], place[end], place[middle : middle + 1])
        return wave.difference(between_them.select(other), guess)

    def evolve(self, user: int) -> Iterator[tuple[NDArray[np.int64], Evolved]]:
        """Paths of a user at all its snapshots: groups of snapshots (K,), and of paths that all of these have."""
        place, way = self.position[user], np.flatnonzero(self.traced[user])
        for start, end in pairwise(way.tolist()):
            before, after = self._bundles[user, start], self._bundles[user, end]
            first, second = common(before, after)
            inside = np.arange(start, end)
            yield inside, between(before.select(first), after.select(second), place[start], place[end], place[inside])
            ending = np.delete(np.arange(len(before.number)), first)
            beginning = np.delete(np.arange(len(after.number)), second)
            # In the middle between two waypoints; a snapshot that was traced has its own paths.
            early, late = inside[inside <= (start + end) // 2], inside[inside > (start + end) // 2]
            yield early, beyond(before.select(ending), place[start], place[early])
            yield late, beyond(after.select(beginning), place[end], place[late])
        last = way[-1:]
        bundle = self._bundles[user, int(last[0])]
        yield last, beyond(bundle, place[last[0]], place[last])


def first_waypoints(position: NDArray[np.float64], most: float) -> list[int]:
    """Snapshots that divide a route (T, 3) into parts that are straight (`STRAIGHT`) and at most `most` m long."""
    walked = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(position, axis=0), axis=1))])
    waypoints, parts = {0, len(position) - 1}, [(0, len(position) - 1)]
    while parts:
        start, end = parts.pop()
        if end - start < 2:
            continue
        distance = _distance_from_line(position[start : end + 1])
        farthest = start + int(distance.argmax())
        if distance.max() > STRAIGHT:
            cut = farthest
        elif walked[end] - walked[start] > most:
            cut = int(np.searchsorted(walked[start : end + 1], (walked[start] + walked[end]) / 2)) + start
        else:
            continue
        cut = min(max(cut, start + 1), end - 1)
        waypoints.add(cut)
        parts += [(start, cut), (cut, end)]
    return sorted(waypoints)


def _distance_from_line(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of points (N, 3) from the straight line between the first and the last."""
    way = points[-1] - points[0]
    square = float(way @ way)
    u = np.clip((points - points[0]) @ way / square, 0, 1) if square > 0 else np.zeros(len(points))
    return np.asarray(np.linalg.norm(points - points[0] - u[:, None] * way, axis=1), np.float64)

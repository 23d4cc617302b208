"""What a build says of itself: lines for the run's page at sensible intervals, and a record per scene for machines.

Lines go to the run's logger. Records are JSON, one a line, appended to the file that the environment variable
`WAVECITY_EVENTS` names; without it there are none.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Collection
from logging import Logger, LoggerAdapter
from pathlib import Path
from typing import Any

from wavecity.dataset.draft import Draft
from wavecity.dataset.files import StorePath, read_json
from wavecity.dataset.publish import Version
from wavecity.dataset.records import Receipt
from wavecity.flows import metrics
from wavecity.flows.cost import cost, price_of_core_hour
from wavecity.geo.plan import Plan
from wavecity.geo.tiles import Tile

# Least seconds between two lines about progress.
INTERVAL = 60.0
# Quarantined scenes that get a line each; the others are counted.
LINES = 20
# How long a scene takes depends on its buildings: without any as long as this many buildings more take (0.44 s and
# 0.020 s a building over 3,328 scenes of 13 cities).
EMPTY = 22.0
# A scene that is kept from the version before takes this share: it is read and written again, or its files are shared.
KEPT = 0.05


def effort(tile: Tile) -> float:
    """How long the scene of a tile takes, in the time of one building."""
    return EMPTY + max(tile.n_buildings, 0)


class BuildLog:
    """Log of one build.

    Parameters
    ----------
    logger : logging.Logger or LoggerAdapter
    store : StorePath
    clock : callable
        Seconds; monotonic.
    """

    def __init__(
        self,
        logger: "Logger | LoggerAdapter[Any]",
        store: StorePath,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger, self._store, self._clock = logger, store, clock
        price_of_core_hour()  # refused before anything is built
        self._events = os.environ.get("WAVECITY_EVENTS")
        self._scenes: Counter[str] = Counter()
        self._bytes = 0
        self._total = 0
        self._begun = self._said = clock()
        # By scene, in the store's order; done, and of all that were to build.
        self._efforts: dict[str, float] = {}
        self._effort = self._whole = 0.0
        # What was done when the first unit was, and when that was: until then kernels are compiled.
        self._first: tuple[int, float, float] | None = None
        # Of the cluster: seconds of all its workers together, up to a moment at which there were so many.
        self._core_seconds, self._counted, self._workers = 0.0, self._begun, 0

    def planned(self, plan: Plan) -> None:
        """Scenes by city, and why tiles are none."""
        cities = [city for city in plan.cities if any(tile.status == "accepted" for tile in city.tiles)]
        rejected: Counter[str] = sum((Counter(dict(city.reasons())) for city in plan.cities), Counter())
        del rejected["not needed"]
        why = ", ".join(f"{reason} {count:,}" for reason, count in rejected.most_common())
        self._efforts = {tile.id: effort(tile) for tile in plan.accepted}
        names = ", ".join(city.city.name for city in cities[:5]) + ", ..." * (len(cities) > 5)
        self._say(f"plan: {len(plan.accepted):,} scenes in {_many(len(cities), 'city', 'cities')} ({names})")
        if why:
            self._say(f"plan: tiles rejected: {why}")
        self._record("plan", scenes=len(plan.accepted), cities=len(cities), rejected=dict(rejected))

    def started(self, draft: Draft, missing: list[int], kept: Collection[str] = ()) -> None:
        """What is left to do; `kept` are ids of scenes of which the version before has all."""
        self._efforts |= {scene: KEPT * self._efforts[scene] for scene in kept if scene in self._efforts}
        units = draft.layout.units
        self._total = sum(len(draft.layout.scenes_of(unit)) for unit in missing)
        efforts = list(self._efforts.values())
        scenes = [scene for unit in missing for scene in draft.layout.scenes_of(unit)]
        self._whole = sum(efforts[scene] for scene in scenes) if efforts else float(self._total)
        self._begun = self._said = self._counted = self._clock()
        if served := metrics.current():
            served.started(units, len(missing))
        done = f", {units - len(missing):,} done before" * (len(missing) < units)
        self._say(f"store {self._store}: {self._total:,} scenes in {len(missing):,} of {units:,} units to build{done}")
        self._record("build", units=units, missing=len(missing), scenes=self._total)

    def workers(self, count: int) -> None:
        """How many workers compute from here on."""
        now = self._clock()
        self._core_seconds += self._workers * (now - self._counted)
        self._counted, self._workers = now, count

    def unit(self, receipt: Receipt) -> None:
        """A finished unit: its quarantined scenes, and how far the build is if it has not been said for `INTERVAL`."""
        size = sum(receipt["sizes"].values())
        self._bytes += size
        for scene in receipt["scenes"]:
            self._scenes[scene["status"]] += 1
            self._effort += self._efforts.get(scene["scene_id"], 1.0)
            if scene["status"] == "quarantined" and self._scenes["quarantined"] <= LINES:
                what = f"{scene['scene_id']} is quarantined in {scene['stage']}: {scene['reason']}"
                more = "; further ones are only counted here" * (self._scenes["quarantined"] == LINES)
                self._logger.warning("%s%s", what, more)
            keys = ("city", "status", "n_users", "stage", "reason", "origin", "seconds_scene", "seconds_raytrace")
            about = {key: scene[key] for key in keys if key in scene}  # type: ignore[literal-required]
            self._record("scene", unit=receipt["unit"], scene=scene["scene_id"], **about)
        if self._first is None:
            self._first = self._scenes.total(), self._effort, self._clock()
        self._record("unit", unit=receipt["unit"], bytes=size, seconds_write=receipt["seconds_write"])
        if served := metrics.current():
            served.unit(receipt, self._workers, self._seconds_left())
        if self._clock() - self._said >= INTERVAL:
            self._said = self._clock()
            self._say(self._progress())

    def published(self, version: Version) -> None:
        """What has become a version, and what was checked."""
        if self._total:
            self._say(self._progress())
        checks = (read_json(version.folder / "validation.json") or {}).get("checks", {})
        passed = f"{len(checks)} checks passed ({sum(checks.values()):,} times), " * bool(checks)
        self._say(f"validation: {passed}v{version.number} is published: {version.data}")
        if served := metrics.current():
            served.published(version)
        self._record("published", version=version.number, fingerprint=version.fingerprint, data=str(version.data))

    def _progress(self) -> str:
        """Scenes done and quarantined, bytes, rate, time left."""
        done, quarantined = self._scenes.total(), self._scenes["quarantined"]
        lost = f", {quarantined:,} quarantined" * bool(quarantined)
        left = f", {self.left()}" * (done < self._total)
        size = f"{self._bytes / 1e6:,.1f} MB"
        return f"{done:,} of {self._total:,} scenes{lost}, {size}, {self._rate():.2g} scenes/s{left}"

    def forecast(self) -> str:
        """How far the build is, and what all of it will take: time, bytes, cost; empty until a unit is done."""
        done = self._scenes.total()
        if not done:
            return ""
        self.workers(self._workers)
        left = self._seconds_left()
        seconds, size = self._clock() - self._begun + left, self._bytes * self._total / done
        whole = f"{duration(seconds)}, {size / 1e9:.3g} GB, {cost(self._core_seconds + self._workers * left)}"
        workers = _many(self._workers, "worker", "workers")
        return f"{self._progress()}. All {self._total:,} scenes take {whole}, with {workers} at the end"

    def left(self) -> str:
        """How long the rest will take, once a unit is done."""
        if not self._scenes or self._scenes.total() >= self._total:
            return ""
        return f"about {duration(self._seconds_left())} left"

    def _seconds_left(self) -> float:
        """Seconds of the rest, at the pace until now."""
        _, done, seconds = self._since()
        return (self._whole - self._effort) * seconds / done

    def _rate(self) -> float:
        """Scenes a second."""
        scenes, _, seconds = self._since()
        return scenes / seconds

    def _since(self) -> tuple[int, float, float]:
        """Scenes and effort done since the first unit was, or since the beginning while there is only that; seconds."""
        scenes, done, begun = self._first or (0, 0.0, self._begun)
        if self._scenes.total() == scenes:
            scenes, done, begun = 0, 0.0, self._begun
        return self._scenes.total() - scenes, self._effort - done, max(self._clock() - begun, 1e-9)

    def _say(self, line: str) -> None:
        """A line on the run's page."""
        self._logger.info("%s", line)

    def _record(self, event: str, **content: object) -> None:
        """Append a record for machines."""
        if self._events:
            line = json.dumps({"time": time.time(), "event": event, "store": str(self._store), **content})
            with Path(self._events).open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def duration(seconds: float) -> str:
    """A time for people, e.g. `1 h 45 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _many(count: int, one: str, several: str) -> str:
    """A count with its noun."""
    return f"{count:,} {one if count == 1 else several}"

"""Scenes of real maps, for the benchmarks that trace them."""

import itertools
from dataclasses import replace
from pathlib import Path

from wavecity.dataset.progress import say, track
from wavecity.flows.bench.measure import area_of, named_by_option
from wavecity.geo.build import build_scene
from wavecity.geo.errors import InputError, SceneError
from wavecity.geo.scene import Scene
from wavecity.geo.settings import SceneSettings, UserSettings
from wavecity.geo.sources import Source, open_source
from wavecity.geo.tiles import Tile, grid, plan_tiles

# Of scenes, users and rays.
SEED = 0


def pick_scenes(maps: tuple[str, ...], count: int, users: int, cache: Path) -> list[Scene]:
    """Scenes of accepted tiles, evenly from all maps and in turn, so that the first few are spread evenly, too.

    What a small map lacks comes from larger ones; when all run out, their tiles come again with other users and other
    heights where the map has none.

    Parameters
    ----------
    maps : tuple of str
        `helsinki`, or paths of extracts.
    count : int
    users : int
        Of every scene.
    cache : Path
        Folder for converted maps.

    Raises
    ------
    InputError
        A map cannot be read, is smaller than a tile, or has no usable tile.
    """
    opened = []
    for name in maps:
        area = area_of(name)
        with named_by_option():
            source = open_source(area, cache)
            opened.append((len(grid(source, area)), area, source))
    by_map: dict[str, list[tuple[Tile, Source]]] = {}
    remaining = count
    for done, (_, area, source) in enumerate(sorted(opened, key=lambda each: each[0])):
        share = -(-remaining // (len(opened) - done))
        if share == 0:
            break
        area = area.model_copy(update={"scenes": share})
        tiles = plan_tiles(source, area, SceneSettings(), SEED)
        accepted = [(tile, source) for tile in tiles if tile.status == "accepted"]
        if not accepted:
            msg = f"--map {area.source}: none of its {len(tiles)} tiles is usable; give an extract of a built-up area"
            raise InputError(msg)
        by_map[area.source] = accepted
        remaining -= len(accepted)
    turns = itertools.zip_longest(*(by_map[name] for name in maps if name in by_map))
    chosen = [each for turn in turns for each in turn if each is not None]
    scenes = []
    settings = UserSettings(minimum=users, maximum=users)
    for number in track(range(count), "scenes", unit="scenes"):
        again, position = divmod(number, len(chosen))
        tile, source = chosen[position]
        try:
            scene = build_scene(tile, source, SceneSettings(), settings, SEED + again)
        except SceneError as error:
            say(f"{tile.id}: left out: {error}")
            continue
        if again:
            scene = replace(scene, id=f"{tile.id}+{again}")
        # The tracer does not need the table of buildings, and workers get scenes by pickle.
        scenes.append(replace(scene, buildings=None))
    if not scenes:
        msg = f"--map {', '.join(maps)}: none of {len(chosen)} tiles could be built; give an extract of a built-up area"
        raise InputError(msg)
    return scenes

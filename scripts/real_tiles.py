"""Scenes of real maps for the scripts that trace some, and the options by which they are chosen."""

import argparse
import tempfile
from pathlib import Path

from wavecity.flows.bench.scenes import pick_scenes
from wavecity.geo.scene import Scene


def tracing_parser(description: str | None, tiles: int) -> argparse.ArgumentParser:
    """Options of a script that times the tracer: tiles, users, and settings of the solver."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=tiles)
    parser.add_argument("--map", action="append", dest="maps")
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--rays", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=400)
    parser.add_argument("--no-diffraction", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", type=Path)
    return parser


def scenes_of(options: argparse.Namespace, users: int) -> list[Scene]:
    """Scenes of `--tiles` tiles, from all maps of `--map`; by default from Helsinki."""
    with tempfile.TemporaryDirectory() as folder:
        cache = options.cache or Path(folder)
        return pick_scenes(tuple(options.maps or ["helsinki"]), options.tiles, users, cache)

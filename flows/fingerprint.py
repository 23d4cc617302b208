"""What makes a dataset's bytes change: the modules that make data, by their code and not by their comments."""

import ast
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wavecity.flows.recipe import Recipe

# A dataset is rebuilt when one of these modules changes, comments and docstrings aside. Every module that a build
# imports is listed here or in `NOT_DATA` (tests/flows/test_fingerprint.py).
DATA = {
    "geo": (
        "bbbike", "boxes", "build", "cities", "extract", "footprints", "gates", "guess", "height_file", "height_texts",
        "heights", "materials", "mesh", "nested", "overpass", "overture", "plan", "polygons", "projection", "rasters",
        "reading", "rewriting", "rings", "rows", "scene", "seeding", "settings", "sources", "streets", "tile_heights", "tiles",
        "trajectories", "users",
    ),
    "raytrace": (
        "arrays", "bounce", "bounds", "chains", "channels", "clearance", "confirm", "device", "diffuse", "edges", "elements",
        "evolve", "facades", "geometry", "lit", "moving", "pairs", "patches", "returning", "rows", "scattering", "settings",
        "shadows", "simulate", "sionna_private", "solver", "surfaces", "touching", "utd", "world",
    ),
    "dataset": ("buildings", "distributions", "features", "schema", "statistics"),
}  # fmt: skip
# Modules of what a recipe may ask for, by its key: they count in datasets that have it.
FEATURES: dict[str, dict[str, tuple[str, ...]]] = {
    "radio_map": {"raytrace": ("radio_map", "radio_map_settings")},
    "vegetation": {"geo": ("vegetation", "vegetation_settings"), "raytrace": ("vegetation",)},
    "base_stations": {"geo": ("base_station_settings", "base_stations"), "dataset": ("base_stations",)},
}
# What a build imports besides: downloads, devices, how files are written. Maps are in the fingerprint by the hash of
# their bytes.
NOT_DATA = {
    "geo": ("download", "errors", "network"),
    "raytrace": ("backend", "recording"),
    "dataset": (
        "bands", "draft", "files", "fingerprints", "integrity", "layout", "materials", "radio_maps", "records", "sharing",
        "vegetation", "writer",
    ),
}  # fmt: skip
# Raise it when data change through something else, e.g. a setting of the ray tracer's compiler.
REVISION = 1


def code_of(recipe: "Recipe") -> str:
    """`code_fingerprint` with the features that a recipe asks for."""
    asked = {
        "radio_map": recipe.features.radio_map,
        "vegetation": recipe.scene.vegetation,
        "base_stations": recipe.scene.base_stations,
    }
    return code_fingerprint(tuple(name for name in FEATURES if asked[name] is not None))


@cache
def code_fingerprint(features: tuple[str, ...] = ()) -> str:
    """SHA-256 of the code that makes data: changed code makes a new dataset, not a mixture of two.

    `features` of `FEATURES` count too.
    """
    return fingerprint_below(Path(__file__).resolve().parents[1], features)


def fingerprint_below(root: Path, features: tuple[str, ...] = ()) -> str:
    """SHA-256 of the modules in `DATA` below a folder, by their syntax trees without docstrings, and of `REVISION`."""
    digest = hashlib.sha256(str(REVISION).encode())
    parts = [*DATA.items(), *(part for feature in features for part in FEATURES[feature].items())]
    for folder, names in parts:
        for name in names:
            tree = ast.parse((root / folder / f"{name}.py").read_text(encoding="utf-8"))
            digest.update(f"\n{folder}.{name} {_written(tree)}".encode())
    return digest.hexdigest()


def _written(node: object) -> str:
    """A syntax tree as text: the same for every Python version, which `ast.dump` and `ast.unparse` are not.

    Fields that are empty are left out: newer versions have more of them.
    """
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            fields = [(name, _without_docstring(value) if name == "body" else value) for name, value in fields]
        return f"{type(node).__name__}({', '.join(f'{name}={_written(value)}' for name, value in fields)})"
    if isinstance(node, list):
        return f"[{', '.join(map(_written, node))}]"
    return repr(node)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements of a body without a leading docstring."""
    match body:
        case [ast.Expr(value=ast.Constant(value=str())), *rest]:
            return rest
    return body

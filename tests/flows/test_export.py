"""`wavecity export`: a scene of a recipe for other programs."""

from pathlib import Path

import numpy as np
import trimesh
from command import wavecity

from wavecity.flows.planning import plan_scenes
from wavecity.flows.recipe import load_recipe
from wavecity.geo.build import build_scene


def test_a_scene_for_sionna_and_for_viewers(tmp_path: Path) -> None:
    from wavecity.raytrace.device import rt

    result = wavecity("export", "quickstart", "--scene", "helsinki-0020", "--out", tmp_path / "scene")
    assert result.returncode == 0, result.stderr
    recipe = load_recipe("quickstart")
    plan = plan_scenes(recipe, tmp_path)
    (tile,) = [tile for tile in plan.accepted if tile.id == "helsinki-0020"]
    scene = build_scene(tile, plan.sources["Helsinki"], recipe.scene, recipe.users, recipe.seed)
    box = rt.load_scene(str(tmp_path / "scene" / "scene.xml")).mi_scene.bbox()
    assert float(box.max.z) == np.float32(scene.mesh.vertices[:, 2].max())
    model = trimesh.load(tmp_path / "scene" / "helsinki-0020.glb")
    assert model.bounds[1, 1] == np.float32(scene.mesh.vertices[:, 2].max())  # y is up


def test_an_unknown_scene_is_one_line(tmp_path: Path) -> None:
    for scene in ("helsinki-9999", "oslo-0001", "x"):
        result = wavecity("export", "quickstart", "--scene", scene, "--out", tmp_path)
        assert result.returncode == 2, result.stdout
        assert f"--scene {scene}: recipe quickstart accepts no such tile" in result.stderr

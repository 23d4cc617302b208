"""A dozen of the random cases of scripts/random_cases.py; and that the comparison sees what is wrong."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import path_by_path
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "random_cases.py"
spec = importlib.util.spec_from_file_location("random_cases", SCRIPT)
assert spec is not None
assert spec.loader is not None
random_cases = importlib.util.module_from_spec(spec)
spec.loader.exec_module(random_cases)

# In small scenes, where kernels compile quickly.
SAMPLE = (3, 7, 18, 40, 43, 54, 62, 65, 68, 79, 80, 87)


def case_of(number: int) -> tuple[Any, dict[str, Any]]:
    """Scene and case of a number."""
    world = random_cases.load(random_cases.case_scene(number))
    return world, random_cases.draw(number, world) | path_by_path.aids(world)


@pytest.mark.parametrize("number", SAMPLE)
def test_random_case(number: int) -> None:
    result = path_by_path.compare(*case_of(number))
    assert result["unexplained"] == []
    assert sum(result["classes"].values()) >= max(result["ours"], result["stock"])


@pytest.mark.parametrize("fault", ["lost", "louder", "longer", "invented", None])
def test_a_fault_is_not_explained(fault: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of our solver's paths in a box: the third is lost, louder or longer, or another one is put in with wrong mirrors."""
    sound = path_by_path.solve

    def faulty(world: Any, case: dict[str, Any], solver: str, *nudge: Any, **changes: Any) -> dict[str, np.ndarray]:
        paths = sound(world, case, solver, *nudge, **changes)
        if solver == "ours" and fault == "lost":
            return {name: np.delete(column, 2, axis=0) for name, column in paths.items()}
        if solver == "ours" and fault == "invented":
            paths = {name: np.concatenate([column, column[-1:]]) for name, column in paths.items()}
            paths["met"][-1] = (paths["met"][-1] + 1) % world.surfaces.planes
        if solver == "ours" and fault in ("louder", "longer"):
            name = "coefficient" if fault == "louder" else "length"
            paths[name][2] *= 1.3
        return paths

    monkeypatch.setattr(path_by_path, "solve", faulty)
    world, case = case_of(43)
    case |= {"options": {"max_depth": 2, "refraction": False}, "receivers": case["receivers"][:1]}
    result = path_by_path.compare(world, case)
    assert len(result["unexplained"]) == (fault is not None)
    assert result["classes"]["the same"] == result["stock"] - (fault in ("lost", "louder", "longer"))


def test_file_is_continued_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cases.jsonl"
    random_cases.run(out, [62])
    first = out.read_text()
    random_cases.run(out, [62, 18])
    assert out.read_text().startswith(first)
    assert len(out.read_text().splitlines()) == 2
    random_cases.report(out)
    printed = capsys.readouterr().out
    assert printed.startswith("2 cases, 0 crashes")
    assert "| empty | 1 | 0 |" in printed

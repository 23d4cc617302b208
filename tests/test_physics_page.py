"""The figures of docs/physics.md are those of its formulas, and these are those of their sources."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def physics() -> ModuleType:
    spec = importlib.util.spec_from_file_location("physics", ROOT / "scripts" / "physics.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_formulas_against_values_from_elsewhere(physics: ModuleType) -> None:
    # The package itur 0.4.0 at 28.5 GHz, vertical polarisation.
    assert physics.rain(25) == pytest.approx(3.99971, rel=1e-5)
    assert physics.rain(50) == pytest.approx(7.58896, rel=1e-5)
    # An edge on the line of sight halves the field; two far apart, each of which loses nothing, lose what they do alone.
    assert physics.knife_edge(0, 50, 50) == pytest.approx(6.02, abs=0.02)
    assert physics.two_edges(20, 20, 1, 1e9, 1) == pytest.approx(40, abs=1e-6)
    # A half-plane on the path, and a screen without extent.
    assert physics.screen(0, 1e9, 1e9, 1e9, 10, 10) == pytest.approx(6.02, abs=0.02)
    assert physics.screen(0, 0, 5, 5, 10, 10) == 0
    # Fraunhofer's criterion is a phase of pi / 8, 2 k sigma sin(psi).
    sigma = physics.WAVELENGTH / 32
    assert physics.roughness_loss(sigma, 90) == pytest.approx(8.686 * (3.14159 / 8) ** 2 / 2, rel=1e-4)


def test_the_page_has_the_figures_of_the_formulas(physics: ModuleType) -> None:
    page = (ROOT / "docs" / "physics.md").read_text(encoding="utf-8")
    rates = [physics.rain(rate) for rate in (5, 25, 50, 100)]
    people = [physics.screen(0.15, 0.15, 1.5, 0.2, near, 100 - near) for near in (0.5, 1, 3)]
    first, second = physics.knife_edge(1, 60, 15), physics.knife_edge(37 / 6, 15, 30)
    stated = [
        f"{rates[0]:.2f}, {rates[1]:.1f}, {rates[2]:.1f}, {rates[3]:.1f} dB/km",
        ", ".join(f"{0.2 * rate:.1f}" for rate in rates) + " dB in 200 m",
        f"{physics.weissberger(5):.0f} to {physics.fitu_r(5):.0f} dB through 5 m",
        f"{physics.weissberger(10):.0f} to {physics.fitu_r(10):.0f} dB through 10 m",
        ", ".join(f"{loss:.0f}" for loss in people) + " dB for a person",
        f"{first:.1f} and {second:.1f} dB",
        f"{physics.two_edges(first, second, 60, 15, 30):.1f} dB",
        f"costs {physics.knife_edge(2, 50, 50):.1f} dB",
        f"{physics.roughness_loss(0.0005, 90):.1f} dB at 0.5 mm",
        f"{physics.roughness_loss(0.001, 90):.1f} dB at 1 mm",
        f"glass −{-physics.reflection('glass'):.0f}, concrete −{-physics.reflection('concrete'):.0f}, "
        f"brick −{-physics.reflection('brick'):.0f}, wood −{-physics.reflection('wood'):.0f} dB",
    ]
    for text in stated:
        assert text in page

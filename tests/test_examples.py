"""The examples of functions that need neither a map nor a store are right."""

import doctest
from importlib import import_module

import pytest

EXAMPLES = {
    "geo.cities": ("camel", "nearest_country", "slug", "source_of"),
    "geo.height_texts": ("parse_length", "parse_levels", "storeys_in_words", "unread_heights"),
    "geo.heights": ("tagged_height",),
    "geo.rings": ("assemble",),
    "geo.projection": ("unproject",),
    "geo.rasters": ("cell_centres", "occupancy_grid", "patch_shares"),
    "geo.seeding": ("generator",),
    "geo.streets": ("directions", "speed_limit"),
    "geo.tiles": ("divide",),
    "raytrace.arrays": ("best_beam", "dft_codebook", "direction", "element_offsets", "panel_axes", "spectrum"),
    "raytrace.channels": ("subcarrier_frequencies",),
    "dataset.distributions": ("delay_spread",),
    "dataset.epochs": ("EpochCounter",),
    "dataset.fingerprints": ("fingerprint_of",),
    "dataset.schema": ("array_specs",),
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in EXAMPLES.items() for name in names])
def test_example(module: str, name: str) -> None:
    loaded = import_module(f"wavecity.{module}")
    globs = {**vars(import_module("wavecity.geo.settings")), **vars(loaded)}
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder(recurse=False).find(getattr(loaded, name), name, globs=globs):
        runner.run(example)
    assert runner.tries
    assert not runner.failures

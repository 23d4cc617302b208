"""City maps in, wireless foundation models out.

What stands in `__all__` is the public interface, documented and stable; importing it loads nothing else until it is used.

Examples
--------
>>> import wavecity
>>> data = wavecity.open_store("runs/quickstart/store")  # doctest: +SKIP
>>> data.csi.dims  # doctest: +SKIP
('scene', 'user', 'x', 'y')
>>> model = wavecity.load("runs/quickstart-paper")  # doctest: +SKIP
>>> model.embed(data.csi.isel(scene=0), data.height.isel(scene=0)).shape  # doctest: +SKIP
(24, 64)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wavecity.dataset.derived import DerivedCsi
    from wavecity.dataset.lightning_data import ChannelDataModule
    from wavecity.dataset.radio_map_data import RadioMapDataset
    from wavecity.dataset.reader import open_store
    from wavecity.dataset.records import attributes_of
    from wavecity.dataset.torch_batches import ShuffledChannels
    from wavecity.dataset.torch_data import ChannelDataset
    from wavecity.flows.pipeline import build_dataset as build
    from wavecity.flows.recipe import Recipe, load_recipe
    from wavecity.geo.errors import InputError
    from wavecity.model.benchmark.encoder import Batch
    from wavecity.model.benchmark.run import benchmark
    from wavecity.model.rays.locate import locate
    from wavecity.model.rays.surroundings import surroundings
    from wavecity.model.tasks.evaluate import evaluate
    from wavecity.model.training.load import load
    from wavecity.raytrace.path_solver import ChainPathSolver

    __version__: str

__all__ = [
    "Batch",
    "ChainPathSolver",
    "ChannelDataModule",
    "ChannelDataset",
    "DerivedCsi",
    "InputError",
    "RadioMapDataset",
    "Recipe",
    "ShuffledChannels",
    "__version__",
    "attributes_of",
    "benchmark",
    "build",
    "evaluate",
    "load",
    "load_recipe",
    "locate",
    "open_store",
    "surroundings",
]

# Public name -> module and name there.
_PUBLIC = {
    "Batch": ("wavecity.model.benchmark.encoder", "Batch"),
    "ChainPathSolver": ("wavecity.raytrace.path_solver", "ChainPathSolver"),
    "ChannelDataModule": ("wavecity.dataset.lightning_data", "ChannelDataModule"),
    "ChannelDataset": ("wavecity.dataset.torch_data", "ChannelDataset"),
    "DerivedCsi": ("wavecity.dataset.derived", "DerivedCsi"),
    "InputError": ("wavecity.geo.errors", "InputError"),
    "RadioMapDataset": ("wavecity.dataset.radio_map_data", "RadioMapDataset"),
    "Recipe": ("wavecity.flows.recipe", "Recipe"),
    "ShuffledChannels": ("wavecity.dataset.torch_batches", "ShuffledChannels"),
    "attributes_of": ("wavecity.dataset.records", "attributes_of"),
    "benchmark": ("wavecity.model.benchmark.run", "benchmark"),
    "build": ("wavecity.flows.pipeline", "build_dataset"),
    "evaluate": ("wavecity.model.tasks.evaluate", "evaluate"),
    "load": ("wavecity.model.training.load", "load"),
    "load_recipe": ("wavecity.flows.recipe", "load_recipe"),
    "locate": ("wavecity.model.rays.locate", "locate"),
    "open_store": ("wavecity.dataset.reader", "open_store"),
    "surroundings": ("wavecity.model.rays.surroundings", "surroundings"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("wavecity")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'wavecity' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

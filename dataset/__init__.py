"""Channels -> Zarr store -> readers. Light: importing the package loads neither zarr nor torch.

`dataset.reader.open_store` for xarray, `dataset.torch_data` for torch; plain `xarray.open_zarr` works as well.
"""

from geo.errors import InputError

__all__ = ["InputError"]

"""Channels -> Zarr store -> readers. Light: importing the package loads neither zarr nor torch.

`wavecity.dataset.reader.open_store` for xarray, `wavecity.dataset.torch_data` and `wavecity.dataset.torch_batches` for torch;
plain `xarray.open_zarr` works as well.
"""

from wavecity.geo.errors import InputError

__all__ = ["InputError"]

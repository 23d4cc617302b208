"""Other tools' formats: a store as DeepMIMO scenarios, HDF5, MATLAB files or tar shards, and scenarios as a store.

Light: h5py, scipy, geopandas and the packages whose formats these are get imported by the functions that need them.
"""

"""The commands of `wavecity` by subject; `flows.cli` puts them together."""

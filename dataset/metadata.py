"""What the finishing step writes besides the units' arrays: its version, and the scenes' index.

Not among the modules that make a dataset's bytes (`wavecity.flows.fingerprint`): a store with other metadata is another
version, but takes over the scenes of the one before without tracing them.
"""

from wavecity.dataset.schema import SCENE_FIELDS, SCHEMA_VERSION, SceneField

# 1: attributes of the root group that NetCDF can hold, and scenes by their id in every group.
REVISION = 1
# `schema_version` of a store. Stores of before had the schema's own.
STORE_SCHEMA = f"{SCHEMA_VERSION}.{REVISION}"

# The index of dimension `scene` in every group: `ds.sel(scene="helsinki-0020")`.
SCENE_INDEX = SceneField("scene", "str", "", "", "identifier of the scene")
# The scene coordinates that the groups `paths` and `trajectory` have as well.
GROUP_FIELDS = [field for field in SCENE_FIELDS if field.name in ("city", "split")]

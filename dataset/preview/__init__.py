"""Pictures, pages and 3D models of a single scene."""

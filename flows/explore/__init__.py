"""A dataset in the browser: an index of its scenes, a page of static files, and a local server."""

"""The site: `make docs`. Pages are Markdown (MyST) and notebooks, the reference comes from docstrings."""

from importlib import metadata

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from wavecity.flows.help import keys_of
from wavecity.flows.recipe import load_recipe

project = "Wavecity"
author = "Wavecity contributors"
# In the footer of every page, for maps and pictures of them are on many.
copyright = "Wavecity contributors. Map data © OpenStreetMap contributors, ODbL"
version = release = metadata.version("wavecity")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
exclude_patterns = ["_build"]
html_theme = "pydata_sphinx_theme"
html_title = "Wavecity"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "header_links_before_dropdown": 5,
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
}
html_show_sourcelink = False
# The left side is for pages that have others below or next to them.
alone = (
    "index",
    "tutorial",
    "architecture",
    "results",
    "performance",
    "raytracer",
    "diffraction",
    "contributing",
    "changelog",
)
html_sidebars: dict[str, list[str]] = {name: [] for name in alone}

# The tests execute the notebooks; the site shows the outputs that are stored in them (`python scripts/notebooks.py`).
nb_execution_mode = "off"
# What commands write on standard error is no output of a notebook.
nb_output_stderr = "remove"
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4

# Blocks without a language are commands and what they print.
highlight_language = "text"
# `name` in a docstring is code, as it is in Markdown.
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # types stand in the docstrings, with shapes and units
napoleon_use_param = False
napoleon_use_rtype = False
# Types in prose are no references.
napoleon_custom_sections = [("Attributes", "params_style")]
# Raised by a public function, and no public name itself.
nitpick_ignore = [("py:exc", "NotPossible"), ("py:exc", "GateFailed")]


class RecipeKeys(SphinxDirective):
    """The keys below a section of a shipped recipe, with values and meanings, as `wavecity recipe` lists them."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        """Write a definition list in Markdown and have the page's own parser read it."""
        recipe, section = self.arguments
        rows = keys_of(load_recipe(recipe), section)
        items = [f"`{key.removeprefix(section + '.')}` = `{value}`\n: {meaning}\n" for key, value, meaning in rows]
        return self.parse_text_to_nodes("\n".join(items))


def setup(app: Sphinx) -> None:
    """Make the directive known."""
    app.add_directive("recipe-keys", RecipeKeys)

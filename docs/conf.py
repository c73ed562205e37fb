"""The site: ``make docs``. Sphinx, for it is alive, works offline, searches, and reads docstrings; pages are MyST."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
import generated  # noqa: E402

from emubench import __version__  # noqa: E402

project, author, version = "emubench", "emubench maintainers", __version__
project_copyright = "emubench maintainers, MIT licence"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme, html_title = "furo", "emubench"
html_theme_options = {"source_edit_link": "", "navigation_with_keys": True}
html_show_sphinx = smartquotes = False  # -- is an option
copybutton_prompt_text, copybutton_prompt_is_regexp = r">>> |\.\.\. ", True
autodoc_typehints, autodoc_member_order, autodoc_preserve_defaults = "signature", "bysource", True
autoclass_content = "class"
suppress_warnings = ["myst.header", "misc.highlighting_failure"]


ELSEWHERE = {
    "../baselines/README.md": "/reference/measured.md",
    "../datasets/README.md": "/how_to/data.md",
    "../CONTRIBUTING.md": "/how_to/baseline.md",
    "../README.md": "/index.md",
}
"""Pages beside the code, and where the site has what they say: links work in a checkout and here."""


def _links(app, page: str, source: list[str]) -> None:
    for there, here in ELSEWHERE.items():
        source[0] = source[0].replace(f"]({there}", f"]({here}")


def setup(app) -> None:
    """Write the pages that are made from the code before Sphinx looks for pages."""
    app.connect("source-read", _links)
    generated.write(Path(__file__).parent / "reference")

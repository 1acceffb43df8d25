"""How the site is built: ``make docs``. Nothing is fetched while it is built, and nothing when it is read."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
os.environ.setdefault("MPLBACKEND", "agg")

_project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "closedform"
author = "The closedform maintainers"
copyright = "the closedform maintainers, Apache-2.0"
version = release = _project["version"]
repository = _project["urls"]["Repository"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "mathml",
    "navigation",
    "reference",
    "runs",
]
exclude_patterns = ["_build", "_data", "_tools", "_ext", "_stage", "gallery/README.rst", "**/GALLERY_HEADER.rst"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

napoleon_use_ivar = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
add_module_names = False

#: Blocks that name no language are lines for a shell, or what was printed.
highlight_language = "none"

html_theme = "pydata_sphinx_theme"
html_title = "closedform"
#: The stage computes by the same formulas as the report, which are tested against Python's.
_FORMULAS = "../src/closedform/report/static/recurrence.js"
html_static_path = ["_static", _FORMULAS, "_stage/stage.js", "_stage/stage.css"]
html_css_files = ["site.css"]
html_favicon = "_static/mark.svg"
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "closedform", "image_light": "_static/mark.svg", "image_dark": "_static/mark.svg", "alt_text": ""},
    "navbar_end": ["theme-switcher", "navbar-icon-links"],
    "icon_links": [{"name": "Repository", "url": repository, "icon": "fa-brands fa-github"}],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "header_links_before_dropdown": 6,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "back_to_top_button": False,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
}
html_sidebars = {"index": [], "causes": []}

copybutton_prompt_text = "$ "
copybutton_exclude = ".linenos, .gp"

sphinx_gallery_conf = {
    "examples_dirs": [str(HERE.parent / "examples" / "gallery")],
    "gallery_dirs": ["gallery"],
    "filename_pattern": r".*\.py$",
    "download_all_examples": False,
    "remove_config_comments": True,
    "plot_gallery": True,
    "abort_on_example_error": True,
    "show_signature": False,
    "min_reported_time": 10_000,
    "show_memory": False,
    "within_subsection_order": "FileNameSortKey",
    "image_srcset": ["2x"],
    "write_computation_times": False,
}

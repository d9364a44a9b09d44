"""How Sphinx builds the site: `make docs`."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
os.environ["COLUMNS"] = "100"  # of the command line in a cell
# Cells import lincon from this checkout, whatever is installed.
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])

import lincon
from site_pages import write_all
from site_pages.cells import as_notebook
from site_pages.links import rewritten

write_all()

project = "lincon"
author = "the authors of lincon"
release = lincon.__version__
language = "en-GB"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["generated/tables", "html"]
default_role = "literal"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4

nb_execution_mode = "force"
nb_output_stderr = "remove"  # such as that a progress bar misses ipywidgets
nb_execution_raise_on_error = True
nb_execution_timeout = 300  # seconds a cell: a slow machine is no error
nb_execution_in_temp = True
nb_merge_streams = True
nb_render_markdown_format = "myst"  # with tables

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "lincon"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False


def read(app, docname, source):
    """Links of a page lead to pages, and its examples are cells."""
    if docname.startswith("generated/"):
        return
    source[0] = as_notebook(rewritten(source[0], HERE / f"{docname}.md"))


def source_of(app, module, name):
    """The module whose source has an object; an attribute whose value is Python's own is the class's."""
    value = sys.modules.get(module)
    for part in name.split("."):
        value = getattr(value, part, None)
    return module if getattr(value, "__module__", None) == "builtins" else None


def setup(app):
    app.connect("source-read", read)
    app.connect("viewcode-follow-imported", source_of)

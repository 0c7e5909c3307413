"""How Sphinx builds the site: ``make docs``, or ``make docs QUICK=1`` with short examples."""

import importlib.metadata
import os
import sys
import warnings
from pathlib import Path

import matplotlib as mpl

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
mpl.use("agg")

from extensions import error_tables, gallery, reference_pages  # noqa: E402  found in this folder

QUICK = bool(os.environ.get("QUICK"))
BUILD = HERE.parent / "build"
COPIES = BUILD / ("quick_examples" if QUICK else "examples")

project = "ppl_vae"
copyright = "the authors of ppl_vae"  # noqa: A001  Sphinx's name
version = release = importlib.metadata.version("ppl-vae")

gallery.copy_examples(COPIES, QUICK)
reference_pages.write(HERE / "reference")
error_tables.write(HERE / "_generated")

extensions = [
    "myst_parser",
    "sphinx_design",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
    "extensions.equations",
    "extensions.zoo_pages",
    "extensions.docstrings",
    "extensions.home_figures",
    "extensions.benchmark_page",
]
exclude_patterns = ["extensions", "_generated/*.md"]
zoo_quick = QUICK
nitpicky = False
myst_enable_extensions = ["colon_fence", "dollarmath", "deflist", "attrs_inline"]
myst_heading_anchors = 3
suppress_warnings = ["config.cache"]

smartquotes = False  # -- is an option, and no dash

html_theme = "pydata_sphinx_theme"
html_title = "ppl_vae"
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_show_search_summary = False  # it fetches pages, which a browser refuses for files on a disk
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
alone = ("index", "choose", "theory", "benchmarks", "troubleshooting", "stability", "changes")
html_sidebars: dict[str, list[str]] = {page: [] for page in alone}

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 80
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

sphinx_gallery_conf = {
    "examples_dirs": [str(COPIES)],
    "gallery_dirs": ["gallery"],
    "filename_pattern": rf"/(?!{'|'.join(gallery.NOT_EXECUTED)})\w+\.py$",
    "reset_argv": gallery.QuickArguments(QUICK),
    "image_scrapers": (gallery.WrittenFigures(),),
    "reset_modules": (),
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "download_all_examples": False,
    "min_reported_time": 10**6,
    "plot_gallery": "True",
    "abort_on_example_error": True,
    "within_subsection_order": "FileNameSortKey",
    "parallel": False,
}
warnings.filterwarnings("ignore", category=UserWarning, module="ppl_vae")

"""How Sphinx makes the site: `tox run -e docs`. It needs no network, and any warning is an error."""

import os
import re
from pathlib import Path
from typing import Any

import futurepool

project = "futurepool"
author = "the futurepool authors"
version = release = futurepool.__version__
html_baseurl = os.environ.get("READTHEDOCS_CANONICAL_URL", "")  # where that builds it
html_title = f"futurepool {version}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

# So that `page.md#a-heading` leads to the same place here and where the files are read as they are.
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

# `Name` in a docstring is a link where there is such a name, and code everywhere.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Cost", "returns_style"), ("Thread safety", "returns_style")]
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80

PRIVATE = re.compile(r"futurepool\._[\w.]+\.")


def find_field_docstrings(app: Any) -> None:
    """Read the text under each field where it stands.

    Public classes say that they live in `futurepool`, where autodoc would look in vain.

    Raises:
        RuntimeError: Fields of a public class have no text, or it was not found.
    """
    from sphinx.pycode import ModuleAnalyzer

    public = ModuleAnalyzer.for_module("futurepool")
    public.analyze()
    package = Path(futurepool.__file__).parent
    for path in sorted(package.glob("_*/**/*.py")) + sorted(package.glob("_[!_]*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        # By its path, so that it is not imported: what `_cli` needs is no extra of the site's.
        part = ModuleAnalyzer.for_file(str(path), ".".join(parts).removesuffix(".__init__"))
        part.analyze()
        public.attr_docs.update(part.attr_docs)
        public.tagorder.update(part.tagorder)
    fields = {
        (name, field)
        for name in futurepool.__all__
        for field in getattr(getattr(futurepool, name), "__dataclass_fields__", ())
    }
    if missing := sorted(fields - public.attr_docs.keys()):
        raise RuntimeError(f"fields without a text: {missing}")


def shorten(app: Any, what: str, name: str, obj: Any, options: Any, *texts: Any) -> Any:
    """Show a public class in a signature by the name that users know."""
    return tuple(text if text is None else PRIVATE.sub("", text) for text in texts)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", find_field_docstrings)
    app.connect("autodoc-process-signature", shorten)

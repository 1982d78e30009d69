"""Settings of the site. ``tools/docs.py`` lays out its pages, then runs Sphinx with this file."""

import ast
import builtins
import os
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pygments.lexers.special import TextLexer

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

ROOT = Path(os.environ["SEV_ATTEST_SOURCE"])
sys.path.insert(0, str(ROOT / "src"))

from sev_attest import __version__  # noqa: E402

project = "sev-attest"
author = "the sev-attest authors"
copyright = author  # noqa: A001 - the name that Sphinx gives it
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["deflist"]
# Links to headings, by the names that code hosts give them.
myst_heading_anchors = 4
nitpicky = True
# An annotation that is imported for type checkers alone has no package: VerifiedReport may be SEV's
# or SEV-SNP's.
suppress_warnings = ["ref.python"]

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
add_module_names = False
toc_object_entries_show_parents = "hide"

smartquotes = False  # of two hyphens it makes a dash
html_theme = "furo"
html_title = "sev-attest"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"


@cache
def _names() -> frozenset[str]:
    """Return the name of every module, and every name that one defines, at any depth."""
    files = [*(ROOT / "src").rglob("*.py")]
    found = {file.stem for file in files}
    for node in (node for file in files for node in ast.walk(ast.parse(file.read_bytes()))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return frozenset(found)


def _resolve(
    app: "Sphinx", env: "BuildEnvironment", node: "pending_xref", text: "nodes.TextElement"
) -> "nodes.Element | None":
    """Resolve what a docstring names: a public name of another package as a link, others as text.

    What exists nowhere stays unresolved, which is an error of the build.
    """
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].partition("[")[0]
    python = env.domains.python_domain
    ends = [
        name
        for name, entry in python.objects.items()
        if name.endswith(f".{target}") and not entry.aliased
    ]
    if len(ends) == 1:
        node["reftarget"], node["refspecific"] = ends[0], False
        return python.resolve_xref(
            env, node["refdoc"], app.builder, node["reftype"], ends[0], node, text
        )
    first, last = target.split(".")[0], target.split(".")[-1]
    outside = first in sys.stdlib_module_names or first == "cryptography"
    known = outside or hasattr(builtins, target) or last in _names()
    return text if known else None


def setup(app: "Sphinx") -> None:
    """Add what is above; Vault's policies are plain text, as Pygments reads less than their HCL."""
    app.connect("missing-reference", _resolve)
    app.add_lexer("hcl", TextLexer)

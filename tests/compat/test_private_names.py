"""Private names of torch and Pyro are used in one folder alone."""

import ast
from pathlib import Path

import ppl_vae


def test_nothing_but_compat_uses_a_private_name_of_torch_or_pyro():
    """The names are read from the sources: attributes of other objects that begin with one _."""
    root = Path(ppl_vae.__file__).parent
    own = {"_of", "_make"}
    found = []
    for path in sorted(root.rglob("*.py")):
        if path.parent == root / "compat":
            continue
        tree = ast.parse(path.read_text())
        names = [n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module[:3] != "ppl":
                private = any(part[0] == "_" for part in node.module.split(".") if part)
                if private and node.module != "__future__":
                    found.append(f"{path.name}:{node.lineno} {node.module}")
            if not isinstance(node, ast.Attribute) or not node.attr.startswith("_"):
                continue
            of_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            known = node.attr.startswith("__") or node.attr in own or node.attr in names
            if not of_self and not known:
                found.append(f"{path.name}:{node.lineno} .{node.attr}")
    assert found == []

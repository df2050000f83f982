"""The Python API: a page per package, with the public names of its modules."""

import ast
from pathlib import Path
from typing import Any

import griffe
from repository import ROOT, Place

FOLDER = "reference/python"

INTERNAL = ("cli", "tasks", "figures", "report", "tracking", "data.audit")
"""Packages behind the command line, which nobody imports."""

TOP_MODULES = ("api", "errors", "linalg", "plugins", "state", "types")
"""Modules beside the packages that others import."""

INTRODUCTION = """# Python API

The public names of the packages, from their docstrings.
Shapes are [jaxtyping](https://docs.kidger.site/jaxtyping/)'s: `Float[Tensor, "out in"]` is a tensor
of floating-point numbers with two dimensions.
Names are imported from the module that defines them:

```python
from fmsd.optim.drop_in import DropIn
```

`fmsd.cli` and `fmsd.tasks`, the code behind the verbs, are left out, and so are the parts of the
report: use the [command line](../command_line.md).

| package | content |
| --- | --- |
"""


def modules() -> dict[str, list[str]]:
    """By package, its public modules, in alphabetical order."""
    found: dict[str, list[str]] = {"fmsd": [f"fmsd.{name}" for name in TOP_MODULES if _path(name)]}
    for path in sorted((ROOT / "fmsd").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        package, name = ".".join(parts[:-1]), parts[-1]
        below = package.removeprefix("fmsd").removeprefix(".")
        internal = any(below == one or below.startswith(f"{one}.") for one in INTERNAL)
        if not below or internal or name.startswith("_"):
            continue
        found.setdefault(package, []).append(f"{package}.{name}")
    return found


def _path(name: str) -> bool:
    return (ROOT / "fmsd" / f"{name}.py").is_file()


def page_of(package: str) -> str:
    """The page of a package."""
    return f"{FOLDER}/{package}.md"


def places() -> dict[str, Place]:
    """By file of the package, its place."""
    return {
        f"{module.replace('.', '/')}.py": Place(page_of(package), module)
        for package, names in modules().items()
        for module in names
    }


def pages() -> dict[str, str]:
    """The Markdown of all pages, by page."""
    written = {}
    rows = []
    for package, names in modules().items():
        written[page_of(package)] = _package(package, names)
        listed = ", ".join(f"[{name.rpartition('.')[2]}]({package}.md#{name})" for name in names)
        rows.append(f"| [`{package}`]({package}.md) | {listed} |")
    written[f"{FOLDER}/index.md"] = INTRODUCTION + "\n".join(rows) + "\n"
    return written


def _package(package: str, names: list[str]) -> str:
    """The page of a package: a table of its modules, then each with its names."""
    rows = [f"| [{name.rpartition('.')[2]}](#{name}) | {_first_line(name)} |" for name in names]
    parts = [
        f"# {package}",
        "\n".join(["| module | content |", "| --- | --- |", *rows]),
        *(f"::: {name}" for name in names),
    ]
    return "\n\n".join(parts) + "\n"


def _first_line(module: str) -> str:
    """The first line of a module's docstring."""
    text = Path(ROOT, *module.split(".")).with_suffix(".py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text)) or ""
    return docstring.partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")


class Signatures(griffe.Extension):
    """Quotes shapes, which would be read as code, and gives named tuples their constructor."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Mends the annotations of a function's parameters and of its result."""
        for parameter in func.parameters:
            _quote(parameter.annotation)
        _quote(func.returns)

    def on_attribute(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Mends the annotation and the value of an attribute, which may be an alias of a type."""
        _quote(attr.annotation)
        _quote(attr.value)

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Adds the constructor of a named tuple: its fields in order."""
        if not any(str(base) == "NamedTuple" for base in cls.bases):
            return
        kind = griffe.ParameterKind.positional_or_keyword
        fields = [
            griffe.Parameter(name, annotation=field.annotation, kind=kind, default=field.value)
            for name, field in cls.members.items()
            if isinstance(field, griffe.Attribute) and field.annotation is not None
        ]
        itself = griffe.Parameter("self", kind=kind)
        constructor = griffe.Function("__init__", parameters=griffe.Parameters(itself, *fields))
        cls.set_member("__init__", constructor)


def _quote(expression: Any) -> None:
    """Quotes the shapes of an annotation and of all that it holds."""
    if not isinstance(expression, griffe.Expr):
        return
    for part in expression.iterate(flat=False):
        if part is not expression:
            _quote(part)
    if not isinstance(expression, griffe.ExprSubscript):
        return
    left, inside = expression.left, expression.slice
    if not isinstance(left, griffe.Expr) or not left.canonical_path.startswith("jaxtyping."):
        return
    if isinstance(inside, griffe.ExprTuple):
        shape = str(inside.elements[-1]).strip("\"' ")  # one name is set in for the sake of linters
        inside.elements = [*inside.elements[:-1], f'"{shape}"']

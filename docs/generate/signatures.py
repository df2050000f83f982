"""Signatures of the Python API as the source writes them."""

from typing import Any

import griffe


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

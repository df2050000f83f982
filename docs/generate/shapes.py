"""Keeps the shapes of jaxtyping's annotations quoted, which would be read as code otherwise."""

from typing import Any

import griffe


class Shapes(griffe.Extension):
    """Quotes the shape in `Float[Tensor, "batch"]` again."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Mends the annotations of a function's parameters and of its result."""
        for parameter in func.parameters:
            _quote(parameter.annotation)
        _quote(func.returns)

    def on_attribute(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Mends the annotation and the value of an attribute, which may be an alias of a type."""
        _quote(attr.annotation)
        _quote(attr.value)


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
    if isinstance(inside, griffe.ExprTuple) and isinstance(inside.elements[-1], griffe.ExprName):
        inside.elements[-1] = repr(inside.elements[-1].name)

import ast
import pickle
from pathlib import Path

import pytest

import fmsd
from fmsd.data.frame import Problem
from fmsd.errors import BusyError, InputError, error_chain

PACKAGE = Path(fmsd.__file__).parent


def test_an_input_error_is_one_sentence_with_its_remedy():
    error = InputError("There is no folder x", "give data.root=PATH")
    assert str(error) == "There is no folder x; give data.root=PATH."
    assert (error.message, error.remedy) == ("There is no folder x", "give data.root=PATH")
    assert (
        str(Problem("missing", "x is gone", "complete the copy")) == "x is gone; complete the copy."
    )
    assert str(Problem("slashes", "x has backslashes")) == "x has backslashes."


@pytest.mark.parametrize("kind", [InputError, BusyError])
def test_an_input_error_crosses_processes_whole(kind):
    error = pickle.loads(pickle.dumps(kind("What", "remedy")))
    assert type(error) is kind
    assert (error.message, error.remedy) == ("What", "remedy")


def test_an_input_error_is_not_caught_with_the_errors_of_conversions():
    with pytest.raises(InputError):
        try:
            raise InputError("What", "remedy")
        except ValueError:
            pytest.fail("an input error passed for a ValueError")


def test_every_input_error_of_the_package_has_a_remedy():
    bare = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("InputError", "BusyError")
        and not isinstance(node.args[0], ast.Starred)
        if len(node.args) < 2 or ast.unparse(node.args[1]) == "''"
    ]
    assert not bare


def test_the_chain_of_an_error_has_its_causes_once_and_hidden_ones_on_demand():
    cause, hidden, error = OSError(), KeyError(), InputError("What", "remedy")
    error.__cause__, cause.__context__, hidden.__context__ = cause, hidden, error
    cause.__suppress_context__ = True
    assert list(error_chain(error)) == [error, cause]
    assert list(error_chain(error, suppressed=True)) == [error, cause, hidden]

import copy
import inspect
import pickle
import sys

import pytest

from rewright import errors
from rewright.errors import (
    ArtifactError,
    CompileError,
    ConversionError,
    InputError,
    ParseError,
    PassError,
    RewrightError,
    SettingsError,
    UnsupportedError,
    VerificationError,
    did_you_mean,
)

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, RewrightError)
]

WARNINGS = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, errors.RewrightWarning)
]


def filled(cls: type[RewrightError]) -> RewrightError:
    """An error of this class with every field given."""
    names = [name for name in inspect.signature(cls).parameters if name != "message"]
    numbers = {"line": 3, "column": 5}
    return cls("it broke", **{name: numbers.get(name, f"the {name}") for name in names})


def test_message_where_and_hint_are_shown_in_this_order():
    error = RewrightError("no kernel", where="model.py:97 (router)", hint="use float32")
    assert str(error) == "no kernel\n  where: model.py:97 (router)\n  hint: use float32"


def test_absent_and_empty_parts_are_not_shown():
    assert str(RewrightError("no kernel", where="")) == "no kernel"


def test_later_lines_of_a_part_stand_under_its_first():
    assert str(RewrightError("no", hint="either\nor")) == "no\n  hint: either\n        or"


def test_where_is_kept_as_text():
    class Location:
        def __str__(self) -> str:
            return "model.py:97"

    assert RewrightError("no", where=Location()).where == "model.py:97"


def test_compile_error_shows_its_node():
    error = UnsupportedError(
        "data-dependent size", op="aten.nonzero", node="%3 = aten.nonzero(%x)", where="model.py:97"
    )
    assert error.op == "aten.nonzero"
    assert str(error).splitlines() == [
        "data-dependent size",
        "  node: %3 = aten.nonzero(%x)",
        "  where: model.py:97",
    ]


def test_parse_error_points_at_the_column():
    error = ParseError(
        "expected ')'", file="a.ir", line=12, column=17, source="  %y = aten.relu(%x : f32\n"
    )
    assert str(error).splitlines() == [
        "expected ')'",
        "  where: a.ir:12:17",
        "         12 |   %y = aten.relu(%x : f32",
        "            |                 ^",
    ]


def test_parse_error_keeps_tabs_before_the_caret():
    error = ParseError("what?", line=1, column=3, source="\tx?")
    assert str(error).splitlines()[-1].endswith("| \t ^")


def test_parse_error_points_past_the_end_of_a_line():
    error = ParseError("expected '}'", line=1, column=4, source="{")
    assert str(error).splitlines()[-1].endswith("|    ^")


@pytest.mark.parametrize(
    ("position", "where"),
    [
        ({}, None),
        ({"line": 3}, "<string>:3"),
        ({"file": "a.ir"}, "a.ir"),
        ({"file": "a.ir", "line": 3}, "a.ir:3"),
    ],
)
def test_parse_error_says_as_much_of_the_position_as_it_knows(position, where):
    assert ParseError("no", **position).where == where


def test_verification_error_shows_the_graph_last():
    error = VerificationError("%4 is used before it is made", excerpt="%3 = f()\n%4 = g(%5)")
    assert str(error).splitlines()[1:] == ["  graph:", "         %3 = f()", "         %4 = g(%5)"]


def test_artifact_error_is_at_its_path():
    assert ArtifactError("checksum differs", path="model.rw").where == "model.rw"


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_survives_pickle_and_copy(cls):
    error = filled(cls)
    if sys.version_info >= (3, 11):
        error.add_note("seen in pass fuse")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is cls
        assert str(again) == str(error)
        assert vars(again) == vars(error)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_can_be_given_a_message_only(cls):
    assert str(cls("it broke")) == "it broke"


@pytest.mark.parametrize("cls", CLASSES)
def test_every_field_is_an_attribute(cls):
    error = filled(cls)
    for name in inspect.signature(cls).parameters:
        assert getattr(error, name) is not None, name


def test_all_lists_every_error():
    assert set(errors.__all__) == {cls.__name__ for cls in CLASSES + WARNINGS} | {"did_you_mean"}


@pytest.mark.parametrize("cls", [InputError, SettingsError])
def test_users_mistakes_are_value_errors(cls):
    with pytest.raises(ValueError, match="it broke"):
        raise cls("it broke")


@pytest.mark.parametrize("cls", [PassError, ConversionError, UnsupportedError, VerificationError])
def test_compile_errors_are_caught_together(cls):
    assert issubclass(cls, CompileError)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("devise", "did you mean 'device'?"),
        ("DEVICE", "did you mean 'device'?"),
        ("zzz", "known names: device, target"),
    ],
)
def test_did_you_mean(name, hint):
    assert did_you_mean(name, ["target", "device"]) == hint


def test_did_you_mean_without_known_names():
    assert did_you_mean("x", []) == "no names are known here"


def test_errors_import_nothing_of_ours_and_nothing_heavy(fresh_python):
    code = (
        "import sys, rewright.errors;"
        "tops = ('torch', 'numpy', 'attr', 'attrs', 'rewright');"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in tops))"
    )
    waits = ["rewright.interop", "rewright.interop.on_import"]  # for torch, to declare operators
    assert fresh_python(code) == str(["rewright", "rewright.errors", *waits])

"""The text of pipelines: what is printed is parsed back, and mistakes are shown with a caret."""

import enum
import string
from typing import Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewright.errors import ParseError
from rewright.passes import registry
from rewright.passes.manager import Pass, Pipeline, Repeat
from rewright.passes.registry import get_pass, register_pass


class Size(enum.Enum):
    SMALL = 1
    VERY_LARGE = 2


@attrs.frozen
class EveryOption(Pass):
    """One option of each kind."""

    flag: bool = False
    count: int = 0
    ratio: float = 1.0
    text: str = "plain"
    maybe: str | None = None
    either: int | float | str = 1
    word: Literal["a", "b-c", 3] = "a"
    size: Size = Size.SMALL
    names: tuple[str, ...] = ()
    nested: tuple[tuple[int, ...], ...] = ()


@attrs.frozen
class NeedsOption(Pass):
    """An option without a default."""

    limit: int


@pytest.fixture(autouse=True, scope="module")
def _registered():
    get_pass("dce")
    before = dict(registry._passes)
    register_pass(EveryOption)
    register_pass(NeedsOption)
    yield
    registry._passes.clear()
    registry._passes.update(before)


texts = st.text() | st.text(string.ascii_letters + "_-./*", max_size=8)
texts |= st.sampled_from(["True", "None", "inf", "nan", "info", "3", "-", ""])
floats = st.floats(allow_nan=False)
passes = st.builds(
    EveryOption,
    flag=st.booleans(),
    count=st.integers(),
    ratio=floats,
    text=texts,
    maybe=st.none() | texts,
    either=st.integers() | floats | texts,
    word=st.sampled_from(["a", "b-c", 3]),
    size=st.sampled_from(Size),
    names=st.lists(texts, max_size=3).map(tuple),
    nested=st.lists(st.lists(st.integers(), max_size=2).map(tuple), max_size=2).map(tuple),
)
steps = st.recursive(
    passes | st.builds(NeedsOption, st.integers()),
    lambda inner: st.builds(Repeat, st.lists(inner, min_size=1, max_size=3), max=st.integers(1, 9)),
    max_leaves=6,
)


@given(st.lists(steps, max_size=4).map(Pipeline))
def test_what_is_printed_is_parsed_back(pipeline):
    text = str(pipeline)
    again = Pipeline.parse(text)
    assert repr(again) == repr(pipeline)
    assert str(again) == text


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        ("  ", ""),
        (" cse , dce ", "cse,dce"),
        ("cse{}", "cse"),
        ("repeat{max=8}(cse)", "repeat(cse)"),
        ("repeat(\n  cse,\n  dce\n)", "repeat(cse,dce)"),
        ("every-option{flag=True,}", "every-option{flag=True}"),
        ('every-option{text="plain"}', "every-option"),
        ("every-option{ratio=2}", "every-option{ratio=2.0}"),
        ("every-option{ratio=-inf}", "every-option{ratio=-inf}"),
        ('every-option{names=[layers.*.attn,"a b"]}', 'every-option{names=[layers.*.attn,"a b"]}'),
        ("every-option{size=very-large}", "every-option{size=very-large}"),
    ],
)
def test_spellings(text, canonical):
    assert str(Pipeline.parse(text)) == canonical


def test_a_name_may_stand_for_a_pipeline():
    named = {"default": Pipeline.parse("cse,dce")}
    assert str(Pipeline.parse("repeat(default),default", named)) == "repeat(cse,dce),cse,dce"


@pytest.mark.parametrize(
    ("text", "message", "column", "hint"),
    [
        ("dse", "there is no pass 'dse'", 1, "did you mean 'dce'?"),
        ("cse,", "expected the name of a pass, found the end", 5, None),
        (",cse", "expected the name of a pass, found ','", 1, None),
        ("cse dce", "expected ',' or the end, found 'dce'", 5, None),
        ("cse)", "expected ',' or the end, found ')'", 4, None),
        ("cse{x=1}", "cse has no option 'x'", 5, "cse has no options"),
        (
            "every-option{flog=True}",
            "every-option has no option 'flog'",
            14,
            "did you mean 'flag'?",
        ),
        ("every-option{flag}", "expected '=', found '}'", 18, None),
        ("every-option{flag=1}", "'flag' of every-option takes bool", 19, None),
        ("every-option{flag=true}", "'flag' of every-option takes bool", 19, None),
        ("every-option{count=1.0}", "'count' of every-option takes int", 20, None),
        ("every-option{count=True}", "'count' of every-option takes int", 20, None),
        ("every-option{text=3}", "'text' of every-option takes str", 19, None),
        ("every-option{text=None}", "'text' of every-option takes str", 19, None),
        ("every-option{maybe=3}", "'maybe' of every-option takes str or None", 20, None),
        ("every-option{word=c}", "'word' of every-option takes a or b-c or 3", 19, None),
        ("every-option{size=large}", "'size' of every-option takes small or very-large", 19, None),
        ("every-option{names=a}", "'names' of every-option takes [str, ...]", 20, None),
        ("every-option{names=[a,3]}", "'names' of every-option takes [str, ...]", 20, None),
        ("every-option{count=1,count=2}", "'count' is given twice", 22, None),
        ("every-option{count=}", "expected a value, found '}'", 20, None),
        ('every-option{text="\\x"}', "this string has an escape that JSON does not know", 19, None),
        ('every-option{text="a}', "expected a value, found '\"'", 19, None),
        ("repeat", "expected '(', found the end", 7, None),
        ("repeat()", "a repeat has no steps", 1, "write repeat(a,b)"),
        ("repeat{max=0}(cse)", "a repeat can't run 0 times", 1, "max is at least 1"),
        ("repeat(cse", "expected ')', found the end", 11, None),
        ("cse\n,dse", "there is no pass 'dse'", 2, "did you mean 'dce'?"),
    ],
)
def test_mistakes(text, message, column, hint):
    with pytest.raises(ParseError) as caught:
        Pipeline.parse(text)
    assert (caught.value.message, caught.value.column) == (message, column)
    assert caught.value.hint == hint


def test_a_name_that_nothing_is_like_says_how_passes_become_known():
    with pytest.raises(ParseError, match=r"(?s)no pass 'mine'.*imported .*--load FILE"):
        Pipeline.parse("mine")


def test_an_option_without_a_default_is_missing():
    with pytest.raises(ParseError, match=r"needs-option can't be made: .*'limit'"):
        Pipeline.parse("needs-option")

"""The way in: arguments as the model takes them, results as the model returns them."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils import _pytree as pytree

import rewright
from rewright.compiler import compile_graph
from rewright.errors import InputError
from rewright.frontends.export import import_exported
from rewright.program import CompiledProgram
from rewright.settings import Settings

Pair = namedtuple("Pair", "left right")


@dataclass
class Cache:
    """A container of the user's, with what is no tensor beside the tensors."""

    keys: list[Tensor]
    name: str


pytree.register_pytree_node(
    Cache,
    lambda cache: (cache.keys, cache.name),
    lambda keys, name: Cache(list(keys), name),
    flatten_with_keys_fn=lambda cache: (
        [(pytree.SequenceKey(at), key) for at, key in enumerate(cache.keys)],
        cache.name,
    ),
)


def compiled(model: nn.Module, args: tuple[Any, ...], kwargs=None, **dims) -> CompiledProgram:
    """The program of a model, exported with these arguments."""
    exported = torch.export.export(model.eval(), args, kwargs, **dims)
    before = rewright.stats()
    graph, signature = import_exported(exported)
    made = compile_graph(graph, signature, Settings())
    done = rewright.stats() - before
    assert done.nodes > 0
    assert done.fallbacks == 0
    return made


def assert_equal(actual: Any, expected: Any) -> None:
    """The same structure, types and numbers."""
    ours, structure = pytree.tree_flatten(actual)
    theirs, wanted = pytree.tree_flatten(expected)
    assert structure == wanted
    for a, e in zip(ours, theirs, strict=True):
        assert type(a) is type(e)
        if isinstance(e, Tensor):
            assert a.stride() == e.stride()
            torch.testing.assert_close(a, e, rtol=0, atol=0)
        else:
            assert a == e


class Two(nn.Module):
    def forward(self, x, y, scale=None):
        return x - y if scale is None else (x - y) * scale


def test_arguments_go_by_position_or_by_name():
    made = compiled(Two(), (torch.randn(2), torch.randn(2)))
    x, y = torch.randn(2), torch.randn(2)
    for got in (made(x, y), made(x, y=y), made(y=y, x=x)):
        assert_equal(got, x - y)


def test_arguments_exported_by_name_go_by_name_in_any_order():
    made = compiled(Two(), (torch.randn(2),), {"scale": torch.randn(2), "y": torch.randn(2)})
    x, y, scale = torch.randn(3, 2)
    assert_equal(made(x, y=y, scale=scale), (x - y) * scale)
    assert_equal(made(scale=scale, x=x, y=y), (x - y) * scale)


class Many(nn.Module):
    def forward(self, *parts, **named):
        return sum(parts) + named["b"] * 2 - named["a"]


def test_variadic_arguments():
    example = torch.randn(4, 2)
    made = compiled(Many(), (example[0], example[1]), {"a": example[2], "b": example[3]})
    w, x, y, z = torch.randn(4, 2)
    assert_equal(made(w, x, b=z, a=y), w + x + z * 2 - y)


class Nested(nn.Module):
    def forward(self, tree, pair, cache):
        first, [second] = tree["a"], tree["b"]
        total = first + second + pair.left - pair.right + cache.keys[0]
        return {
            "total": total,
            "again": (total * 2, [cache.keys[0] + 1]),
            "pair": Pair(first * 1, pair.right * 1),
            "cache": Cache([total - 1], cache.name),
            "none": None,
            "count": total.shape[0],
        }


def nested(size: int) -> tuple[Any, ...]:
    x = torch.randn(5, size)
    tree = {"a": x[0].clone(), "b": [x[1].clone()]}
    return tree, Pair(x[2].clone(), x[3].clone()), Cache([x[4].clone()], "k")


def test_nested_arguments_and_results():
    made = compiled(Nested(), nested(3))
    args = nested(3)
    assert_equal(made(*args), Nested()(*args))
    tree, pair, cache = args
    turned = dict(reversed(tree.items()))
    assert_equal(made(turned, cache=cache, pair=pair), Nested()(*args))


class Cached(nn.Module):
    def forward(self, tree, cache):
        return Cache([tree["a"] + cache.keys[0]], cache.name), [tree["b"][0] * 2]


def test_nested_arguments_of_varying_size():
    size = Dim("size", min=1, max=8)
    shapes = {"tree": {"a": {0: size}, "b": [{0: size}]}, "cache": [{0: size}]}
    tree, _, cache = nested(3)
    made = compiled(Cached(), (tree, cache), dynamic_shapes=shapes)
    for number in (1, 8):
        tree, _, cache = nested(number)
        assert_equal(made(tree, cache), Cached()(tree, cache))
    tree["b"] = [torch.randn(7)]
    with pytest.raises(InputError, match=r"dimension 0 of tree\['b'\]\[0\] is 7, expected 8"):
        made(tree, cache)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, p, c: ({**t, "c": t["a"]}, p, c), r"tree: expected the keys \['a', 'b'\]"),
        (lambda t, p, c: ({"a": t["a"]}, p, c), r"got \['a'\]"),
        (
            lambda t, p, c: ({**t, "b": t["b"] * 2}, p, c),
            r"tree\['b'\]: expected 1 elements, got 2",
        ),
        (lambda t, p, c: ({**t, "b": tuple(t["b"])}, p, c), r"tree\['b'\]: expected a list of 1"),
        (lambda t, p, c: (OrderedDict(t), p, c), "tree: expected a dict, got a OrderedDict"),
        (lambda t, p, c: (t, tuple(p), c), "pair: expected a Pair, got a tuple"),
        (lambda t, p, c: (t, p, Cache(c.keys, "q")), "cache: expected the structure k, got q"),
        (lambda t, p, c: (t, p, Cache(c.keys * 2, "k")), "cache: expected 1 elements, got 2"),
        (lambda t, p, c: (t, p, None), "cache: expected a Cache, got a NoneType"),
        (lambda t, p, c: ({**t, "a": 1}, p, c), r"tree\['a'\] is 1, expected a tensor f32\[3\]"),
    ],
)
def test_arguments_nested_otherwise_are_refused(change, message):
    made = compiled(Nested(), nested(3))
    with pytest.raises(InputError, match=message):
        made(*change(*nested(3)))


class Shadows(nn.Module):
    """Parameters called like what generated code uses."""

    def forward(self, type, len, Tensor, forward, fits, _type, self_, torch, dict):
        return type + len - Tensor * forward + fits - _type + self_ + torch - dict


def test_parameters_may_have_any_name():
    made = compiled(Shadows(), tuple(torch.randn(9, 2)))
    args = tuple(torch.randn(9, 2))
    assert_equal(made(*args), Shadows()(*args))
    assert_equal(made(*args[:4], dict=args[8], **names_of(args)), Shadows()(*args))
    with pytest.raises(InputError, match="dict is f64"):
        made(*args[:8], args[8].double())


def names_of(args):
    return dict(zip(("fits", "_type", "self_", "torch"), args[4:8], strict=True))


class Odd(nn.Module):
    def forward(self, x, **more):
        return x + more["a-b"]


def test_names_that_python_can_not_spell():
    more = {"a-b": torch.randn(2)}
    made = compiled(Odd(), (torch.randn(2),), more)
    x = torch.randn(2)
    assert_equal(made(x, **more), Odd()(x, **more))
    assert_equal(made(**more, x=x), Odd()(x, **more))
    with pytest.raises(InputError, match="a-b is missing"):
        made(x)


class Literals(nn.Module):
    def forward(self, x, flag, count, factor, mode, nothing=None):
        y = x * factor + count
        return -y if flag and mode == "minus" else y


GIVEN = (True, 3, 0.5, "minus", None)


def test_literals_must_be_what_was_compiled_for():
    x = torch.randn(2)
    made = compiled(Literals(), (torch.randn(2), *GIVEN))
    assert_equal(made(x, *GIVEN), Literals()(x, *GIVEN))


@pytest.mark.parametrize(
    ("at", "other", "message"),
    [
        (0, False, "flag is False, but the program was compiled for True"),
        (0, 1, "flag is 1, but the program was compiled for True"),
        (1, 4, "count is 4, but the program was compiled for 3"),
        (1, 3.0, "count is 3.0, but the program was compiled for 3"),
        (2, 0.25, "factor is 0.25, but the program was compiled for 0.5"),
        (3, "plus", "mode is 'plus', but the program was compiled for 'minus'"),
        (4, 0, "nothing is 0, but the program was compiled for None"),
        (1, torch.tensor(3), r"count is a tensor i64\[\], but the program was compiled for 3"),
    ],
)
def test_other_literals_are_refused(at, other, message):
    made = compiled(Literals(), (torch.randn(2), *GIVEN))
    with pytest.raises(InputError, match=message):
        made(torch.randn(2), *GIVEN[:at], other, *GIVEN[at + 1 :])


class Scalars(nn.Module):
    def forward(self, x, n):
        return x[:n] * n, n * 2


def test_numbers_as_inputs():
    made = compiled(
        Scalars(), (torch.randn(8), 3), dynamic_shapes=({0: None}, Dim.DYNAMIC), strict=False
    )
    x = torch.randn(8)
    for n in (2, 5, 8):
        assert_equal(made(x, n), Scalars()(x, n))
    with pytest.raises(InputError, match=r"n is 2.0, expected int"):
        made(x, 2.0)
    with pytest.raises(InputError, match="n is True, expected int"):
        made(x, True)


def test_a_parameter_passes_for_a_tensor():
    made = compiled(Two(), (torch.randn(2), torch.randn(2)))
    x, y = nn.Parameter(torch.randn(2), requires_grad=False), torch.randn(2)
    assert_equal(made(x, y), (x - y).detach())
    with torch.no_grad():
        assert_equal(made(nn.Parameter(x), y), x - y)


def test_a_program_without_arguments():
    class Constant(nn.Module):
        def forward(self):
            return torch.ones(2) * 3

    made = compiled(Constant(), ())
    assert_equal(made(), torch.ones(2) * 3)
    with pytest.raises(InputError, match="takes 0 positional arguments, got 1"):
        made(torch.ones(2))

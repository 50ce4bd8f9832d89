"""What a tree's spec tells of the places of its subtrees."""

import collections

import pytest
import torch
from torch.utils import _pytree as pytree

from rewright.ir.trees import child_keys

Pair = collections.namedtuple("Pair", ["first", "second"])


class Cache:
    """As a model's cache of keys and values is: nests of tensors, and of nothing else."""

    def __init__(self, keys: list[torch.Tensor], values: list[torch.Tensor]) -> None:
        self.dtype = {item.dtype for item in (*keys, *values)}
        self.keys, self.values = keys, values


class Choosy:
    """Refuses to be made of anything but a tensor with two dimensions."""

    def __init__(self, rows: torch.Tensor) -> None:
        self.rows, self.count = rows, rows.shape[0] * rows.shape[1]


@pytest.fixture(autouse=True, scope="module")
def registered():
    parts = {
        Cache: lambda found: [("keys", found.keys), ("values", found.values)],
        Choosy: lambda found: [("rows", found.rows)],
    }
    for kind, named in parts.items():
        pytree.register_pytree_node(
            kind,
            lambda found, named=named: ([part for _, part in named(found)], None),
            lambda held, _, kind=kind: kind(*held),
            serialized_type_name=f"tests.ir.{kind.__name__}",
            flatten_with_keys_fn=lambda found, named=named: (
                [(pytree.GetAttrKey(name), part) for name, part in named(found)],
                None,
            ),
        )
    yield
    for kind in parts:
        pytree._deregister_pytree_node(kind)


def keys_of(tree) -> list[str]:
    return [str(key) for key in child_keys(pytree.tree_structure(tree))]


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ((1, [2]), ["[0]", "[1]"]),
        ({"b": 1, "a": (2,)}, ["['b']", "['a']"]),
        (Pair(1, 2), [".first", ".second"]),
    ],
)
def test_containers_of_python(tree, expected):
    assert keys_of(tree) == expected


def test_a_class_that_takes_only_tensors_is_asked():
    x = torch.ones(2)
    assert keys_of(Cache([x, x], [x])) == [".keys", ".values"]


def test_a_class_that_refuses_is_numbered_and_what_is_around_it_is_not():
    refusing = Choosy(torch.ones(2, 3))
    assert keys_of(refusing) == ["[0]"]
    assert keys_of({"deep": [refusing], "x": 1}) == ["['deep']", "['x']"]

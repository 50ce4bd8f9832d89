"""What a program writes to is updated where it is, wherever nobody sees the difference."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress
from typing import Any

import attrs
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import rewright
from rewright.compiler import compile_graph
from rewright.errors import RewrightError, VerificationError
from rewright.ir.builder import Builder
from rewright.ir.fx_export import to_fx
from rewright.ir.graph import Constant, Graph, SymbolInfo, Value
from rewright.ir.in_place import PREFIX, in_place_form
from rewright.ir.interpreter import interpret
from rewright.ir.ops import get_op
from rewright.ir.parser import parse_graph
from rewright.ir.printer import print_graph
from rewright.ir.sizes import Range, symbol
from rewright.ir.types import TensorType
from rewright.ir.verifier import verify
from rewright.passes import Pipeline
from rewright.passes.compiling import pipeline_of
from rewright.settings import Settings
from tests.backends.torch.programs import flat_signature, program
from tests.zoo import ENTRIES


def in_place_ops(graph: Graph) -> list[str]:
    """The ops of `graph` that are computed in place."""
    names = (node.op.name for node in graph)
    return [name.removeprefix(f"{PREFIX}aten.") for name in names if name.startswith(PREFIX)]


def reinplaced(text: str) -> Graph:
    graph = parse_graph(text)
    Pipeline.parse("reinplace").run(graph)
    verify(graph, retype=True)
    return graph


# --------------------------------------------------------------------------- what is put in place


def case(lines: str, wrote: str = "%new", more: str = "") -> str:
    """A program that writes `wrote` to a cache of 6 rows."""
    return f"""
    graph @main(%x: f32[6, 4], %y: f32[2, 4], %z: f32[6, 4], %at: i64[2]) -> f32[6, 4] {{
      {lines}
      %out = aten.tanh({wrote}) : f32[6, 4]
      return %out
      writeback %x = {wrote}
      {more}
    }}"""


PUT = "%new = aten.index_copy(%x, 0, %at, %y) : f32[6, 4]"

TAKEN = {
    "index_copy": (PUT, ["index_copy"]),
    "index_put": ("%new = aten.index_put(%x, [%at], %y) : f32[6, 4]", ["index_put"]),
    "a slice": ("%new = aten.slice_scatter(%x, %y, 0, 1, 3) : f32[6, 4]", ["slice_scatter"]),
    "scatter": (
        "%i = aten.zeros([1, 4], dtype=i64, device=cpu) : i64[1, 4]\n"
        "%new = aten.scatter.src(%x, 0, %i, %y) : f32[6, 4]",
        ["scatter.src"],
    ),
    "steps": (
        "%a = aten.mul.Tensor(%x, 0.9) : f32[6, 4]\n"
        "%new = aten.add.Tensor(%a, %z, alpha=0.1) : f32[6, 4]",
        ["mul.Tensor", "add.Tensor"],
    ),
    "the old value, read before": (
        "%r = aten.sin(%x) : f32[6, 4]\n%new = aten.add.Tensor(%x, %r) : f32[6, 4]",
        ["add.Tensor"],
    ),
    "a value between, read before the next": (
        "%a = aten.mul.Tensor(%x, 0.9) : f32[6, 4]\n%r = aten.sin(%a) : f32[6, 4]\n"
        "%new = aten.add.Tensor(%a, %r) : f32[6, 4]",
        ["mul.Tensor", "add.Tensor"],
    ),
    "through a view": (
        "%row = aten.select.int(%x, 0, 3) : f32[4]\n%b = aten.relu(%row) : f32[4]\n"
        "%new = aten.select_scatter(%x, %b, 0, 3) : f32[6, 4]",
        ["relu", "select_scatter"],
    ),
    "through views of views": (
        "%s = aten.slice.Tensor(%x, 0, 2, 5) : f32[3, 4]\n"
        "%row = aten.select.int(%s, 1, 3) : f32[3]\n%b = aten.relu(%row) : f32[3]\n"
        "%t = aten.select_scatter(%s, %b, 1, 3) : f32[3, 4]\n"
        "%new = aten.slice_scatter(%x, %t, 0, 2, 5) : f32[6, 4]",
        ["relu", "select_scatter", "slice_scatter"],
    ),
    "through a transpose": (
        "%t = aten.t(%x) : f32[4, 6]\n%b = aten.relu(%t) : f32[4, 6]\n"
        "%new = aten.permute(%b, [1, 0]) : f32[6, 4]",
        ["relu"],
    ),
    "through a reshape": (
        "%t = aten.reshape(%x, [24]) : f32[24]\n%b = aten.relu(%t) : f32[24]\n"
        "%new = aten.reshape(%b, [6, 4]) : f32[6, 4]",
        ["relu"],
    ),
    "a view of another row, not of this one": (
        "%row = aten.select.int(%x, 0, 3) : f32[4]\n%b = aten.relu(%y) : f32[2, 4]\n"
        "%c = aten.select.int(%b, 0, 0) : f32[4]\n"
        "%new = aten.select_scatter(%x, %c, 0, 3) : f32[6, 4]",
        ["select_scatter"],
    ),
}


@pytest.mark.parametrize("name", TAKEN)
def test_in_place(name: str):
    lines, expected = TAKEN[name]
    graph = reinplaced(case(lines))
    assert in_place_ops(graph) == expected
    assert runs_alike(case(lines))
    again = parse_graph(print_graph(graph))
    assert in_place_ops(again) == expected
    verify(again)


REFUSED = {
    "the old value is read after": f"{PUT}\n%r = aten.sin(%x) : f32[6, 4]\n"
    "%u = aten.add.Tensor(%r, %new) : f32[6, 4]",
    "a view of the old value is read after": "%v = aten.slice.Tensor(%x, 0, 0, 2) : f32[2, 4]\n"
    f"{PUT}\n%r = aten.sin(%v) : f32[2, 4]",
    "what may be a view of it is read after": "%v = aten.reshape(%x, [24]) : f32[24]\n"
    f"{PUT}\n%r = aten.sin(%v) : f32[24]",
    "it is read by the op itself": "%t = aten.slice.Tensor(%x, 0, 0, 2) : f32[2, 4]\n"
    "%new = aten.slice_scatter(%x, %t, 0, 1, 3) : f32[6, 4]",
    "an op has no form in place": "%a = aten.cumsum(%x, 0) : f32[6, 4]\n"
    "%b = aten.roll(%a, [1], [0]) : f32[6, 4]\n%new = aten.relu(%b) : f32[6, 4]",
    "it comes from elsewhere": "%new = aten.relu(%z) : f32[6, 4]",
    "the dtype is another on the way": "%d = aten._to_copy(%x, dtype=f64) : f64[6, 4]\n"
    "%e = aten.relu(%d) : f64[6, 4]\n%new = aten._to_copy(%e, dtype=f32) : f32[6, 4]",
    "random numbers": "%new = aten.bernoulli(%x) : f32[6, 4]",
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_left_as_it_is(name: str):
    assert in_place_ops(reinplaced(case(REFUSED[name]))) == []
    if name != "random numbers":
        assert runs_alike(case(REFUSED[name]))


def test_one_write_that_another_value_reads_leaves_the_others():
    text = """
    graph @main(%x: f32[4], %y: f32[4]) -> f32[4] {
      %a = aten.relu(%x) : f32[4]
      %b = aten.tanh(%y) : f32[4]
      %c = aten.add.Tensor(%b, %x) : f32[4]
      return %c
      writeback %x = %a
      writeback %y = %c
    }"""
    assert in_place_ops(reinplaced(text)) == ["tanh", "add.Tensor"]
    assert runs_alike(text)


def test_a_value_that_is_written_twice():
    text = """
    graph @main(%x: f32[4], %y: f32[4]) -> f32[4] {
      %a = aten.relu(%x) : f32[4]
      return %a
      writeback %x = %a
      writeback %y = %a
    }"""
    assert in_place_ops(reinplaced(text)) == ["relu"]
    assert runs_alike(text)


def test_sources_that_share_memory_are_left():
    memory = torch.randn(8)
    graph = parse_graph("""
    graph @main(%x: f32[4]) -> f32[4] {
      %a = aten.add.Tensor(@v, %x) : f32[4]
      %b = aten.sin(@w) : f32[4]
      return %b
      writeback @v = %a
    }
    constants { buffer @v : f32[4]  buffer @w : f32[4] }""")
    for name, data in (("v", memory[:4]), ("w", memory[2:6])):
        graph.constants[name].data = data
    Pipeline.parse("reinplace").run(graph)
    assert in_place_ops(graph) == []
    graph.constants["w"].data = torch.randn(4)
    Pipeline.parse("reinplace").run(graph)
    assert in_place_ops(graph) == ["add.Tensor"]


def runs_alike(text: str, **data: torch.Tensor) -> bool:
    """Whether the program gives and writes what its graph says."""
    graph = parse_graph(text)
    inputs = [_numbers(value.type) for value in graph.inputs]
    expected = interpret(graph, inputs)
    given = [item.clone() for item in inputs]
    found = program(text, optimization_level=1)(*given)
    written = [given[target.index] for target in graph.targets]
    pairs = zip((*found, *written), (*expected.outputs, *expected.writebacks), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def _numbers(kind: TensorType) -> torch.Tensor:
    if kind.dtype == torch.int64:
        return torch.randperm(5)[: kind.shape[0]]
    return torch.randn(tuple(kind.shape))


# --------------------------------------------------------------------------- the form


def test_the_form_means_what_the_op_means():
    graph = reinplaced(case(PUT))
    inputs = [_numbers(value.type) for value in graph.inputs]
    kept = inputs[0].clone()
    expected = interpret(parse_graph(case(PUT)), inputs)
    found = interpret(graph, inputs)
    assert torch.equal(found.writebacks[0], expected.writebacks[0])
    assert torch.equal(inputs[0], kept), "the interpreter writes to nothing"
    (out, written) = to_fx(graph)(*inputs)
    assert torch.equal(out, expected.outputs[0])
    assert torch.equal(written, expected.writebacks[0])
    assert torch.equal(inputs[0], kept)


WRONG = """
graph @main(%x: f32[4]) -> f32[4] {
  %a = rw.in_place.aten.relu(%x) : f32[4]
  %b = aten.sin(%x) : f32[4]
  return %b
  writeback %x = %a
}"""


def test_the_verifier_knows_what_is_overwritten():
    message = "aten.sin reads what rw.in_place.aten.relu has overwritten"
    with pytest.raises(VerificationError, match=message):
        verify(parse_graph(WRONG))
    unwritten = WRONG.replace("writeback %x = %a", "").replace("sin(%x)", "sin(%a)")
    with pytest.raises(VerificationError, match="writes to no input or source"):
        verify(parse_graph(unwritten))


TWINS = [
    name
    for name in sorted(dir(torch.ops.aten))
    if not name.startswith("__") and not name.endswith("_") and hasattr(torch.ops.aten, f"{name}_")
]


def _calls(schema: Any) -> list[Any] | None:
    """Arguments for an operator that takes tensors and numbers; None for others."""
    given: list[Any] = []
    for argument in schema.arguments:
        kind = str(argument.type)
        if kind == "Tensor":
            given.append(torch.rand(3, 4) * 0.8 + 0.1)
        elif argument.has_default_value():
            return given
        elif kind in ("number", "Scalar", "float"):
            given.append(0.5)
        else:
            return None
    return given


def test_torchs_twins_compute_the_same():
    found = Counter[str]()
    for name in TWINS:
        for overload in getattr(torch.ops.aten, name).overloads():
            target = getattr(getattr(torch.ops.aten, name), overload)
            with suppress(RewrightError):
                form = in_place_form(get_op(target))
                given = _calls(target._schema)
                if form is None or form.by is None or given is None:
                    continue
                try:
                    expected = target(*given)
                except (RuntimeError, IndexError, NotImplementedError):
                    continue  # it takes other tensors than these
                if expected.dtype != torch.float32 or expected.shape != (3, 4):
                    continue  # a node of such a type is never put in place
                first = given[0].clone()
                made = form.by.target(first, *given[1:])
                assert made is first, form.op.name
                assert torch.equal(first.nan_to_num(9.5), expected.nan_to_num(9.5)), form.op.name
                found[form.op.name] += 1
    assert len(found) > 80, found
    assert f"{PREFIX}aten.add.Tensor" in found


@pytest.mark.parametrize("name", ["t", "squeeze", "transpose.int", "bernoulli", "cumsum_", "sort"])
def test_no_form(name: str):
    assert in_place_form(get_op(f"aten.{name}")) is None


def test_custom_operators_are_called_as_they_are():
    with torch.library._scoped_library("reinplace_test", "FRAGMENT") as library:
        library.define("put_(Tensor key, Tensor(a!) keys, Tensor(b!) count, int at) -> ()")

        def put(key: torch.Tensor, keys: torch.Tensor, count: torch.Tensor, at: int) -> None:
            seen.append((keys.data_ptr(), count.data_ptr()))
            keys[at] = key
            count.add_(1)

        library.impl("put_", put, "CompositeExplicitAutograd")
        seen: list[Any] = []
        text = """
        graph @main(%k: f32[4], %n: i64[]) -> f32[6, 4] {
          %keys, %count = rw.functional.reinplace_test.put_(%k, @keys, %n, 2) : f32[6, 4], i64[]
          %y = aten.sin(%keys) : f32[6, 4]
          return %y
          writeback @keys = %keys
          writeback %n = %count
        }
        constants { buffer @keys : f32[6, 4] }"""
        keys = torch.zeros(6, 4)
        made = program(text, {"keys": keys}, optimization_level=1)
        key, count = torch.randn(4), torch.tensor(7)
        result = made(key, count)[0]
        assert seen[-1] == (keys.data_ptr(), count.data_ptr()), made.source
        assert torch.equal(keys[2], key)
        assert count.item() == 8
        assert torch.equal(result, keys.sin())


# --------------------------------------------------------------------------- where it is


def test_it_is_last_whatever_a_pipeline_says():
    names = [step.name for step in pipeline_of(Settings(pipeline="default,canonicalize")).passes()]
    assert names[-2:] == ["canonicalize", "reinplace"]
    assert names.count("reinplace") == 1
    partitioned = pipeline_of(Settings(target="rtx"), ["tensorrt"])
    assert [step.name for step in partitioned.passes()][-2:] == ["partition", "reinplace"]


def test_levels():
    def has(**options: Any) -> bool:
        return "reinplace" in [step.name for step in pipeline_of(Settings(**options)).passes()]

    assert [has(optimization_level=level) for level in range(4)] == [False, True, True, True]
    assert not has(torch_backend="inductor"), "Inductor finds out for itself"
    assert not has(pipeline="cse,dce")


@pytest.mark.slow
def test_with_inductor_the_form_is_the_op():
    text = case(PUT)
    made = program(text, backend="inductor", optimization_level=0)
    graph = reinplaced(text)
    inputs = [_numbers(value.type) for value in graph.inputs]
    expected = interpret(graph, inputs)
    for compiled in (made, _with_marks(text)):
        given = [item.clone() for item in inputs]
        found = compiled(*given)
        torch.testing.assert_close(found[0], expected.outputs[0])
        torch.testing.assert_close(given[0], expected.writebacks[0])


def _with_marks(text: str) -> Any:
    return program(print_graph(reinplaced(text)), backend="inductor", optimization_level=0)


# --------------------------------------------------------------------------- random mutations


ROWS = symbol("s0")
SHAPES = ((ROWS, 4), (3, 4), (2, 3, 4), (4,))


@attrs.define(eq=False)
class Mutator:
    """Writes a program that mutates: views, writes through them, and reads of old and new values.

    It keeps, for each thing that is written to, every value that its memory has had, and views of
    them; the importer would have made the same graph of in-place ops.
    """

    chance: random.Random
    graph: Graph = attrs.field(factory=Graph)
    now: dict[Value, Value] = attrs.field(factory=dict)
    seen: list[Value] = attrs.field(factory=list)
    """Values that may be read at any time, stale ones too."""
    outputs: list[Value] = attrs.field(factory=list)

    @property
    def build(self) -> Builder:
        return Builder(self.graph)

    def start(self) -> None:
        count = self.chance.choice((1, 2, 3))
        for number, shape in enumerate(self.chance.choices(SHAPES, k=count)):
            kind = TensorType(torch.float32, shape)
            if ROWS in shape or self.chance.random() < 0.5:
                value = self.graph.add_input(kind, "x")
                self.graph.symbols.setdefault(ROWS, SymbolInfo((Range(1, 3, 8),), value, 0)) if (
                    ROWS in shape
                ) else None
            else:
                value = self.graph.add_constant(f"b{number}", kind, kind="buffer")
            self.now[value] = value
        self.seen = [*self.now]

    def other(self, shape: tuple[Any, ...]) -> Value | float:
        """Something to compute with: a value of that shape, stale or not, or a number."""
        fitting = [value for value in self.seen if value.type.shape == shape]
        return self.chance.choice([*fitting, 0.5, 1.25])

    def change(self, value: Value, depth: int = 0) -> Value:
        """What a value becomes by a mutation of it, or of a view of it."""
        if depth < 2 and self.chance.random() < 0.6:
            return self.through(value, depth)
        op = self.chance.choice("add.Tensor mul.Tensor relu sin masked_fill.Scalar where".split())
        shape = value.type.shape
        if op in ("relu", "sin"):
            return self.build.call(f"aten.{op}", value)
        if op == "where":  # has no form in place
            test = self.build.call("aten.gt.Scalar", value, 0)
            return self.build.call(
                "aten.where.self", test, value, self.build.call("aten.neg", value)
            )
        if op == "masked_fill.Scalar":
            test = self.build.call("aten.gt.Scalar", self.chance.choice(self.like(shape)), 0)
            return self.build.call("aten.masked_fill.Scalar", value, test, 0.5)
        return self.build.call(f"aten.{op}", value, self.other(shape))

    def like(self, shape: tuple[Any, ...]) -> list[Value]:
        return [value for value in self.seen if value.type.shape == shape] or [self.fresh(shape)]

    def fresh(self, shape: tuple[Any, ...]) -> Value:
        return self.build.call("aten.full", list(shape), 0.5, device=torch.device("cpu"))

    def through(self, base: Value, depth: int) -> Value:
        rank, build = base.type.rank, self.build
        size = base.type.shape[-1]
        start, end = (1, 3) if isinstance(size, int) and size > 2 else (0, 1)
        match self.chance.choice(VIEWS if rank > 1 else VIEWS[:3]):
            case "slice":
                place = {"dim": rank - 1, "start": start, "end": end}
                view = build.call("aten.slice.Tensor", base, **place)
                new = self.written(view, depth)
                return build.call("aten.slice_scatter", base, new, **place)
            case "index":
                at = build.call("aten.arange.start", start, end, device=torch.device("cpu"))
                values = self.fresh((end - start, *base.type.shape[:-1]))
                values = build.call("aten.movedim.int", values, 0, -1)
                return build.call("aten.index_copy", base, rank - 1, at, values)
            case "unsqueeze":
                view = build.call("aten.unsqueeze", base, 0)
                return build.call("aten.reshape", self.written(view, depth), list(base.type.shape))
            case "select":
                view = build.call("aten.select.int", base, rank - 1, start)
                return build.call(
                    "aten.select_scatter", base, self.written(view, depth), rank - 1, start
                )
            case "transpose":
                view = build.call("aten.transpose.int", base, 0, 1)
                return build.call("aten.transpose.int", self.written(view, depth), 0, 1)
            case _:
                flat = build.call("aten.reshape", base, [-1])
                return build.call("aten.reshape", self.written(flat, depth), list(base.type.shape))

    def written(self, view: Value, depth: int) -> Value:
        """What is written through a view: a change of it, now and then of another value."""
        if self.chance.random() < 0.3:
            self.seen.append(view)
        if self.chance.random() < 0.2:
            return self.build.call("aten.cos", self.chance.choice(self.like(view.type.shape)))
        new = self.change(view, depth + 1)
        if self.chance.random() < 0.3:
            self.seen.append(new)
        return new

    def step(self) -> None:
        target = self.chance.choice([*self.now])
        if self.chance.random() < 0.7:
            self.now[target] = new = self.change(self.now[target])
            self.seen.append(new)
        else:  # mostly what is there now, as eager would read it
            fresh = self.chance.random() < 0.8
            value = self.now[target] if fresh else self.chance.choice(self.seen)
            self.outputs.append(self.build.call("aten.exp", self.build.call("aten.sin", value)))

    def finish(self) -> Graph:
        ends = [*self.outputs, *(v for v in self.now.values() if self.chance.random() < 0.2)]
        pairs = [(target, value) for target, value in self.now.items() if target is not value]
        self.graph.set_outputs(ends, writebacks=pairs)
        return self.graph


VIEWS = ("slice", "index", "unsqueeze", "select", "transpose", "reshape")


def mutating(chance: random.Random) -> Graph:
    """A random program that mutates."""
    mutator = Mutator(chance)
    mutator.start()
    for _ in range(chance.randint(2, 8)):
        mutator.step()
    return mutator.finish()


def tensors(graph: Graph, chance: random.Random) -> list[torch.Tensor]:
    """Inputs in odd memory: contiguous, transposed, or with gaps."""
    size = chance.choice((1, 3, 4))
    made = []
    for value in graph.inputs:
        shape = [size if dim == ROWS else dim for dim in value.type.shape]
        made.append(_laid_out(shape, chance.choice(("plain", "turned", "gaps"))))
    return made


def _laid_out(shape: list[int], how: str) -> torch.Tensor:
    if how == "turned":
        return torch.randn(shape[::-1]).permute(*range(len(shape))[::-1])
    if how == "gaps":
        return torch.randn([2 * size for size in shape])[tuple(slice(None, None, 2) for _ in shape)]
    return torch.randn(shape)


def _same_memory(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in memory of the same strides."""
    made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    return made.copy_(tensor)


def check(chance: random.Random, in_all: Counter[str]) -> None:
    """Compares a program in place with its graph, and with itself on the memory it has left."""
    graph = mutating(chance)
    for constant in graph.constants.values():
        constant.data = torch.randn(tuple(constant.type.shape))
    inputs = tensors(graph, chance)
    expected = interpret(graph, inputs)
    expected = attrs.evolve(
        expected,
        outputs=tuple(item.clone() for item in expected.outputs),
        writebacks=tuple(item.clone() for item in expected.writebacks),
    )
    made = graph.copy()
    for constant in made.constants.values():
        constant.data = constant.data.clone()
    compiled = compile_graph(made, flat_signature(made), Settings(pipeline="cse,dce,reinplace"))
    verify(made, retype=True)
    in_all.update(in_place_ops(made))
    in_all["graphs"] += 1
    given = [_same_memory(item) for item in inputs]
    found = compiled(*given)
    for a, b in zip(found, expected.outputs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5, equal_nan=True)
    for target, wanted in zip(made.targets, expected.writebacks, strict=True):
        held = target.data if isinstance(target, Constant) else given[target.index]
        torch.testing.assert_close(held, wanted, rtol=1e-5, atol=1e-5, equal_nan=True)
    for kept, value in zip(given, made.inputs, strict=True):
        if value not in made.targets:
            assert torch.equal(kept, inputs[value.index]), "only what is written back changes"
    for a in found:
        for b in (*given, *(c.data for c in made.constants.values())):
            assert a.untyped_storage().data_ptr() != b.untyped_storage().data_ptr() or not a.numel()


@settings(max_examples=60, deadline=None, suppress_health_check=[*HealthCheck])
@given(chance=st.randoms(use_true_random=False))
def test_random_mutations(chance: random.Random):
    check(chance, Counter())


def test_random_mutations_are_put_in_place():
    in_all = Counter[str]()
    for seed in range(80):
        check(random.Random(seed), in_all)
    for op in ("add.Tensor", "relu", "index_copy", "slice_scatter", "select_scatter"):
        assert in_all[op] > 5, in_all


@pytest.mark.slow
def test_many_random_mutations():
    in_all = Counter[str]()
    for seed in range(20_000):
        check(random.Random(seed), in_all)
    assert in_all["graphs"] == 20_000


# --------------------------------------------------------------------------- a cache of keys


class Made(TorchDispatchMode):
    """Counts what is computed into new memory or copied, by op, of tensors of given shapes."""

    def __init__(self, shapes: set[Any]) -> None:
        super().__init__()
        self.shapes = shapes
        self.count = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        made = func(*args, **(kwargs or {}))
        for item in tree_leaves(made):
            if isinstance(item, torch.Tensor) and tuple(item.shape) in self.shapes:
                copied = func is torch.ops.aten.copy_.default
                if copied or item.data_ptr() not in given:
                    self.count[str(func)] += 1
        return made


@pytest.fixture(scope="module")
def exported() -> torch.export.ExportedProgram:
    """A decoder with a cache of keys and values."""
    return ENTRIES["llama_cache"].export(attn="sdpa")


@pytest.mark.parametrize(
    ("level", "expected"),
    [(0, {"aten.index_copy.default": 4, "aten.copy_.default": 4}), (1, {}), (2, {})],
)
def test_a_static_cache_is_not_copied(
    level: int, expected: dict[str, int], exported: torch.export.ExportedProgram
):
    entry = ENTRIES["llama_cache"]
    model = entry.build("sdpa")
    before = rewright.stats()
    with torch.no_grad():
        for name, constant in exported.state_dict.items():
            constant.copy_(model.state_dict()[name])
    made = rewright.compile_exported(exported, optimization_level=level)
    assert (rewright.stats() - before).fallbacks == 0
    held = {n: c for n, c in made.graph.constants.items() if "_cache_" in n}
    assert len(held) == 4
    for constant in held.values():  # one export serves all levels, and they write to it
        constant.data.zero_()
    own = {n: c.data.data_ptr() for n, c in held.items()}
    shapes = {tuple(c.data.shape) for c in held.values()}
    ids = next(item for item in tree_leaves(entry.inputs()) if item.dim() == 2)
    for step in range(2):
        positions = torch.arange(5) + 5 * step
        with Made(shapes) as counted, torch.no_grad():
            found = made(input_ids=ids, cache_position=positions)
        assert dict(counted.count) == expected
        with torch.no_grad():
            wanted = model(input_ids=ids, cache_position=positions)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        buffers = dict(model.named_buffers())
        for name, constant in held.items():
            torch.testing.assert_close(constant.data, buffers[name], rtol=1e-4, atol=1e-4)
            assert constant.data.data_ptr() == own[name]
    assert ("key_cache_0.index_copy_(" in made.source) is (level > 0)

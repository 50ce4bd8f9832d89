"""Decompositions give the numbers of the op, for all sizes, and assume nothing."""

import attrs
import pytest
import torch
from torch.utils._pytree import tree_map

from rewright.ir.attributes import Attributes, Operand
from rewright.ir.builder import Builder
from rewright.ir.graph import Graph, Node
from rewright.ir.interpreter import interpret
from rewright.ir.ops import get_op
from rewright.ir.parser import parse_graph
from rewright.ir.sizes import Range, symbol
from rewright.ir.stages import KEPT, check_stage, is_composite
from rewright.ir.types import TensorType
from rewright.ir.verifier import verify
from rewright.passes import Pipeline
from rewright.passes.decomposition import tracing
from rewright.passes.decomposition.decompose import Decompose
from rewright.passes.decomposition.tracing import Refusal, decomposition_of, template_of
from tests.passes.graphs import ops


def program_of(name, args, kwargs=None) -> tuple[Graph, list[torch.Tensor]]:
    """A graph that calls one op on tensors, and the tensors."""
    graph, tensors = Graph(), []

    def put(item):
        if not isinstance(item, torch.Tensor):
            return item
        tensors.append(item)
        return graph.add_input(TensorType(item.dtype, tuple(item.shape)))

    args, kwargs = tree_map(put, tuple(args)), tree_map(put, kwargs or {})
    made = Builder(graph).call(name, *args, **kwargs)
    graph.set_outputs(made if isinstance(made, tuple) else [made])
    return graph, tensors


def same_numbers(graph: Graph, tensors: list[torch.Tensor], **options) -> Graph:
    """The graph decomposed; it gives the same numbers."""
    after = graph.copy()
    Pipeline((Decompose(**options),)).run(after)
    verify(after, retype=True)
    expected, found = (interpret(g, tensors).outputs for g in (graph, after))
    torch.testing.assert_close(found, expected, equal_nan=True, check_stride=False)
    return after


X, Y = torch.randn(3, 4), torch.randn(3, 4)
N = torch.tensor([[1, -2, 3, 0], [4, 5, -6, 7]])

COMPOSITE = {
    "aten.outer": (X[0], Y[0]),
    "aten.__and__.Tensor": (N, N + 1),
    "aten.repeat_interleave.self_int": (X, 2, 1),
    "aten.where.ScalarOther": (X > 0, X, 0.5),
    "aten.min.other": (X, Y),
    "aten.diff": (X,),
    "aten.cosine_similarity": (X, Y),
    "aten.einsum": ("ij,kj->ik", [X, Y]),
    "aten.square": (X,),
    "aten.tile": (X, [2, 2]),
    "aten.std": (X,),
    "aten.narrow": (X, 1, 1, 2),
    "aten.tensordot": (X, Y, [1], [1]),
    "aten.kron": (X, Y),
    "aten.cumulative_trapezoid.dx": (X,),
    "aten.moveaxis.int": (X, 0, 1),
    "aten.swapaxes": (X, 0, 1),
    "aten.fliplr": (X,),
    "aten.logsumexp": (X, [1]),
    "aten.pairwise_distance": (X, Y),
    "aten.selu": (X,),
    "aten.softmax.int": (X, 1),
    "aten.instance_norm": (X[None], None, None, None, None, True, 0.1, 1e-5, False),
    "aten.pixel_shuffle": (torch.randn(1, 4, 2, 2), 2),
}
"""Calls of composite ops, a few of which are known whole."""


@pytest.mark.parametrize("name", COMPOSITE)
def test_what_is_composite_is_taken_apart(name: str):
    after = same_numbers(*program_of(name, COMPOSITE[name]))
    is_known = name in KEPT or not is_composite(get_op(name))
    assert (name in ops(after)) == is_known
    assert after.stage == "decomposed"
    assert not check_stage(after, "decomposed")


TABLE = {
    "aten.silu": (X,),
    "aten.addmm": (Y[0], X, torch.randn(4, 4)),
    "aten.hardswish": (X.half(),),
    "aten.logit": (X.sigmoid(), 1e-3),
    "aten.native_layer_norm": (X, [4], Y[0], Y[1], 1e-5),
    "aten._softmax": (X.bfloat16(), 1, False),
    "aten.leaky_relu": (X, 0.2),
    "aten.var_mean.correction": (X, [1]),
    "aten.embedding": (X, torch.tensor([2, 0, 1])),
    "aten.addcmul": (X, X, Y),
}
"""Calls of ops that torch has a kernel for, and a decomposition."""


@pytest.mark.parametrize("name", TABLE)
def test_what_the_compile_names_is_taken_apart(name: str):
    graph, tensors = program_of(name, TABLE[name])
    assert ops(same_numbers(graph, tensors)) == [name]
    assert name not in ops(same_numbers(graph, tensors, apart=(name,)))


# --------------------------------------------------------------------------- sizes


def test_symbolic_sizes_stay_exact_and_get_no_guard():
    graph = parse_graph("""
    graph @main(%x: f32[s0, s1], %y: f32[s1]) -> (f32[s0, 3*s1], f32[s0, s1 - 1], f32[s1, s1])
      where s0 in {1..} = dim(%x, 0), s1 in {2..} = dim(%x, 1)
    {
      %a = aten.repeat_interleave.self_int(%x, 3, 1) : f32[s0, 3*s1]
      %b = aten.diff(%x) : f32[s0, s1 - 1]
      %c = aten.outer(%y, %y) : f32[s1, s1]
      return %a, %b, %c
    }
    """)
    before = {symbol: info.ranges for symbol, info in graph.symbols.items()}
    for rows, columns in ((1, 2), (3, 5)):
        after = same_numbers(graph, [torch.randn(rows, columns), torch.randn(columns)])
        assert {symbol: info.ranges for symbol, info in after.symbols.items()} == before
        assert after.stage == "decomposed"


def test_a_size_that_would_be_guarded_on_leaves_the_node_whole():
    """How many chunks there are, and how long, depends on the size."""
    kind = TensorType(torch.float32, (symbol("s0"), 4))
    ranges = {symbol("s0"): (Range(0, None, None),)}
    attributes = Attributes({"self": Operand(0), "chunks": 3})
    found = template_of(
        get_op("aten.unsafe_chunk"), attributes, [kind], ranges=ranges, device="cpu"
    )
    assert isinstance(found, Refusal)
    assert found.reason


# --------------------------------------------------------------------------- tracing


def test_a_decomposition_is_traced_once_for_each_kind_of_call(monkeypatch: pytest.MonkeyPatch):
    traced = []
    trace = tracing._trace

    def counting(op, *rest):
        traced.append(op.name)
        return trace(op, *rest)

    monkeypatch.setattr(tracing, "_trace", counting)
    monkeypatch.setattr(tracing, "_known", type(tracing._known)())
    graph = Graph()
    x = graph.add_input(TensorType(torch.float32, (4,)))
    y = graph.add_input(TensorType(torch.float32, (5,)))
    pairs = ((x, x), (x, x), (x, y), (x, x))
    graph.set_outputs([Builder(graph).call("aten.outer", *pair) for pair in pairs])
    Pipeline((Decompose(),)).run(graph)
    assert traced == ["aten.outer", "aten.outer"]
    assert ops(graph).count("aten.mul.Tensor") == 4


def test_random_ops_and_ops_with_effects_have_no_decomposition():
    for name in ("aten.rand", "aten.bernoulli", "aten.add_.Tensor", "aten.nonzero"):
        assert decomposition_of(get_op(name)) is None


def test_the_report_says_what_stays_and_why():
    graph = parse_graph("""
    graph @main(%x: f32[4]) -> i64[u0, 1]
      where u0 in {0..4} = dim(%y, 0)
    {
      %y = aten.argwhere(%x) : i64[u0, 1]      # net.py:7 (router)
      return %y
    }
    """)
    run = Pipeline((Decompose(),)).run(graph)
    (left,) = run.reports["decompose"]
    assert str(left).startswith("aten.argwhere at net.py:7 (router) stays whole: ")
    assert left.reason
    assert graph.stage == "imported", "the normal form does not hold"


# --------------------------------------------------------------------------- backends


@attrs.frozen
class Taking:
    """A backend that takes some ops."""

    names: frozenset[str]
    name: str = "small"

    def refuse(self, node: Node) -> str | None:
        return None if node.op.name in self.names else f"has no {node.op.name}"


def decomposed_for(backend: Taking, name: str, **options) -> tuple[Graph, tuple[object, ...]]:
    graph, _ = program_of(name, TABLE[name])
    run = Pipeline((Decompose(**options),)).run(graph, backends={backend.name: backend})
    return graph, run.reports["decompose"]


def test_what_a_backend_takes_stays_whole():
    graph, left = decomposed_for(Taking(frozenset({"aten.silu"})), "aten.silu")
    assert ops(graph) == ["aten.silu"]
    assert not left


def test_what_no_backend_takes_is_made_of_what_one_takes():
    parts = frozenset({"aten.sigmoid", "aten.mul.Tensor"})
    graph, left = decomposed_for(Taking(parts), "aten.silu")
    assert set(ops(graph)) == parts
    assert not left


def test_backends_are_asked_only_where_the_pass_is_told_to():
    parts = frozenset({"aten.sigmoid", "aten.mul.Tensor"})
    graph, left = decomposed_for(Taking(parts), "aten.silu", backends=False)
    assert ops(graph) == ["aten.silu"]
    assert not left


def test_what_would_stay_in_torch_anyway_stays_whole():
    graph, left = decomposed_for(Taking(frozenset({"aten.mul.Tensor"})), "aten.silu")
    assert ops(graph) == ["aten.silu"]
    assert "small" in left[0].wanted
    assert "is made of aten.sigmoid" in left[0].reason


@attrs.frozen
class TakingWhatIsUnused:
    """A backend that takes parts as long as nobody uses them."""

    name: str = "fickle"

    def refuse(self, node: Node) -> str | None:
        return "is used" if any(value.has_uses for value in node.results) else None


def test_an_op_that_torch_makes_of_itself_stays():
    graph, _ = program_of("aten._to_copy", (torch.rand(3),), {"dtype": torch.uint8})
    run = Pipeline((Decompose(),)).run(graph, backends={"fickle": TakingWhatIsUnused()})
    assert ops(graph) == ["aten._to_copy"]
    assert run.reports["decompose"][-1].reason == "it is made of itself"


# --------------------------------------------------------------------------- all of torch's


@pytest.mark.slow
def test_every_composite_op_that_torch_has_samples_for():
    """Torch's own samples of its ops, in f32: what is decomposed gives the same numbers."""
    from torch.testing._internal.common_methods_invocations import op_db

    right: set[str] = set()
    wrong: list[str] = []
    for info in op_db:
        for op in _composite_ops_called(info.name.split(".")[-1]):
            if torch.float32 not in info.dtypes:
                continue
            for sample in list(info.sample_inputs("cpu", torch.float32))[:4]:
                try:
                    made = program_of(op, (sample.input, *sample.args), sample.kwargs)
                    verify(made[0])
                    interpret(*made)
                except Exception:  # samples are for several overloads
                    continue
                try:
                    same_numbers(*made)
                    right.add(op.name)
                except Exception as error:
                    wrong.append(f"{op.name}: {error}")
    assert not wrong, "\n".join(wrong)
    assert len(right) > 100


def _composite_ops_called(name: str):
    packet = getattr(torch.ops.aten, name, None)
    for overload in packet.overloads() if packet else ():
        op = get_op(getattr(packet, overload))
        try:
            found = is_composite(op)
        except RuntimeError:  # TorchScript's alone
            continue
        values = [p for p in op.params if p.takes_tensors]
        if found and op.is_pure and op.name not in KEPT and values:
            yield op

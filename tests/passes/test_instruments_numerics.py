"""Numbers before and after each pass: what moved, where, and on which inputs."""

import math

import attrs
import pytest
import torch

from rewright.errors import ArtifactError, InputError, PassError
from rewright.ir.graph import Graph
from rewright.ir.parser import parse_graph
from rewright.passes.instruments.numerics import Numerics, distance, fitting_samples, outputs_of
from rewright.passes.instruments.reproducer import Reproducer
from rewright.passes.instruments.samples import (
    Samples,
    index_limits,
    load_samples,
    random_samples,
    save_samples,
)
from rewright.passes.manager import Pipeline
from tests.passes import planted
from tests.passes.graphs import graph

CHAIN = """
    %a = aten.abs(%x) : f32[4, 4]                 # m.py:1 (net.0)
    %b = aten.relu(%a) : f32[4, 4]                # m.py:2 (net.1)
    %c = aten.sub.Tensor(%b, 1.0) : f32[4, 4]     # m.py:3 (net.2)
    %d = aten.abs(%c) : f32[4, 4]                 # m.py:4 (net.3)
    %e = aten.relu(%c) : f32[4, 4]                # m.py:5 (net.4)
    %f = aten.add.Tensor(%d, %e) : f32[4, 4]
    return %f : f32[4, 4]
"""


def find(of: Graph, *steps, **options) -> PassError:
    with pytest.raises(PassError) as caught:
        Pipeline(steps).run(of, instruments=[Numerics(**options)])
    return caught.value


class TestCulprit:
    def test_pass_rule_node_and_line(self):
        """The relu of numbers that are never negative is right; the other one is not."""
        error = find(graph(CHAIN), planted.PlantedUnary())
        assert error.pass_name == "planted-unary"
        assert error.rule == "leaky-relu"
        assert error.where == "m.py:5 (net.4)"
        assert error.node.startswith("%e = aten.relu(%c)")
        assert error.message.startswith(
            "numbers moved in pass planted-unary, rule leaky-relu (tests/passes/planted.py:"
        )
        assert "at %e: max error " in error.message
        assert "was 0.0e+00 before this pass" in error.message
        assert error.hint == "the graph was run on random inputs"

    def test_passes_before_it_are_not_blamed(self):
        right = planted.PlantedUnary(without=("leaky-relu",))
        error = find(graph(CHAIN), right, planted.PlantedUnary())
        assert error.pass_name == "planted-unary"
        assert error.ran == "planted-unary{without=[leaky-relu]}"

    def test_a_pass_without_rules(self):
        of = graph("%y = aten.square(%x) : f32[4, 4]  # m.py:8\nreturn %y : f32[4, 4]")
        error = find(of, planted.PlantedAmnesia())
        assert error.rule is None
        assert error.message.startswith("numbers moved in pass planted-amnesia: max error ")

    def test_right_passes_pass(self):
        numerics = Numerics()
        Pipeline([planted.PlantedUnary(without=("leaky-relu",))]).run(
            graph(CHAIN), instruments=[numerics]
        )

    def test_a_pass_that_leaves_what_can_t_run(self):
        of = graph("%y = aten.relu(%x) : f32[4, 4]\nreturn %y : f32[4, 4]")

        class Broken(planted.Pass):
            def run(self, graph, context):
                node = next(iter(graph))
                attributes = dict(node.attributes)
                node.attributes = type(node.attributes)({**attributes, "no": 1})
                node.result.type = attrs.evolve(node.result.type, shape=(9,))

        assert "max error inf" in find(of, Broken()).message

    def test_the_tolerance_can_be_given(self):
        Pipeline([planted.PlantedUnary()]).run(graph(CHAIN), instruments=[Numerics(tolerance=0.5)])

    def test_the_given_inputs_are_used(self):
        """On positive numbers the wrong rule is right."""
        samples = Samples((torch.full((4, 4), 3.0),))
        Pipeline([planted.PlantedUnary()]).run(graph(CHAIN), instruments=[Numerics(samples)])

    def test_inputs_that_do_not_fit(self):
        with pytest.raises(InputError, match="x must be f32"):
            Pipeline([]).run(graph(CHAIN), instruments=[Numerics(Samples((torch.ones(2),)))])

    def test_the_replay_is_narrowed_to_the_rule(self, tmp_path):
        instruments = [Reproducer(tmp_path, ["--numerics"]), Numerics()]
        with pytest.raises(PassError) as caught:
            Pipeline([planted.PlantedUnary()]).run(graph(CHAIN), instruments=instruments)
        assert caught.value.replay.endswith("--numerics --only leaky-relu")

    def test_random_numbers_are_drawn_alike(self):
        of = graph("%y = aten.rand_like(%x) : f32[4, 4]\nreturn %y : f32[4, 4]")
        before = torch.get_rng_state()
        samples = fitting_samples(of)
        (one,), (other,) = outputs_of(of, samples), outputs_of(of, samples)
        assert torch.equal(one, other)
        assert torch.equal(torch.get_rng_state(), before)

    def test_write_backs_are_compared(self):
        of = parse_graph("""
            graph @counts(%x: f32[4]) -> f32[4] {
              %y = aten.relu(%x) : f32[4]
              return %x
              writeback @last = %y
            }
            constants { buffer @last : f32[4] }
        """)
        assert find(of, planted.PlantedUnary()).rule == "leaky-relu"


class TestDistance:
    @pytest.mark.parametrize(
        ("one", "true", "error"),
        [
            (torch.tensor([1.0, 4.0]), torch.tensor([1.0, 5.0]), 0.2),
            (torch.tensor([0.0]), torch.tensor([0.0]), 0.0),
            (torch.tensor([1.0]), torch.tensor([0.0]), math.inf),
            (torch.tensor([math.nan, 1.0]), torch.tensor([math.nan, 1.0]), 0.0),
            (torch.tensor([math.nan, 1.0]), torch.tensor([math.inf, 1.0]), math.inf),
            (torch.tensor([math.inf, 1.0]), torch.tensor([-math.inf, 1.0]), math.inf),
            (torch.tensor([1.0]), torch.tensor([[1.0]]), math.inf),
            (torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64), math.inf),
            (torch.tensor([3]), torch.tensor([3]), 0.0),
            (torch.tensor([3]), torch.tensor([4]), math.inf),
            (torch.tensor([True]), torch.tensor([False]), math.inf),
            (torch.zeros(0), torch.zeros(0), 0.0),
            (torch.tensor([1j]), torch.tensor([-1j]), 2.0),
            (3, 3, 0.0),
            (3, 4, math.inf),
            (math.nan, math.nan, 0.0),
            (None, None, 0.0),
        ],
    )
    def test_one_output(self, one, true, error):
        assert distance([one], [true]).error == pytest.approx(error)

    def test_the_tolerance_is_that_of_the_dtype(self):
        near = [torch.tensor([1.01], dtype=dtype) for dtype in (torch.float16, torch.float32)]
        true = [torch.ones(1, dtype=dtype) for dtype in (torch.float16, torch.float32)]
        assert distance(near[:1], true[:1]).tolerances < 2
        assert distance(near, true).tolerances == pytest.approx(100, rel=1e-3)
        assert distance(near, true, 0.1).tolerances == pytest.approx(0.1, rel=1e-2)

    def test_another_number_of_outputs(self):
        assert distance([1], [1, 2]).tolerances == math.inf


class TestSamples:
    EMBEDDING = """
        graph @lookup(%ids: i64[s0, 6], %mask: bool[s0, 6]) -> f32[s0, 6, 3]
          where s0 in {2..3..8} = dim(%ids, 0)
        {
          %flat = aten.reshape(%ids, [6*s0]) : i64[6*s0]
          %cast = aten._to_copy(%flat, dtype=i32) : i32[6*s0]
          %rows = aten.embedding(@table, %cast) : f32[6*s0, 3]
          %y = aten.reshape(%rows, [s0, 6, 3]) : f32[s0, 6, 3]
          return %y
        }
        constants { parameter @table : f32[11, 3] }
    """

    def test_indices_stay_in_their_table(self):
        of = parse_graph(self.EMBEDDING)
        assert index_limits(of, {next(iter(of.symbols)): 3})[of.inputs[0]] == 11
        ids, mask = random_samples(of).inputs
        assert ids.shape == (3, 6)
        assert 0 <= ids.min() <= ids.max() < 11
        assert ids.max() > 2
        assert mask.dtype is torch.bool

    def test_sources_without_data_are_drawn(self):
        of = parse_graph(self.EMBEDDING)
        one, other = fitting_samples(of), fitting_samples(of)
        assert one.constants["table"].shape == (11, 3)
        assert torch.equal(one.constants["table"], other.constants["table"])
        (rows,) = outputs_of(of, one)
        assert rows.shape == (3, 6, 3)

    @pytest.mark.parametrize(
        ("lines", "limit"),
        [
            ("%y = aten.index_select(@t, 1, %i) : f32[7, 4]", 5),
            ("%y = aten.index.Tensor(@t, [%i]) : f32[4, 5]", 7),
            ("%y = aten.index.Tensor(@t, [None, %i]) : f32[7, 4]", 5),
            ("%y = aten.one_hot(%i, 3) : i64[4, 3]", 3),
            ("%j = aten.add.Tensor(%i, 2) : i64[4]\n%y = aten.embedding(@t, %j) : f32[4, 5]", 5),
            ("%j = aten.add.Tensor(%i, %i) : i64[4]\n%y = aten.embedding(@t, %j) : f32[4, 5]", 4),
            ("%y = aten.mul.Tensor(%i, 2) : i64[4]", None),
        ],
    )
    def test_limits(self, lines, limit):
        last = lines.rpartition(" : ")[2]
        of = graph(f"{lines}\nreturn %y : {last}", "%i: i64[4]", "@t : f32[7, 5]")
        assert index_limits(of, {}).get(of.inputs[0]) == limit
        fitting_samples(of)

    def test_indices_that_are_computed_fall_back_to_zeros(self):
        body = """
            %j = aten.mul.Tensor(%i, 100) : i64[4]
            %y = aten.embedding(@t, %j) : f32[4, 5]
            return %y : f32[4, 5]
        """
        samples = fitting_samples(graph(body, "%i: i64[4]", "@t : f32[7, 5]"))
        assert samples.origin == "random inputs, integers at 0"
        assert not samples.inputs[0].any()

    def test_a_graph_that_no_inputs_fit(self):
        of = graph("""
            %no = aten.lt.Scalar(%x, -1e+30) : bool[4, 4]
            %all = aten.all(%no) : bool[]
            aten._assert_async.msg(%all, "never")
            return %x : f32[4, 4]
        """)
        with pytest.raises(InputError, match="can't be run on random inputs") as caught:
            fitting_samples(of)
        assert caught.value.hint == "give inputs that it can be run on"

    def test_files(self, tmp_path):
        of = parse_graph("""
            graph @mixed(%x: f32[2], %n: int(s0), %f: float, %b: bool, %o: none) -> f32[2]
              where s0 in {0..} = %n
            { return %x }
        """)
        samples = Samples((torch.ones(2), 3, 0.5, True, None), origin="mine")
        save_samples(samples, tmp_path / "samples.safetensors")
        again = load_samples(tmp_path / "samples.safetensors", of)
        assert torch.equal(again.inputs[0], torch.ones(2))
        assert again.inputs[1:] == samples.inputs[1:]
        assert again.origin == "mine"

    def test_a_damaged_file(self, tmp_path):
        path = tmp_path / "samples.safetensors"
        path.write_bytes(b"no")
        with pytest.raises(ArtifactError, match="the inputs can't be read"):
            load_samples(path, graph(CHAIN))

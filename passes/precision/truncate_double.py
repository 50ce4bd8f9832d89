"""The pass ``truncate-double``: what a program computes in f64, in f32, for engines have no f64.

    %a = f(%x : f64)  ->  %a = f(to(%x, f32)) : f32

Inputs, outputs and write-backs keep their dtypes: an f64 input is cast as it comes in, an f64
output as it goes out. Constants are not lost: what depends on them alone has been folded by then
(``fold-constants{doubles=True}``), and is computed in f64 and rounded once.

Where f64 is part of what an op means (its bits, random numbers, sizes that depend on values, the
operands of a region), it stays, with casts around it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import torch

from rewright.errors import InferenceError, SettingsError
from rewright.ir.attributes import map_leaves
from rewright.ir.builder import Builder
from rewright.ir.graph import Constant, Graph, Node, Value
from rewright.ir.location import Location
from rewright.ir.types import TensorType
from rewright.passes.manager import Pass, PassContext, Pipeline
from rewright.passes.partition.doubles import CAST, is_double, may_be_narrow
from rewright.passes.registry import register_pass

if TYPE_CHECKING:
    from rewright.settings import Settings


@register_pass
@attrs.frozen
class TruncateDouble(Pass):
    """f64  ->  f32, but for inputs and outputs"""

    moves_numbers: ClassVar[bool] = True

    def run(self, graph: Graph, context: PassContext) -> None:
        """Narrows the nodes of `graph`; their number is the pass's report."""
        context.reports[self.name] = _Narrowing(graph).run()


def with_truncation(pipeline: Pipeline, settings: Settings) -> Pipeline:
    """`pipeline` with the pass before ops are taken apart, if `settings` ask for it.

    Raises:
        SettingsError: the pipeline has such a pass already.
    """
    if not settings.truncate_double:
        return pipeline
    names = [step.name for step in pipeline.passes()]
    if TruncateDouble.name in names:
        raise SettingsError(
            "truncate_double is given, and so is a pipeline with that pass",
            setting="truncate_double",
            hint="leave the setting out",
        )
    following = [name for name in names if name in ("decompose", "partition")]
    step = TruncateDouble()
    return pipeline.insert_before(following[0], step) if following else pipeline.append(step)


@attrs.define(eq=False)
class _Narrowing:
    """One run of the pass.

    Attributes:
        graph: the graph.
        narrow: what stands in f32 for a value in f64.
    """

    graph: Graph
    narrow: dict[Value, Value] = attrs.field(factory=dict)

    def run(self) -> int:
        """Narrows what can be; the number of nodes."""
        replaced = [node for node in [*self.graph] if self.replace(node)]
        for node in reversed(replaced):
            for value in node.results:
                if value.has_uses:
                    value.replace_all_uses(self.widened(value, node))
            node.erase()
        return len(replaced)

    # -- nodes

    def replace(self, node: Node) -> bool:
        """Puts a node in f32 beside `node`, which is in f64, if it can be; whether it is."""
        if not any(map(is_double, (*node.operands, *node.results))) or not may_be_narrow(node):
            return False

        def put(leaf: Any) -> Any:
            if leaf is torch.float64:
                return torch.float32
            is_wide = isinstance(leaf, Value) and is_double(leaf)
            return self.narrowed(leaf, node) if is_wide else leaf

        loc = (node.loc or Location()).made_by(TruncateDouble.name)
        builder = Builder(self.graph, node, loc)
        named = {name: map_leaves(node.arg(name), put) for name in node.attributes}
        try:
            made = builder.insert(node.op, named, hints=[value.hint for value in node.results])
        except InferenceError:  # an op that means f64
            return False
        if not all(map(_is_the_same_in_f32, node.results, made.results)):
            made.erase()
            return False
        for old, new in zip(node.results, made.results, strict=True):
            if is_double(old):
                self.narrow[old] = new
            else:
                old.replace_all_uses(new)
        return True

    # -- values

    def narrowed(self, value: Value, node: Node) -> Value:
        """What stands for an f64 value in f32; a cast, before `node`, of what stays in f64."""
        if value not in self.narrow:
            self.narrow[value] = self.cast_of(value, node)
        return self.narrow[value]

    def cast_of(self, value: Value, node: Node) -> Value:
        if not isinstance(value, Constant) or value in self.graph.targets:
            return self.cast(value, torch.float32, node)
        recipe = value if value.is_source else self.graph.recipe(value)
        made = Builder(self.graph.prepare).call(CAST, recipe, dtype=torch.float32)
        return self.graph.add_prepared(self.free_name(f"{value.name}.f32"), made)

    def widened(self, value: Value, node: Node) -> Value:
        """The f64 value again, for those who need it so, after `node`."""
        return self.cast(self.narrow[value], torch.float64, node)

    def cast(self, value: Value, dtype: torch.dtype, node: Node) -> Value:
        """A cast before `node`, which names the line of `node`."""
        loc = (node.loc or Location()).made_by(TruncateDouble.name)
        return Builder(self.graph, node, loc).call(CAST, value, dtype=dtype)  # type: ignore[no-any-return]

    def free_name(self, name: str) -> str:
        taken: Iterable[str] = self.graph.constants
        while name in taken:
            name += "_"
        return name


def _is_the_same_in_f32(old: Value, new: Value) -> bool:
    if not is_double(old):
        return old.type == new.type
    assert isinstance(old.type, TensorType)
    return new.type == attrs.evolve(old.type, dtype=torch.float32)

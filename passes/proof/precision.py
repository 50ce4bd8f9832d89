"""Numbers for proofs: values for examples, the truth in float64, and errors against it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import attrs
import sympy
import torch

from rewright.ir.graph import Graph, Value
from rewright.ir.interpreter import interpret
from rewright.ir.sizes import evaluate
from rewright.ir.types import TensorType
from rewright.passes.proof.draw import Reject
from rewright.passes.proof.examples import Example
from rewright.passes.rule import EXACT, FAST_MATH, Exactness

Sizes = Mapping[sympy.Symbol, int]

FEEDS: Final = ((0, 1.0), (1, 1.0), (2, 30.0), (3, 300.0))
"""Seeds and spreads of the numbers that an example is run on."""

ODD: Final = (0.0, -0.0, math.inf, -math.inf, math.nan)
"""Numbers that what is exact has to keep, too: each is every eighth, in :func:`odd_feed`."""

DTYPES: Final = (
    *(torch.float32, torch.float16, torch.bfloat16, torch.float64),
    *(torch.int64, torch.int32, torch.bool),
)
"""What examples are made of; those that never fire are not legal for the rule."""

FLOATING: Final = frozenset((torch.float64, torch.float32, torch.float16, torch.bfloat16))


_SHAKES: Final = 4


@attrs.frozen
class Feed:
    """What an example is run on: inputs in order, constants by name."""

    inputs: tuple[torch.Tensor, ...]
    constants: dict[str, torch.Tensor]

    def cast(self, dtype: torch.dtype) -> Feed:
        """The same numbers, floating ones in `dtype`."""
        return Feed(
            tuple(_cast(tensor, dtype) for tensor in self.inputs),
            {name: _cast(tensor, dtype) for name, tensor in self.constants.items()},
        )

    def nearby(self) -> list[Feed]:
        """The numbers next to these in their own dtype, some ways, in float64.

        What rounds an input once more, as a folded weight is rounded, may do as much.
        """
        return [self._nearby(torch.Generator().manual_seed(seed)) for seed in range(2)]

    def _nearby(self, chance: torch.Generator) -> Feed:
        return Feed(
            tuple(_off_by_rounding(tensor, chance) for tensor in self.inputs),
            {name: _off_by_rounding(tensor, chance) for name, tensor in self.constants.items()},
        )

    def shaken(self) -> list[Feed]:
        """Numbers next to these in float64, some ways: no computation can be that exact."""
        return [self._shaken(torch.Generator().manual_seed(seed)) for seed in range(_SHAKES)]

    def _shaken(self, chance: torch.Generator) -> Feed:
        return Feed(
            tuple(_shaken(tensor, chance) for tensor in self.inputs),
            {name: _shaken(tensor, chance) for name, tensor in self.constants.items()},
        )


def _off_by_rounding(tensor: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    if tensor.dtype not in FLOATING:
        return tensor
    sides = torch.randint(0, 2, tensor.shape, generator=chance) * 2 - 1
    return tensor.double() * (1 + sides.double() * torch.finfo(tensor.dtype).eps)


def _shaken(tensor: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    if tensor.dtype != torch.float64:
        return tensor
    sides = torch.randint(0, 2, tensor.shape, generator=chance) * 2 - 1
    return tensor * (1 + sides.double() * torch.finfo(torch.float64).eps)


def _cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype) if tensor.dtype in FLOATING else tensor


def feed(example: Example, seed: int, sizes: Sizes, spread: float = 1.0) -> Feed:
    """Numbers for `example`.

    Args:
        example: an example.
        seed: of the numbers.
        sizes: a number for each symbol.
        spread: the standard deviation of floating-point numbers.
    """
    chance = torch.Generator().manual_seed(seed)
    graph, domains = example.graph, example.domains

    def make(value: Value, domain: str) -> torch.Tensor:
        assert isinstance(value.type, TensorType)
        shape = [evaluate(dim, sizes) for dim in value.type.shape]
        drawn = _numbers(value.type.dtype, shape, domain, chance)
        # Products of weights are folded: they would overflow in f16 where no model's do.
        wide = min(spread, 30.0) if value.is_constant else spread
        return drawn * wide if value.type.dtype in FLOATING and not domain else drawn

    return Feed(
        tuple(make(value, domains.get(value.index, "")) for value in graph.inputs),
        {
            name: make(value, domains.get(name, ""))
            for name, value in graph.constants.items()
            if value.is_source
        },
    )


def odd_feed(example: Example, sizes: Sizes) -> Feed:
    """Numbers for `example`, zeros of both signs among them; infinite ones and nan, too.

    Only where one of these may become an integer there are but zeros: what it becomes is for the
    kernel to choose, and one kernel chooses differently for different strides.
    """
    plain = feed(example, len(FEEDS), sizes)
    odd = ODD[:2] if _makes_integers(example.graph) else ODD
    chance = torch.Generator().manual_seed(len(FEEDS))
    values, domains = example.graph.inputs, example.domains

    def among(tensor: torch.Tensor, domain: str) -> torch.Tensor:
        if tensor.dtype not in FLOATING or domain:
            return tensor
        which = torch.randint(0, 8, tensor.shape, generator=chance)
        for number, value in enumerate(odd):
            tensor = tensor.masked_fill(which == number, value)
        return tensor

    return Feed(
        tuple(
            among(tensor, domains.get(value.index, ""))
            for value, tensor in zip(values, plain.inputs, strict=True)
        ),
        {name: among(held, domains.get(name, "")) for name, held in plain.constants.items()},
    )


def _makes_integers(graph: Graph) -> bool:
    def is_of(value: Value, floating: bool) -> bool:
        dtype = value.type.dtype if isinstance(value.type, TensorType) else torch.bool
        return dtype in FLOATING if floating else not (dtype in FLOATING or dtype == torch.bool)

    return any(
        any(is_of(value, True) for value in node.operands)
        and any(is_of(value, False) for value in node.results)
        for node in graph.walk()
    )


def _numbers(
    dtype: torch.dtype, shape: Sequence[int], domain: str, chance: torch.Generator
) -> torch.Tensor:
    if dtype == torch.bool:
        return torch.rand(shape, generator=chance) < 0.5
    if dtype in FLOATING:
        drawn = torch.randn(shape, generator=chance, dtype=torch.float64)
        return (drawn.abs() + 0.1 if domain == "+" else drawn).to(dtype)
    if domain.startswith("i<"):
        return torch.randint(0, max(int(domain[2:]), 1), shape, generator=chance, dtype=dtype)
    return torch.randint(0 if not dtype.is_signed else -4, 5, shape, generator=chance).to(dtype)


# --------------------------------------------------------------------------- running


def in_dtype(graph: Graph, dtype: torch.dtype) -> Graph:
    """A copy of `graph` that computes all floating-point numbers in `dtype`."""
    wide = graph.copy()
    for value in (*wide.inputs, *wide.constants.values()):
        if isinstance(value.type, TensorType) and value.type.dtype in FLOATING:
            value.type = attrs.evolve(value.type, dtype=dtype)
    for node in wide.walk():
        node.attributes = node.attributes.map(
            lambda leaf: dtype if isinstance(leaf, torch.dtype) and leaf in FLOATING else leaf
        )
    return wide


def run(graph: Graph, numbers: Feed) -> tuple[torch.Tensor, ...]:
    """The outputs of `graph`.

    Raises:
        Reject: torch refuses these numbers.
    """
    try:
        return interpret(graph, numbers.inputs, constants=numbers.constants).outputs
    except (ArithmeticError, RuntimeError, IndexError, NotImplementedError) as error:
        raise Reject(str(error).split("\n")[0]) from error


# --------------------------------------------------------------------------- errors


@attrs.define
class Errors:
    """How far results are from the truth, at most, over several runs.

    Runs in which the pattern itself overflows say nothing of errors: what is left of such a
    result is small by chance. Nor do numbers that nearly overflow say whether a rule does.

    Attributes:
        own: of the pattern itself.
        new: of what the rule made of it.
        apart: of the two from each other.
        scale: the largest number of the truth.
        broken: what no error can excuse: a nan where there was none, unequal integers.
        changed: a number whose bits are not the same, and what it became. Any nan is any other.
    """

    own: float = 0.0
    new: float = 0.0
    apart: float = 0.0
    scale: float = 0.0
    broken: str = ""
    changed: str = ""

    def add_bits(self, own: torch.Tensor, new: torch.Tensor) -> None:
        """Takes in one result of which only the bits are looked at: the pattern's, and the rule's.

        It may be inf or nan as well as a number.
        """
        if own.dtype not in FLOATING:
            if not torch.equal(own, new):
                self.broken = f"{own.dtype} results differ"
        elif not self.changed:
            same = (own == new) & (own.signbit() == new.signbit()) | own.isnan() & new.isnan()
            for at in (~same).nonzero().tolist()[:1]:
                digits = 17 if own.dtype == torch.float64 else 9
                old, made = (f"{item[tuple(at)].item():.{digits}g}" for item in (own, new))
                self.changed = f"{old} became {made}"

    def add(self, truth: torch.Tensor, own: torch.Tensor, new: torch.Tensor) -> None:
        """Takes in one result: the truth, the pattern's, and the rule's."""
        self.add_bits(own, new)
        if own.dtype not in FLOATING:
            return
        wide_own, wide_new, truth = own.double(), new.double(), truth.double()
        sound = torch.isfinite(truth) & torch.isfinite(wide_own)
        sound &= torch.isfinite(wide_new) | (truth.abs() < torch.finfo(own.dtype).max / 2)
        if not torch.isfinite(wide_new[sound]).all():
            self.broken = "a result is not finite where the pattern's is"
        lost = ~torch.isfinite(truth) & ~torch.isfinite(wide_own)
        if not _same_odd(wide_own[lost], wide_new[lost]):
            self.broken = "inf or nan of the pattern's became something else"
        overflowed = torch.isfinite(truth) & ~torch.isfinite(wide_own)
        if sound.any() and not self.broken and not overflowed.any():
            self.own = max(self.own, _largest(wide_own - truth, sound))
            self.new = max(self.new, _largest(wide_new - truth, sound))
            self.apart = max(self.apart, _largest(wide_new - wide_own, sound))
            self.scale = max(self.scale, _largest(truth, sound))

    def add_rounding(self, truth: torch.Tensor, own: torch.Tensor, nearby: torch.Tensor) -> None:
        """Takes in what becomes of the rounding of inputs, which is no less the pattern's error.

        Args:
            truth: the pattern's result in float64.
            own: its result in its own dtype.
            nearby: its result in float64 on numbers next to these (:meth:`Feed.nearby`).
        """
        if own.dtype not in FLOATING:
            return
        overflowed = torch.isfinite(truth) & ~torch.isfinite(own)
        sound = torch.isfinite(truth) & torch.isfinite(own) & torch.isfinite(nearby)
        if sound.any() and not overflowed.any():
            self.own = max(self.own, _largest(nearby.double() - truth.double(), sound))

    def add_estimate(
        self, truth: torch.Tensor, narrow: torch.Tensor, *shaken: torch.Tensor
    ) -> None:
        """Takes in what tells the pattern's own error where float64 is the dtype and the truth.

        It is taken to be what it is in float32, scaled by the precision; times four, since the
        truth has such an error, too, and kernels of the two dtypes differ. Or, if that is more,
        what becomes of the rounding of its inputs: in float32 few numbers may do well by chance.

        Args:
            truth: the pattern's result in float64.
            narrow: its result in float32.
            shaken: its results in float64 on numbers next to these (:meth:`Feed.shaken`).
        """
        if narrow.dtype != torch.float32 or truth.dtype != torch.float64:
            return
        for other, scale in ((narrow.double(), 2.0**-27), *((item, 1.0) for item in shaken)):
            sound = torch.isfinite(truth) & torch.isfinite(other)
            if sound.any():
                self.own = max(self.own, _largest(other - truth, sound) * scale)


def _largest(difference: torch.Tensor, where: torch.Tensor) -> float:
    return float(difference[where].abs().max())


def _same_odd(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0)))


def ulp(scale: float, dtype: torch.dtype) -> float:
    """The distance of neighbouring numbers of `dtype` at `scale`."""
    info = torch.finfo(dtype)
    if scale < info.tiny:
        return float(info.tiny * info.eps)
    return float(info.eps * 2.0 ** math.floor(math.log2(scale)))


def judge(errors: Errors, dtype: torch.dtype, exactness: Exactness, tolerance: float) -> str | None:
    """Why the errors are too large for a rule of `exactness`; None where they are not.

    With ulp the distance of neighbouring numbers at the largest number of the truth:

    =============  ==========================================================================
    ``EXACT``      the same bits, -0.0 and inf among them; any nan for any other
    ``REFOLD``     error against float64 at most 1.5 x the pattern's own, or 2 ulp
    ``FAST_MATH``  error at most 1.5 x the pattern's own, or `tolerance` x the largest number
    =============  ==========================================================================
    """
    if errors.broken or dtype not in FLOATING:
        return errors.broken or None
    if exactness == EXACT:
        if not errors.changed:
            return None
        most = f"; results are up to {errors.apart:.3g} apart" if errors.apart else ""
        return f"the bits are not the same: {errors.changed}{most}"
    two = 2 * ulp(errors.scale, dtype)
    least = tolerance * errors.scale if exactness == FAST_MATH else two
    if errors.new <= max(1.5 * errors.own, least):
        return None
    return (
        f"the error is {errors.new:.3g}, the pattern's own {errors.own:.3g} "
        f"(allowed: {max(1.5 * errors.own, least):.3g}, at numbers up to {errors.scale:.3g})"
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread for a while: on such small tensors, several cost more than they give."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

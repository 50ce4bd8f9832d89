"""One execution context: given shapes and addresses, and run."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs
import torch

from rewright.backends.tensorrt.asking import Asker
from rewright.backends.tensorrt.device import Device, Lane, Stream
from rewright.backends.tensorrt.slots import Shape, Slot
from rewright.errors import EngineError

_UNSET: Final = -1
"""No profile and no address is this number."""


@attrs.frozen(eq=False)
class Plan:
    """What the sizes of a call lead to; the same for all calls with these sizes.

    Attributes:
        profile: the optimization profile that holds them.
        shapes: the inputs whose shape varies, with their shapes.
        host: the inputs that TensorRT reads in the host's memory: tensors that stay as they are.
        outputs: the shape of each output; -1 where only the run tells it. None: not yet known.
    """

    profile: int
    shapes: tuple[tuple[str, Shape], ...]
    host: Mapping[str, torch.Tensor]
    outputs: tuple[Shape, ...] | None = None

    @property
    def is_data_dependent(self) -> bool:
        """Whether an output's shape is known only after the run."""
        return self.outputs is not None and any(-1 in shape for shape in self.outputs)


class Context:
    """One of TensorRT's execution contexts, and what it is bound to. For one thread at a time.

    Args:
        execution: TensorRT's context.
        inputs: the inputs of its engine.
        outputs: the outputs.
        asker: calls TensorRT.
        device: where it runs.
        spare: memory for the addresses of empty tensors, which may not be null.
        shares_scratch: whether each run is given scratch memory.

    Attributes:
        plan: what it was last given the shapes of.
        caller: the handle of the stream that it last worked for; None before the first run.
    """

    def __init__(
        self, execution: Any, inputs: Sequence[Slot], outputs: Sequence[Slot], asker: Asker,
        device: Device, spare: torch.Tensor, shares_scratch: bool = False,
    ) -> None:  # fmt: skip
        self.plan: Plan | None = None
        self.caller: int | None = None
        self._execution = execution
        self._inputs, self._outputs = inputs, outputs
        self._asker, self._device = asker, device
        self._null = spare.data_ptr()
        self._spare = spare
        self._has_host_outputs = any(slot.on_host for slot in outputs)
        self._lane = Lane(device)
        self._profile = int(execution.active_optimization_profile)
        self._addresses: dict[str, int] = {}
        self._shares_scratch = shares_scratch
        self._scratch = 0
        self._allocators: dict[str, Any] = {}
        self._allocator_class = allocator_class(asker.library.module)

    def run(
        self, plan: Plan, inputs: Sequence[torch.Tensor], caller: Stream
    ) -> tuple[Plan, list[torch.Tensor]]:
        """Runs.

        Args:
            plan: for the sizes of `inputs`.
            inputs: for each input a dense tensor, where it must be.
            caller: the caller's stream.

        Returns:
            The plan, with the shapes of outputs, and the outputs: as good as computed for whoever
            works on the same stream.

        Raises:
            EngineError: TensorRT refused something. The context is in no known state then.
        """
        self.caller = caller.cuda_stream
        bound, self.plan = self.plan, None  # until all has gone well
        given = {slot.name: tensor for slot, tensor in zip(self._inputs, inputs, strict=True)}
        given.update(plan.host)
        if plan is not bound:
            self._bind(plan, given, caller)
            plan = self._inferred(plan)
        self._set_addresses(given)
        results = self._allocate(plan)
        # Free once this returns: who gets it next is behind the run on the caller's stream.
        scratch = self._give_scratch()
        handle = self._lane.begin(caller)
        try:
            self._asker.ask("run the engine", self._execution.execute_async_v3, handle)
        except EngineError:
            self._raise_allocation_error()
            raise
        finally:
            self._lane.end()
        del scratch
        self.plan = plan
        if self._has_host_outputs:
            caller.synchronize()
        return plan, self._collect(results)

    def is_capturable(self) -> bool:
        """Whether TensorRT lets the current stream be captured; it is asked where it can tell."""
        if not self._asker.library.has("IExecutionContext.is_stream_capturable"):
            return True
        return bool(self._execution.is_stream_capturable(self._device.stream().cuda_stream))

    # -- shapes

    def _bind(self, plan: Plan, given: Mapping[str, torch.Tensor], caller: Stream) -> None:
        execution, ask = self._execution, self._asker.ask
        if plan.profile != self._profile:
            self._profile = _UNSET
            handle = self._lane.begin(caller)
            try:
                ask(
                    f"choose profile {plan.profile}",
                    execution.set_optimization_profile_async, plan.profile, handle,
                )  # fmt: skip
            finally:
                self._lane.end()
            self._profile = plan.profile
        for name, shape in plan.shapes:
            ask(f"give {name} the shape {list(shape)}", execution.set_input_shape, name, shape)
        for name in plan.host:
            # Always, even where the address is the same: it says that there are new values.
            self._set_address(name, given[name])

    def _inferred(self, plan: Plan) -> Plan:
        """`plan` with the shapes of outputs; the context has been given its inputs' shapes."""
        execution, ask = self._execution, self._asker.ask
        if plan.outputs is None:
            missing = ask("infer the shapes", execution.infer_shapes)
            if missing:
                raise EngineError(
                    f"{self._asker.library.name} could not infer the shapes of "
                    f"@{self._asker.name}: it misses {', '.join(missing)}",
                    engine=self._asker.name,
                )
            shapes = tuple(tuple(execution.get_tensor_shape(s.name)) for s in self._outputs)
            plan = attrs.evolve(plan, outputs=shapes)
        if self._shares_scratch:
            measure = execution.update_device_memory_size_for_shapes
            self._scratch = int(ask("measure the scratch memory", measure))
        return plan

    def _give_scratch(self) -> torch.Tensor | None:
        """Memory for what the run computes on the way, where the context has none of its own."""
        if not self._shares_scratch:
            return None
        where = self._device.torch_device
        memory = torch.empty(max(self._scratch, 1), dtype=torch.uint8, device=where)
        give = self._execution.set_device_memory
        self._asker.tell("set the scratch memory", give, memory.data_ptr(), self._scratch)
        return memory

    # -- addresses

    def _set_addresses(self, given: Mapping[str, torch.Tensor]) -> None:
        for slot in self._inputs:
            tensor = given[slot.name]
            if self._addresses.get(slot.name, _UNSET) != (tensor.data_ptr() or self._null):
                self._set_address(slot.name, tensor)

    def _set_address(self, name: str, tensor: torch.Tensor) -> None:
        address = tensor.data_ptr() or self._null
        self._asker.ask(
            f"set the address of {name}", self._execution.set_tensor_address, name, address
        )
        self._addresses[name] = address

    # -- outputs

    def _allocate(self, plan: Plan) -> list[torch.Tensor | None]:
        """Memory for the outputs; None where TensorRT asks for it as it runs."""
        assert plan.outputs is not None
        made: list[torch.Tensor | None] = []
        for slot, shape in zip(self._outputs, plan.outputs, strict=True):
            grows = -1 in shape
            if grows != (slot.name in self._allocators):
                self._set_allocator(slot.name, grows)
            if grows:
                made.append(None)
                continue
            where = torch.device("cpu") if slot.on_host else self._device.torch_device
            tensor = torch.empty(shape, dtype=slot.dtype, device=where)
            if self._addresses.get(slot.name, _UNSET) != (tensor.data_ptr() or self._null):
                self._set_address(slot.name, tensor)
            made.append(tensor)
        return made

    def _set_allocator(self, name: str, wanted: bool) -> None:
        allocator = self._allocator_class(self._lane.empty) if wanted else None
        self._asker.ask(
            f"set the allocator of {name}", self._execution.set_output_allocator, name, allocator
        )
        if wanted:
            self._allocators[name] = allocator
        else:
            del self._allocators[name]

    def _collect(self, results: Sequence[torch.Tensor | None]) -> list[torch.Tensor]:
        made = []
        for slot, result in zip(self._outputs, results, strict=True):
            if result is None:
                result = self._allocators[slot.name].take(slot.dtype)
                if result is None:
                    raise EngineError(
                        f"{self._asker.library.name} did not say the shape of {slot.name}, an "
                        f"output of @{self._asker.name}",
                        engine=self._asker.name,
                    )
            made.append(result)
        return made

    def _raise_allocation_error(self) -> None:
        """Raises what went wrong in a callback: TensorRT only says that it got nothing."""
        for name, allocator in self._allocators.items():
            if allocator.error is not None:
                error, allocator.error = allocator.error, None
                raise EngineError(
                    f"there is no memory for {name}, an output of @{self._asker.name}: {error}",
                    engine=self._asker.name,
                ) from error


@functools.cache
def allocator_class(trt: Any) -> Any:
    """The class of allocators for outputs whose size only the run tells, for a TensorRT module."""

    class OutputAllocator(trt.IOutputAllocator):
        """Memory for one output.

        Args:
            empty: gives memory of so many bytes.
        """

        def __init__(self, empty: Callable[[int], torch.Tensor]) -> None:
            trt.IOutputAllocator.__init__(self)
            self.error: Exception | None = None
            self._empty = empty
            self._memory: torch.Tensor | None = None
            self._shape: Shape | None = None

        def reallocate_output(
            self, tensor_name: str, memory: int, size: int, alignment: int
        ) -> int:  # fmt: skip
            """The address of memory of `size` bytes; 0 where there is none."""
            # The caller keeps what a run gives, so each run gets new memory. An exception must
            # not pass through TensorRT.
            try:
                alignment = max(alignment, 1)
                whole = self._empty(max(size, 1) + alignment - 1)
            except (RuntimeError, MemoryError) as error:
                self.error = error
                return 0
            self._memory = whole[-whole.data_ptr() % alignment :]
            return self._memory.data_ptr()

        def reallocate_output_async(
            self, tensor_name: str, memory: int, size: int, alignment: int, stream: int
        ) -> int:
            """As :meth:`reallocate_output`: the lane knows the stream."""
            return self.reallocate_output(tensor_name, memory, size, alignment)

        def notify_shape(self, tensor_name: str, shape: Any) -> None:
            """Takes the shape that the output turned out to have."""
            self._shape = tuple(int(size) for size in shape)

        def take(self, dtype: torch.dtype) -> torch.Tensor | None:
            """The output of the last run; None where TensorRT did not tell its shape."""
            memory, shape, self._memory, self._shape = self._memory, self._shape, None, None
            if memory is None or shape is None:
                return None
            return memory[: math.prod(shape) * dtype.itemsize].view(dtype).view(shape)

    return OutputAllocator

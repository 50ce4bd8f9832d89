"""Where engines run: the GPU's memory and streams, all by torch's own allocator and streams.

The rest of the runtime knows a GPU only by :class:`Device`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

import torch

from rewright.backends.tensorrt.library import Capability

DEFAULT_STREAM: Final = 0
"""The handle of the stream on which TensorRT would synchronize more than it needs to."""


class Stream(Protocol):
    """What is used of ``torch.cuda.Stream``."""

    @property
    def cuda_stream(self) -> int:
        """CUDA's handle."""

    def wait_stream(self, stream: Any) -> None:
        """What comes next waits for what `stream` was given so far."""

    def wait_event(self, event: Any) -> None:
        """What comes next waits for `event`."""

    def record_event(self, event: Any = None) -> Any:
        """An event (`event`, if given) for what was given so far."""

    def synchronize(self) -> None:
        """The host waits for what was given so far."""


class Device(Protocol):
    """A place where engines run.

    Attributes:
        torch_device: where inputs must be, and outputs are.
        alignment: TensorRT wants addresses that are multiples of so many bytes.
    """

    torch_device: torch.device
    alignment: int

    def refusal(self) -> str | None:
        """Why no engine can run here; None where one may."""

    def capability(self) -> Capability:
        """The compute capability."""

    def active(self) -> AbstractContextManager[Any]:
        """This device is the current one meanwhile."""

    def stream(self) -> Stream:
        """The caller's stream."""

    def new_stream(self) -> Stream:
        """Another stream."""

    def capturing(self) -> bool:
        """Whether the caller's stream is being captured into a CUDA graph."""

    def empty(self, size: int, stream: Stream, user: Stream) -> torch.Tensor:
        """Memory of `size` bytes that is first used on `stream`, and then on `user`."""


class CudaDevice:
    """A GPU.

    Args:
        index: which one; None: the current one.
    """

    alignment: int = 256  # setTensorAddress: "must have at least 256-byte alignment"

    def __init__(self, index: int | None = None) -> None:
        if index is None:
            index = torch.cuda.current_device() if torch.cuda.is_available() else 0
        self.torch_device = torch.device("cuda", index)

    def refusal(self) -> str | None:
        """Why no engine can run here: torch sees no GPU, or not so many."""
        if torch.version.cuda is None:
            return "torch is built without CUDA"
        if not torch.cuda.is_available():
            return "torch finds no CUDA device (no GPU, or no driver that fits it)"
        count = torch.cuda.device_count()
        index = self.torch_device.index
        return None if index < count else f"there is no {self.torch_device}, only {count} device(s)"

    def capability(self) -> Capability:
        """The GPU's compute capability."""
        return torch.cuda.get_device_capability(self.torch_device)

    def active(self) -> AbstractContextManager[Any]:
        """This GPU is torch's and CUDA's current one meanwhile."""
        return torch.cuda.device(self.torch_device)

    def stream(self) -> Stream:
        """torch's current stream."""
        return torch.cuda.current_stream(self.torch_device)

    def new_stream(self) -> Stream:
        """One of torch's streams; the default stream is none of them."""
        return torch.cuda.Stream(self.torch_device)

    def capturing(self) -> bool:
        """Whether torch's current stream is being captured."""
        return torch.cuda.is_current_stream_capturing()

    def empty(self, size: int, stream: Any, user: Any) -> torch.Tensor:
        """See :meth:`Device.empty`."""
        with torch.cuda.stream(stream):
            memory = torch.empty(size, dtype=torch.uint8, device=self.torch_device)
        if user != stream:
            memory.record_stream(user)
        return memory


class Lane:
    """The streams of one execution context: the caller's, or one of its own.

    A run is put on the caller's stream; where that is the default stream, on a stream of the
    lane's own, which waits for the caller's and is waited for. A context computes in memory of
    its own, so where its runs come on different streams, each waits for the one before.

    Inputs and outputs need no ``record_stream``: they are allocated on the caller's stream before
    :meth:`begin`, and the caller's stream waits for the run; so whatever is done with their
    memory afterwards, reuse included, comes after the run.

    Args:
        device: the device.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._own: Stream | None = None
        self._caller: Stream | None = None
        self._stream: Stream | None = None
        self._done: Any = None
        self._last: int | None = None

    def begin(self, caller: Stream) -> int:
        """The handle of the stream to run on, for one whose stream is `caller`."""
        stream = caller
        if caller.cuda_stream == DEFAULT_STREAM:
            if self._own is None:
                self._own = self._device.new_stream()
            stream = self._own
            stream.wait_stream(caller)
        elsewhere = self._last is not None and self._last != stream.cuda_stream
        # A capture may not wait for what is outside of it. What came before has ended then:
        # torch synchronizes before it captures.
        if elsewhere and not self._device.capturing():
            stream.wait_event(self._done)
        self._caller, self._stream = caller, stream
        return stream.cuda_stream

    def end(self) -> None:
        """The caller's stream waits for the run; also after one that failed."""
        caller, stream = self._caller, self._stream
        assert caller is not None
        assert stream is not None
        if self._device.capturing():
            self._last = None  # nothing outside of the graph waits for what is in it
            return
        self._done = stream.record_event(self._done)
        self._last = stream.cuda_stream
        if stream is not caller:
            caller.wait_event(self._done)

    def empty(self, size: int) -> torch.Tensor:
        """Memory of `size` bytes, asked for in the midst of a run; the caller may keep it.

        It is taken from the run's stream: what the caller's has freed since the run began may
        still be in use there.
        """
        assert self._caller is not None
        assert self._stream is not None
        return self._device.empty(size, self._stream, self._caller)

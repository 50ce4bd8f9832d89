"""Depthwise convolutions on a GPU: the kernel's numbers, and programs that use it."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile

import rewright
from rewright.backends.torch.kernels import depthwise
from tests.backends.torch.depthwise_cases import CASES, Case

pytestmark = pytest.mark.gpu

CUDA = "cuda"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_kernel(case):
    case.run(CUDA)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("size", "channels"), [(56, 128), (28, 256), (14, 512), (7, 1024)])
def test_the_operator_launches_it(batch, size, channels):
    case = Case((batch, channels, size, size), (7, 7), padding=(3, 3), blocks=None)
    image, weight, bias = case.arguments(CUDA)
    found = depthwise.depthwise_conv(image, weight, bias, [1, 1], [3, 3])
    case.check(found, image, weight, bias)
    assert depthwise._compiled_for(image, weight, bias, [1, 1], [3, 3], False) in depthwise._ready
    assert not depthwise._refused


def test_a_recording_compiles_nothing(monkeypatch):
    monkeypatch.setattr(depthwise, "_ready", set())
    case = Case((1, 64, 14, 14), blocks=None)
    image, weight, bias = case.arguments(CUDA)
    depthwise._by_torch(image, weight, bias, [1, 1], [1, 1], False)  # cuDNN, before it is recorded
    torch.cuda.synchronize()
    recorded = {}
    for name in ("torch", "ours"):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            recorded[name] = depthwise.depthwise_conv(image, weight, bias, [1, 1], [1, 1])
        assert not depthwise._ready or name == "ours"
        graph.replay()
        torch.cuda.synchronize()
        depthwise.depthwise_conv(image, weight, bias, [1, 1], [1, 1])
    case.check(recorded["ours"], image, weight, bias)
    torch.testing.assert_close(recorded["torch"], recorded["ours"], rtol=1e-2, atol=4e-3)


class Net(nn.Module):
    """A stem, blocks of depthwise and dense convolutions, and a ReLU behind one of them."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(8, 64, 4, stride=4)
        self.deep = nn.Conv2d(64, 64, 7, padding=3, groups=64)
        self.dense = nn.Conv2d(64, 64, 1)
        self.down = nn.Conv2d(64, 64, 3, stride=2, padding=1, groups=64)
        self.end = nn.Conv2d(64, 32, 1)

    def forward(self, x):
        x = self.stem(x)
        x = x + nn.functional.gelu(self.dense(self.deep(x)))
        return self.end(torch.relu(self.down(x)))


def launched(program, x):
    program(x)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        program(x)
        torch.cuda.synchronize()
    return [item.key for item in seen.key_averages() for _ in range(item.count)]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "inductor"])
@pytest.mark.parametrize("graphs", ["off", "on"])
def test_a_program_uses_it_and_is_right_wherever_it_goes(backend, graphs, tmp_path):
    net = Net().eval().to(CUDA, torch.float16)
    x = torch.randn(2, 8, 64, 64, device=CUDA, dtype=torch.float16)
    with torch.no_grad():
        exact, plain = net.double()(x.double()), net.half()(x)
    options = {"torch_backend": backend, "cuda_graphs": graphs}
    program = rewright.compile(net, (x,), **options)
    program.save(tmp_path / "net.rw")
    for made in (program, rewright.load(tmp_path / "net.rw")):
        kernels = launched(made, x)
        assert sum(name.startswith("convolve") for name in kernels) == 2, kernels
        assert not any("conv2d_c1_k1" in name for name in kernels), kernels
        error = (made(x).double() - exact).norm() / exact.norm()
        assert error <= 1.2 * (plain.double() - exact).norm() / exact.norm()


@pytest.mark.parametrize("laid_out", [True, False])
@pytest.mark.parametrize("has_bias", [True, False])
def test_what_is_compiled_ahead_is_what_a_call_launches(laid_out, has_bias):
    from rewright.backends.torch.kernels.depthwise_triton import convolve

    case = Case((2, 136, 20, 20), (5, 5), has_bias=has_bias, laid_out=laid_out, blocks=None)
    image, weight, bias = case.arguments(CUDA)
    steps = [1, 1], [2, 2], True
    with FakeTensorMode() as mode:
        like = [None if t is None else mode.from_tensor(t) for t in (image, weight, bias)]
    ((key, compile_kernel),) = depthwise.compiles(*like, *steps).items()
    assert key == depthwise._compiled_for(image, weight, bias, *steps)
    compile_kernel()
    kernels = convolve.device_caches[image.device.index][0]
    before = len(kernels)
    depthwise.depthwise_conv(image, weight, bias, *steps)
    assert len(kernels) == before > 0
    assert depthwise.compiles(*like, *steps) == {}, "it is there now"

"""CUDA graphs on a device: every claim of backends/torch/cuda_graphs.py, against eager mode."""

import gc
import threading
import warnings

import pytest
import torch
from torch import Tensor, nn

import rewright
from rewright.errors import FallbackWarning

pytestmark = pytest.mark.gpu

BACKENDS = ["eager", "inductor"]
WAYS = ["export", "jit"]


@pytest.fixture(autouse=True)
def _no_state_left():
    yield
    torch.compiler.reset()
    torch.cuda.synchronize()


class Mlp(nn.Module):
    """Two linear layers, of any number of rows."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.nn.functional.gelu(self.first(x)))


def compiled(model: nn.Module, *args, way: str = "export", dynamic=None, **settings):
    """`model` with graphs, as a function; on an error nothing runs otherwise."""
    settings = {"cuda_graphs": "on", **settings}
    if way == "export":
        return rewright.compile(model, args, dynamic_shapes=dynamic, **settings)
    options = {**settings, "on_error": "raise"}
    return torch.compile(model, backend="rewright", options=options, dynamic=bool(dynamic))


def on_gpu(model: nn.Module) -> nn.Module:
    return model.eval().cuda().requires_grad_(False)


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=2e-4, atol=2e-4)


def assert_captured(at_least: int = 1) -> None:
    done = rewright.stats()
    assert done.captures >= at_least
    assert done.fallbacks == 0, done.fallback_reasons


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("way", WAYS)
def test_numbers_are_eagers_and_results_stay(way, backend):
    model = on_gpu(Mlp())
    run = compiled(model, torch.randn(8, 64, device="cuda"), way=way, torch_backend=backend)
    kept = []
    for _ in range(8):
        x = torch.randn(8, 64, device="cuda")
        kept.append((run(x), model(x)))
    for actual, expected in kept:
        assert_equal(actual, expected)
    assert len({actual.data_ptr() for actual, _ in kept}) == 8
    assert_captured()
    if way == "export":
        assert run.cuda_graphs.replays >= 6


@pytest.mark.parametrize("way", WAYS)
def test_weights_may_change(way):
    model = on_gpu(Mlp())
    x = torch.randn(8, 64, device="cuda")
    run = compiled(model, x, way=way)
    for _ in range(3):
        run(x)
    before = rewright.stats().captures
    model.first.weight.mul_(2)
    model.second.bias.add_(1)
    assert_equal(run(x), model(x))
    assert rewright.stats().captures == before  # seen where it is
    if way != "jit":
        return  # an exported program holds the tensors of its export, whatever the model holds
    model.first.weight.data = torch.randn_like(model.first.weight)
    for _ in range(3):
        x = torch.randn(8, 64, device="cuda")
        assert_equal(run(x), model(x))
    assert_captured(before + 1)


def test_refitted_weights_are_recorded_anew():
    model, other = on_gpu(Mlp()), on_gpu(Mlp())
    x = torch.randn(8, 64, device="cuda")
    run = compiled(model, x, optimization_level=2)
    for _ in range(3):
        run(x)
    run.refit(other.state_dict())
    for _ in range(3):
        assert_equal(run(x), other(x))
    assert_captured(2)


def test_modules_that_share_a_compiled_graph_have_their_own_graphs():
    blocks = nn.Sequential(*(on_gpu(Mlp()) for _ in range(3)))
    options = {"cuda_graphs": "on", "on_error": "raise"}
    for block in blocks:
        block.compile(backend="rewright", options=options)
    for _ in range(4):
        x = torch.randn(8, 64, device="cuda")
        expected = x
        for block in blocks:
            expected = block.forward(expected)
        assert_equal(blocks(x), expected)
    assert_captured()


class Decoder(nn.Module):
    """Writes into a cache of keys, and counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.proj = nn.Linear(16, 16)

    def forward(self, x: Tensor, at: Tensor, cache: Tensor) -> Tensor:
        self.calls.add_(1)
        cache.index_copy_(0, at, self.proj(x))
        return cache.sum(0) + self.calls


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("caches", [1, 2, 6])
def test_what_is_written_is_written_once_a_call(caches, way, backend):
    model = on_gpu(Decoder())
    reference = on_gpu(Decoder())
    reference.load_state_dict(model.state_dict())
    ours = [torch.zeros(64, 16, device="cuda") for _ in range(caches)]
    theirs = [torch.zeros(64, 16, device="cuda") for _ in range(caches)]
    example = (torch.randn(1, 16, device="cuda"), torch.tensor([0], device="cuda"), ours[0].clone())
    run = compiled(model, *example, way=way, torch_backend=backend)
    for number in range(4 * caches + 8):
        x = torch.randn(1, 16, device="cuda")
        at = torch.tensor([number], device="cuda")
        which = number % caches
        assert_equal(run(x, at, ours[which]), reference(x, at, theirs[which]))
        assert_equal(ours[which], theirs[which])
    assert model.calls.item() == reference.calls.item()
    assert_captured()


class Views(nn.Module):
    """Results of every kind: arguments, constants, views of these and of each other."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("b", torch.randn(6))

    def forward(self, x: Tensor) -> tuple:
        y = x * 2
        wide = torch.ones(2, device=x.device).expand(3, 2)
        return x, x[1:], self.b[2:], y, y[0], y.t(), wide, x.sum()


def test_results_alias_what_they_alias_in_eager_mode():
    model = on_gpu(Views())
    run = compiled(model, torch.randn(4, 3, device="cuda"))
    for _ in range(5):
        x = torch.zeros(20, device="cuda")[8:].view(4, 3).copy_(torch.randn(4, 3))
        actual, expected = run(x), model(x)
        for a, e in zip(actual, expected, strict=True):
            assert torch.equal(a, e)
            assert a.stride() == e.stride()
        assert actual[0] is x
        assert actual[1].data_ptr() == x[1:].data_ptr()
        assert actual[2].data_ptr() == model.b[2:].data_ptr()
        actual[3].fill_(7)
        assert (actual[4] == 7).all()
        assert (actual[5] == 7).all()
    assert_captured()


@pytest.mark.parametrize("backend", BACKENDS)
def test_shapes_in_turn(backend):
    model = on_gpu(Mlp())
    rows = torch.export.Dim("rows", min=2, max=64)
    run = compiled(
        model, torch.randn(8, 64, device="cuda"), dynamic=({0: rows},), torch_backend=backend
    )
    # all are there at once, so that none comes at the address of another
    for x in [torch.randn(2 + number % 5, 64, device="cuda") for number in range(60)]:
        assert_equal(run(x), model(x))
    counts = run.cuda_graphs
    assert counts.captures == counts.kept == 5
    assert counts.replays >= 50
    assert_captured(5)


def test_layouts_of_inputs_are_apart():
    model = on_gpu(Mlp())
    run = compiled(model, torch.randn(8, 64, device="cuda"))
    for make in (
        lambda: torch.randn(8, 64, device="cuda"),
        lambda: torch.randn(64, 8, device="cuda").t(),
        lambda: torch.randn(1, 64, device="cuda").expand(8, 64),
        lambda: torch.randn(8, 65, device="cuda")[:, 1:],
    ):
        for _ in range(5):
            x = make()
            assert_equal(run(x), model(x))
    assert run.cuda_graphs.captures == 4
    assert_captured()


class Slow(nn.Module):
    """Work that takes a while, so that what doesn't wait is found out."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1024, 1024) / 32)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(20):
            x = torch.tanh(x @ self.weight)
        return x


def test_streams_take_turns():
    model = on_gpu(Slow())
    run = compiled(model, torch.randn(1024, 1024, device="cuda"))
    streams = [torch.cuda.current_stream(), torch.cuda.Stream(), torch.cuda.Stream()]
    inputs = [torch.randn(1024, 1024, device="cuda") for _ in range(12)]
    expected = [model(x) for x in inputs]
    for x in inputs[:4]:
        run(x)
    torch.cuda.synchronize()
    results = []
    for number, x in enumerate(inputs):
        with torch.cuda.stream(streams[number % 3]):
            results.append(run(x))
    torch.cuda.synchronize()
    for actual, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-2, atol=1e-2)
    assert run.cuda_graphs.replays >= 12


def test_two_programs_run_at_once_on_two_streams():
    """Each recording has scratch memory of its own."""
    models = [on_gpu(Slow()), on_gpu(Slow())]
    x = torch.randn(1024, 1024, device="cuda")
    runs = [compiled(model, x) for model in models]
    expected = [model(x) for model in models]
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    for run in runs:
        for _ in range(3):
            run(x)
    torch.cuda.synchronize()
    results: list[list[Tensor]] = [[], []]
    for _ in range(20):
        for number in range(2):
            with torch.cuda.stream(streams[number]):
                results[number].append(runs[number](x))
    torch.cuda.synchronize()
    for number in range(2):
        for actual in results[number]:
            torch.testing.assert_close(actual, expected[number], rtol=1e-2, atol=1e-2)


def test_threads_take_turns():
    model = on_gpu(Mlp())
    rows = torch.export.Dim("rows", min=2, max=64)
    run = compiled(model, torch.randn(8, 64, device="cuda"), dynamic=({0: rows},))
    wrong: list[object] = []

    def work(seed: int) -> None:
        try:
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream), torch.no_grad():
                for number in range(200):
                    # CUDA's generator raises in all threads while one of them records
                    x = torch.randn(2 + (seed + number) % 4, 64).cuda()
                    actual, expected = run(x), model(x)
                    if not torch.allclose(actual, expected, rtol=1e-3, atol=1e-3):
                        wrong.append((seed, number))
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert run.cuda_graphs.replays > 1000
    assert_captured(4)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=lambda m: m.__name__)
@pytest.mark.parametrize("way", WAYS)
def test_a_graph_serves_calls_in_any_mode(mode, way):
    model = on_gpu(Mlp())
    run = compiled(model, torch.randn(8, 64, device="cuda"), way=way)
    for _ in range(4):
        with mode():
            x = torch.randn(8, 64, device="cuda")
            assert_equal(run(x), model(x))
        x = torch.randn(8, 64, device="cuda")
        y = run(x)
        assert_equal(y, model(x))
        assert not y.is_inference()
    with torch.autocast("cuda", dtype=torch.float16):
        if way == "export":
            assert run(x).dtype == torch.float32
    assert_captured()


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


def test_random_numbers_are_not_captured():
    x = torch.zeros(64, device="cuda")
    with pytest.warns(FallbackWarning, match=r"draws random numbers \(.*test_cuda_graphs_gpu.py"):
        run = compiled(Noisy().eval(), x)
    assert not torch.equal(run(x), run(x))
    torch.manual_seed(3)
    first = [run(x) for _ in range(3)]
    torch.manual_seed(3)
    assert all(torch.equal(a, x + torch.rand_like(x)) for a in first)
    assert rewright.stats().captures == 0
    quiet = compiled(Noisy().eval(), x, cuda_graphs="auto")
    assert "draws random numbers" in quiet.report()


@torch.library.custom_op("rewright_test::waits", mutates_args=())
def waits(x: Tensor) -> Tensor:
    """Asks the device for a number, where no graph shows it."""
    return x * float(x.sum().item() > 0)


@waits.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Waits(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return waits(x + 1) + torch.relu(x)


@pytest.mark.parametrize("way", WAYS)
def test_a_failed_capture_is_said_and_leaves_no_trace(way):
    model = Waits().eval()
    x = torch.randn(256, device="cuda")
    run = compiled(model, x, way=way)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(6):
            x = torch.randn(256, device="cuda")
            assert_equal(run(x), model(x))
    said = [item for item in caught if item.category is FallbackWarning]
    assert len(said) == 1
    assert "capturing failed" in str(said[0].message)
    assert rewright.stats().fallbacks == 1
    # The random generator, the allocator and later captures are as if nothing had been.
    torch.manual_seed(1)
    first = torch.rand(4, device="cuda")
    torch.manual_seed(1)
    assert torch.equal(first, torch.rand(4, device="cuda"))
    big = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    held = torch.cuda.memory_reserved()
    del big
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() < held
    other = on_gpu(Mlp())
    after = compiled(other, torch.randn(8, 64, device="cuda"))
    for _ in range(5):
        x = torch.randn(8, 64, device="cuda")
        assert_equal(after(x), other(x))
    assert after.cuda_graphs.replays >= 3


def test_a_caller_may_capture_a_program():
    model = on_gpu(Mlp())
    x = torch.randn(8, 64, device="cuda")
    run = compiled(model, x)
    for _ in range(3):
        run(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = run(x)
    x.copy_(torch.randn(8, 64, device="cuda"))
    graph.replay()
    assert_equal(y, model(x))


def test_memory_is_shared_bounded_and_given_back():
    model = on_gpu(Slow())
    rows = torch.export.Dim("rows", min=2, max=4096)
    run = compiled(
        model, torch.randn(64, 1024, device="cuda"), dynamic=({0: rows},), cuda_graphs_kept=4
    )
    reserved = []
    for size in range(512, 1024, 32):
        for _ in range(60):
            run(torch.randn(size, 1024, device="cuda"))
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        reserved.append(torch.cuda.memory_reserved())
    assert run.cuda_graphs.kept <= 4
    assert run.cuda_graphs.captures >= 8
    assert max(reserved[8:]) < 2 * max(reserved[:8])
    before = torch.cuda.memory_reserved()
    del run
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() < before


def test_many_calls_hold_no_more_memory():
    model = on_gpu(Mlp())
    run = compiled(model, torch.randn(8, 64, device="cuda"))
    for _ in range(10):
        run(torch.randn(8, 64, device="cuda"))
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(1000):
        run(torch.randn(8, 64, device="cuda"))
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == before


class Scaled(nn.Module):
    """A number that lives on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.tensor(3.0)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def test_a_number_on_the_cpu_is_read_again_after_an_edit():
    model = Scaled().eval()
    x = torch.randn(64, device="cuda")
    run = compiled(model, x)
    for _ in range(3):
        assert_equal(run(x), x * 3)
    scale = next(c.data for c in run.graph.constants.values() if c.is_source)
    if scale.is_cpu:
        scale.fill_(5.0)
        for _ in range(3):
            assert_equal(run(x), x * 5)
    assert_captured()


class ManySmall(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        for _ in range(150):
            x = torch.sin(x) + 1
        return x


def test_a_replay_costs_less_than_its_launches():
    x = torch.randn(64, device="cuda")

    def milliseconds(run) -> float:
        times = []
        for _ in range(30):
            torch.cuda.synchronize()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run(x)
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end))
        return sorted(times)[15]

    plain = rewright.compile(ManySmall().eval(), (x,))
    replayed = compiled(ManySmall().eval(), x)
    assert_equal(replayed(x), plain(x))
    assert milliseconds(replayed) < milliseconds(plain) / 1.5
    assert replayed.cuda_graphs.replays >= 28

"""The user's own line: what warnings point at, through whatever frames of torch's and ours."""

import contextlib
import functools
import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import rewright
from rewright import caller
from rewright.errors import DetachedWarning, FallbackWarning, RewrightWarning

TORCH = os.path.dirname(torch.__file__)
OURS = os.path.dirname(rewright.__file__)
X = torch.linspace(-1, 1, 12).reshape(3, 4)


def inside(file, call):
    """A function that calls `call`, as if it stood in `file`."""
    space = {"__name__": "elsewhere", "call": call}
    exec(compile("def through():\n    return call()\n", file, "exec"), space)
    return space["through"]


def line_of(found):
    """Where the one warning points, its source line."""
    (warning,) = found
    assert warning.filename == __file__
    with open(__file__, encoding="utf-8") as file:
        return file.read().splitlines()[warning.lineno - 1].strip()


THROUGH = {
    "nothing": (),
    "ours": (f"{OURS}/program.py",),
    "torch and ours": (f"{OURS}/frontends/dynamo.py", f"{TORCH}/__init__.py"),
    "Python": (f"{OURS}/a.py", f"{TORCH}/nn/modules/module.py", contextlib.__file__),
    "generated": (f"main{caller.GENERATED}", "<eval_with_key>.7", "<string>", f"{TORCH}/_ops.py"),
}


@pytest.mark.parametrize("files", THROUGH.values(), ids=THROUGH)
def test_points_outside_of_torch_and_us(files):
    call = functools.partial(caller.warn, "it is so", FallbackWarning)
    for file in files:
        call = inside(file, call)
    with pytest.warns(FallbackWarning, match="it is so") as found:
        call()  # the user's
    assert line_of(found) == "call()  # the user's"


def test_other_packages_and_prompts_are_the_user_s():
    for file in ("<stdin>", "<ipython-input-3-abc>", "/tmp/ipykernel_1/2.py", "model.py"):
        assert caller.is_users(file)
    assert caller.is_users(f"{os.path.dirname(TORCH)}/transformers/generation/utils.py")
    assert not caller.is_users(threading.__file__)


def test_a_thread_of_ours_has_no_line_of_the_user_s():
    call = inside(f"{OURS}/store.py", functools.partial(caller.warn, "in a thread"))
    with ThreadPoolExecutor(1) as pool, pytest.warns(RewrightWarning, match="thread") as found:
        pool.submit(call).result()
    assert found[0].filename == f"{OURS}/store.py"


def test_the_script_of_python_c_is_the_user_s():
    script = "from rewright import caller\nimport torch\ncaller.warn('so')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.startswith("<string>:3: RewrightWarning: so"), done.stderr


def test_is_shown_once_for_each_line_of_the_user_s():
    def twice():
        for _ in range(2):
            inside(f"{OURS}/program.py", functools.partial(caller.warn, "again"))()

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("default")
        twice()
        inside(f"{OURS}/program.py", functools.partial(caller.warn, "again"))()
    assert [w.filename for w in found] == [__file__] * 2
    assert found[0].lineno != found[1].lineno


def test_the_line_that_an_error_came_through():
    def forward():
        inside(f"{TORCH}/_ops.py", functools.partial(int, "no"))()

    with pytest.raises(ValueError, match="invalid literal") as caught:
        inside(f"{OURS}/frontends/export.py", inside(f"{TORCH}/export/__init__.py", forward))()
    shown = caller.user_line(caught.value.__traceback__)
    line = forward.__code__.co_firstlineno + 1
    assert shown == f"{os.path.relpath(__file__)}:{line} (forward)"
    with pytest.raises(ValueError, match="invalid literal") as caught:
        int("no")
    assert caller.user_line(caught.value.__traceback__.tb_next) is None


# --------------------------------------------------------------------------- our warnings


@pytest.fixture
def model():
    torch._dynamo.reset()
    yield torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()).eval()
    torch._dynamo.reset()


def test_what_can_not_be_compiled_just_in_time(model):
    def drops(x):
        return torch.nn.functional.dropout(model(x), 0.5, training=True)

    fast = torch.compile(drops, backend="rewright")
    with torch.no_grad(), pytest.warns(FallbackWarning, match="aten.dropout") as found:
        fast(X)  # compiles
    assert line_of(found) == "fast(X)  # compiles"


def test_gradients_that_are_not_given(model, monkeypatch):
    from rewright.frontends import dynamo

    monkeypatch.setattr(dynamo, "_warned", threading.Event())
    fast = torch.compile(model, backend="rewright")
    with pytest.warns(DetachedWarning) as found:
        fast(X)  # with gradients
    assert line_of(found) == "fast(X)  # with gradients"


@pytest.mark.skipif(torch.cuda.is_available(), reason="an engine may run")
def test_an_engine_that_can_not_run(model):
    with pytest.warns(FallbackWarning, match="no CUDA device") as found:
        rewright.compile(model, (X,), target="rtx", min_block_size=1)
    assert "rewright.compile(model, (X,), " in line_of(found)

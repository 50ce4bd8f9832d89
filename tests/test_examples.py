"""The examples, used as a user would: installed, found by name, run under a compile."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
USER_PASSES = ROOT / "examples" / "user_passes"

MODEL = """
import sys, torch, rewright

class Net(torch.nn.Module):
    def forward(self, x):
        positions = torch.arange(8)
        y = x * torch.sigmoid(x)
        y = y * torch.tanh(torch.nn.functional.softplus(y))
        y = y * torch.clamp(y + 3, 0, 6) / 6
        return y + positions

x = torch.randn(4, 8)
exported = torch.export.export(Net(), (x,))
for pipeline in sys.argv[1:]:
    program = rewright.compile_exported(
        exported, pipeline=pipeline, verify_each=True, numerics=True
    )
    torch.testing.assert_close(program(x), Net()(x))
    print(" ".join(node.op.name.removeprefix("aten.") for node in program.graph))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> dict[str, str]:
    """The environment of a Python where the package of user passes is installed."""
    source = tmp_path_factory.mktemp("source") / "user_passes"
    shutil.copytree(USER_PASSES, source, ignore=shutil.ignore_patterns("__pycache__"))
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{target}"}


def python(environment: dict[str, str], folder: Path, *arguments: str) -> str:
    """What Python prints, run elsewhere than in the source tree."""
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_passes_are_listed(installed, tmp_path):
    listed = python(installed, tmp_path, "-m", "rewright", "passes")
    lines = [" ".join(line.split()) for line in listed.splitlines()]
    for start in ("name-activations", "- fuse-mish refold", "sink-creations"):
        assert any(line.startswith(f"{start} ") for line in lines), start
    assert "x * tanh(softplus(x))  ->  mish(x)" in listed
    assert any("{least_elements = 0} int" in line for line in lines)


def test_a_compile_finds_them_by_name(installed, tmp_path):
    expected = {
        "default,name-activations": "arange silu mish hardswish add.Tensor",
        "name-activations,sink-creations": "silu mish hardswish arange add.Tensor",
        "repeat(name-activations{without=[fuse-mish]},sink-creations{least_elements=9})": (
            "arange silu softplus tanh mul.Tensor hardswish add.Tensor"
        ),
    }
    printed = python(installed, tmp_path, "-c", MODEL, *expected)
    assert printed.splitlines() == [*expected.values()]


def test_every_rule_proves_itself(installed, tmp_path):
    code = (
        "from activation_passes.activations import NameActivations;"
        "[print(rule.prove()) for rule in NameActivations.rules]"
    )
    lines = python(installed, tmp_path, "-c", code).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "fuse-silu",
        "fuse-mish",
        "fuse-hardswish",
    ]


@pytest.mark.slow
def test_the_guide_holds_word_for_word(tmp_path):
    guide = (ROOT / "docs" / "WRITING_A_PASS.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", guide, re.DOTALL):
        named = re.match(r"# (\w+\.py)", block)
        with open(tmp_path / (named[1] if named else "by_hand.py"), "a") as file:
            file.write(block)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    (command, proof) = re.search(r'\$ python -c "(.*)"\n    (.*)\n', guide).groups()
    assert python(environment, tmp_path, "-c", command) == f"{proof}\n"
    python(environment, tmp_path, "by_hand.py")
    python(environment, tmp_path, "net.py")
    shown = re.search(r"```diff\n(.*?)```", guide, re.DOTALL)[1].splitlines()
    written = (tmp_path / "dump" / "001-my-fusions.diff").read_text().splitlines()
    words = [" ".join(line.split()) for line in written]
    assert [line for line in shown if " ".join(line.split()) not in words] == []
    for line in re.findall(r"^    rewright (opt dump/001.*my-fusions) --", guide, re.MULTILINE):
        assert "aten.mish" in python(environment, tmp_path, "-m", "rewright", *line.split())


SCRIPTS = {
    "jit_with_a_condition.py": "another size     off by",
    "aot_dynamic_shapes.py": "a batch of 17: dimension 0 of x is 17, outside of its range",
    "own_pass.py": "aten.sigmoid(%linear)",
    "transformers_generate.py": "43 of 43 tokens are those of eager",
    "diffusers_pipeline.py": "pixels differ by at most",
}
"""Each example that is a script, with what it must print."""

QUICK = ("jit_with_a_condition.py",)


def test_every_script_is_run_here():
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == {*SCRIPTS}


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SCRIPTS],
)
def test_a_script_runs_as_its_first_lines_say(name, tmp_path):
    for library in ("transformers", "diffusers"):
        if name.startswith(library):
            pytest.importorskip(library)
    assert f"Run it: python examples/{name}" in (ROOT / "examples" / name).read_text()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(tmp_path)}
    printed = python(environment, tmp_path, str(ROOT / "examples" / name))
    assert SCRIPTS[name] in printed

"""The way of a model on the command line: compile, inspect, run, bench."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import rewright
from rewright import cli
from rewright.compile_cli import parse_inputs, parse_settings
from rewright.errors import InputError, SettingsError


class Net(torch.nn.Module):
    """f32[b, 8] and a scale by name to a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 4)

    def forward(self, x, *, scale):
        return {"y": self.linear(x) * scale, "size": x.shape[0]}


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def exported(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "net.pt2"
    shapes = {"x": {0: torch.export.Dim("b", min=1, max=64)}, "scale": None}
    given = ((torch.randn(2, 8),), {"scale": torch.ones(4)})
    torch.export.save(torch.export.export(net, *given, dynamic_shapes=shapes), path)
    return path


@pytest.fixture(scope="module")
def saved(exported):
    path = exported.with_suffix(".rw")
    arguments = ["--input", "x=1x8:4x8:32x8", "--set", "optimization_level=1"]
    assert cli.main(["compile", str(exported), "-o", str(path), *arguments]) == 0
    return path


def test_compile_saves_a_program_with_its_ranges_and_settings(saved, net):
    program = rewright.load(saved)
    assert program.settings.optimization_level == 1
    x, scale = torch.randn(5, 8), torch.rand(4)
    torch.testing.assert_close(program(x, scale=scale), net(x, scale=scale))
    with pytest.raises(InputError):
        program(torch.randn(33, 8), scale=scale)


def test_compile_reports_in_text_and_json(exported, tmp_path, capsys):
    path = tmp_path / "net.rw"
    assert cli.main(["compile", str(exported), "-o", str(path)]) == 0
    out, err = capsys.readouterr()
    assert f"wrote {path}: " in out and "program main on cpu" in out
    assert err == ""  # the progress is for terminals
    assert cli.main(["compile", str(exported), "-o", str(path), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["bytes"] == path.stat().st_size
    assert made["report"]["name"] == "main"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none.pt2", "-o", "x.rw"], "there is no such file"),
        (["FOLDER/text.pt2", "-o", "x.rw"], "no exported program"),
        (["MODEL", "-o", "none/x.rw"], "no folder to write to"),
        (["MODEL", "-o", "x.rw", "--input", "x=1x8:4x8"], "does not describe an input"),
        (["MODEL", "-o", "x.rw", "--input", "z=1x8"], "no tensor argument 'z'"),
        (["MODEL", "-o", "x.rw", "--input", "x=1x8:4x8:99x8"], "was exported for 1 to 64, not 99"),
        (["MODEL", "-o", "x.rw", "--set", "levl=2"], "there is no setting 'levl'"),
        (["MODEL", "-o", "x.rw", "--set", "optimization_level"], "does not set anything"),
    ],
)
def test_wrong_arguments_are_explained_with_status_2(
    exported, tmp_path, monkeypatch, capsys, arguments, says
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.pt2").write_text("text")
    given = [a.replace("MODEL", str(exported)).replace("FOLDER", str(tmp_path)) for a in arguments]
    assert cli.main(["compile", *given]) == 2
    err = capsys.readouterr().err
    assert says in err and "Traceback" not in err
    assert not (tmp_path / "x.rw").exists()


def test_inputs_are_read():
    one, fixed, several = parse_inputs(
        ["a=1x8:4x64:8,128", "b=2x3", "c=1:2:4", "c=8:16:32"]
    )  # fmt: skip
    assert (one.name, one.min, one.opt, one.max) == ("a", (1, 8), (4, 64), (8, 128))
    assert fixed.min == fixed.opt == fixed.max == (2, 3)
    assert [(item.name, item.opt) for item in several] == [("c", (2,)), ("c", (16,))]
    for text in ("a", "a=", "=1x2", "a=1x2:3x4", "a=1x-2", "a=1xb"):
        with pytest.raises(InputError):
            parse_inputs([text])


def test_settings_are_read():
    texts = ["a=2", "b=1e-3", "c=True", "d=off", "e=rtx:8.9,12.0", "f-g=['x', 'y']", "h=none"]
    assert parse_settings(texts) == {
        "a": 2, "b": 1e-3, "c": True, "d": "off", "e": "rtx:8.9,12.0", "f_g": ["x", "y"], "h": None,
    }  # fmt: skip
    for texts in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(SettingsError):
            parse_settings(texts)


def test_a_setting_that_is_given_like_an_option(saved, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["compile", "m.pt2", "-o", "m.rw", "--optimization-level=3"])
    assert caught.value.code == 2
    assert "--set optimization_level=VALUE" in capsys.readouterr().err
    assert cli.main(["compile", str(saved), "-o", str(saved.with_name("again.rw"))]) == 2
    assert "rewright inspect" in capsys.readouterr().err


def test_run_draws_inputs_that_fit(saved, capsys):
    assert cli.main(["run", str(saved), "--random", "--size", "s0=3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {name: about["type"] for name, about in told["inputs"].items()} == {
        "x": "f32[3, 8]",
        "scale": "f32[4]",
    }
    assert told["outputs"]["result['y']"]["type"] == "f32[3, 4]"
    assert told["outputs"]["result['y']"]["not_finite"] == 0
    assert told["outputs"]["result['size']"]["type"] == "int 3"


def test_run_takes_inputs_and_saves_results(saved, net, tmp_path, capsys):
    x, scale = torch.randn(6, 8), torch.rand(4)
    save_file({"x": x, "scale": scale}, tmp_path / "in.safetensors")
    arguments = ["--inputs", f"{tmp_path}/in.safetensors", "--save", f"{tmp_path}/out.safetensors"]
    assert cli.main(["run", str(saved), *arguments]) == 0
    found = load_file(tmp_path / "out.safetensors")
    torch.testing.assert_close(found["result['y']"], net(x, scale=scale)["y"])
    out = capsys.readouterr().out
    assert "f32[6, 8]" in out and "\x1b" not in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--size", "s9=3"], "the program has no size 's9'"),
        (["--size", "s0"], "gives no size"),
        (["--size", "s0=99"], "99"),
        (["--inputs", "none.safetensors"], "can't be read"),
    ],
)
def test_wrong_inputs_of_a_run_are_explained(saved, capsys, arguments, says):
    assert cli.main(["run", str(saved), "--random", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_run_names_the_input_that_the_program_has_not(saved, tmp_path, capsys):
    save_file({"scala": torch.ones(4)}, tmp_path / "in.safetensors")
    assert cli.main(["run", str(saved), "--random", "--inputs", f"{tmp_path}/in.safetensors"]) == 2
    err = capsys.readouterr().err
    assert "the program has no tensor argument 'scala'" in err and "'scale'" in err


def test_inspect_of_a_file_that_is_not_there(tmp_path, capsys):
    assert cli.main(["inspect", f"{tmp_path}/none.rw"]) == 2
    assert "the artifact can't be opened: No such file" in capsys.readouterr().err


def test_run_wants_to_know_where_inputs_come_from(saved, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", str(saved)])
    assert stopped.value.code == 2
    assert "give --random" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["run", "--random"], ["bench"]])
def test_what_is_no_saved_program_is_refused(exported, tmp_path, capsys, arguments):
    (tmp_path / "text.rw").write_text("text")
    assert cli.main([*arguments, str(tmp_path / "text.rw")]) == 2
    assert f"rewright {arguments[0]}: this is no artifact of Rewright" in capsys.readouterr().err
    assert cli.main([*arguments, str(exported)]) == 2
    assert f"hint: rewright compile {exported} -o " in capsys.readouterr().err


def test_bench_measures(saved, capsys):
    arguments = ["--runs", "7", "--warmup", "1", "--size", "s0=2"]
    assert cli.main(["bench", str(saved), *arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["runs"] == 7 and told["device"] == "cpu"
    assert 0 < told["p5"] <= told["median"] <= told["p95"]
    assert told["inputs"]["x"] == "f32[2, 8]"
    assert cli.main(["bench", str(saved), *arguments]) == 0
    out, err = capsys.readouterr()
    assert "median" in out and " 7 " in out and err == ""

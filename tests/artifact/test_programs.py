"""Programs come back from files as they were."""

import copy
import hashlib
import json
import threading
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import rewright
from rewright.artifact.inspect import describe, parser
from rewright.artifact.parts import PARTS
from rewright.cli import main
from rewright.errors import ArtifactError, InputError, RewrightWarning, SettingsError
from rewright.ir.printer import print_graph
from tests.artifact.zoo import CASES, Case, Pair, Perceptron, Scores, assert_equal, leaves

ROOT = Path(__file__).parents[2]
BY_NAME = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def saved(program, tmp_path, name="program.rw", **options):
    path = tmp_path / name
    program.save(path, **options)
    return path


@BY_NAME
def test_it_comes_back_the_same(case, tmp_path):
    program = case.compile()
    path = saved(program, tmp_path)
    before = rewright.stats()
    loaded = rewright.load(path)
    assert print_graph(loaded.graph) == print_graph(program.graph)
    assert loaded.source == program.source
    assert loaded.signature == program.signature
    assert loaded.settings == program.settings
    for _ in range(2):  # the second time with what the first wrote
        args, kwargs = case.args(), case.kwargs()
        others = copy.deepcopy((args, kwargs))
        expected, actual = program(*args, **kwargs), loaded(*others[0], **others[1])
        assert_equal(leaves(actual), leaves(expected))
        assert_equal(leaves(others), leaves((args, kwargs)))  # arguments that are written to
    done = rewright.stats() - before
    assert (done.graphs, done.rewrites, done.specializations, done.fallbacks) == (0, 0, 0, 0)


@BY_NAME
def test_saving_is_exact(case, tmp_path):
    program = case.compile()
    first = saved(program, tmp_path).read_bytes()
    assert saved(program, tmp_path).read_bytes() == first
    loaded = rewright.load(tmp_path / "program.rw")
    assert saved(loaded, tmp_path).read_bytes() == first, "what is loaded saves to the same bytes"


def test_reports_of_passes_come_along(tmp_path):
    program = CASES["folding"].compile(precision="bf16")
    loaded = rewright.load(saved(program, tmp_path))
    assert program.precision is not None and loaded.precision == program.precision
    assert loaded.report() == program.report()
    assert_equal([loaded(*CASES["folding"].args())], [program(*CASES["folding"].args())])


def test_another_process_saves_the_same_bytes(fresh_python, tmp_path):
    path = saved(CASES["folding"].compile(), tmp_path)
    code = (
        "import hashlib; from tests.artifact.zoo import CASES; "
        f"CASES['folding'].compile().save({str(tmp_path / 'b')!r}); "
        f"print(hashlib.sha256(open({str(tmp_path / 'b')!r}, 'rb').read()).hexdigest())"
    )
    assert fresh_python(code) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_new_sizes_need_no_compile_and_wrong_ones_name_the_range(tmp_path):
    case = CASES["perceptron"]
    program = case.compile()
    loaded = rewright.load(saved(program, tmp_path))
    rewright.reset_stats()
    for rows in (1, 7, 32):
        x = torch.randn(rows, 8)
        assert_equal([loaded(x)], [program(x)])
    done = rewright.stats()
    assert (done.graphs, done.nodes, done.specializations, done.fallbacks) == (0, 0, 0, 0)
    with pytest.raises(InputError, match=r"dimension 0 of input is 33.*expected 1 to 32"):
        loaded(torch.randn(33, 8))


# --------------------------------------------------------------------------- memory


def test_memory_that_is_shared_stands_in_the_file_once(tmp_path):
    program = CASES["tied"].compile()
    path = saved(program, tmp_path)
    loaded = rewright.load(path)
    constants = [c.data for c in loaded.graph.constants.values() if c.data is not None]
    assert len(constants) >= 2
    assert len({data.untyped_storage().data_ptr() for data in constants}) == 1
    for name, constant in loaded.graph.constants.items():
        before = program.graph.constants[name].data
        if constant.data is None or before is None:  # of no use to a call, or prepared
            continue
        assert constant.data.stride() == before.stride()
        assert constant.data.storage_offset() == before.storage_offset()


def test_weights_are_mapped_and_aligned_and_writes_stay_in_the_process(tmp_path):
    program = CASES["counting"].compile()
    path = saved(program, tmp_path)
    before = path.read_bytes()
    one, other = rewright.load(path), rewright.load(path)
    for _ in range(3):
        one(*CASES["counting"].args())
    assert one.graph.constants["calls"].data.item() == 3
    assert other.graph.constants["calls"].data.item() == 0
    assert path.read_bytes() == before
    one.save(path)  # over the file that it is mapped from
    assert rewright.load(path).graph.constants["calls"].data.item() == 3
    one(*CASES["counting"].args())
    assert one.graph.constants["calls"].data.item() == 4


def test_data_of_constants_is_aligned(tmp_path):
    loaded = rewright.load(saved(CASES["dtypes"].compile(), tmp_path))
    storages = [c.data.untyped_storage() for c in loaded.graph.constants.values()]
    assert all(storage.data_ptr() % 64 == 0 for storage in storages if len(storage))


def test_the_weights_file_is_read_by_safetensors(tmp_path):
    import zipfile

    from safetensors.torch import load

    model = Perceptron().eval()
    program = rewright.compile(model, (torch.randn(2, 8),), optimization_level=0)
    with zipfile.ZipFile(saved(program, tmp_path)) as file:
        assert file.testzip() is None
        assert all(info.compress_type == zipfile.ZIP_STORED for info in file.infolist())
        found = load(file.read("weights.safetensors"))
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[name], data) for name, data in model.state_dict().items())


def test_saving_from_one_thread_while_another_calls(tmp_path):
    program = CASES["perceptron"].compile()
    x = torch.randn(4, 8)
    expected, wrong = program(x), []
    stop = threading.Event()

    def call():
        while not stop.is_set():
            if not torch.equal(program(x), expected):
                wrong.append(1)

    thread = threading.Thread(target=call)
    thread.start()
    for number in range(5):
        saved(program, tmp_path, f"{number}.rw")
    stop.set()
    thread.join()
    assert not wrong
    assert len({(tmp_path / f"{n}.rw").read_bytes() for n in range(5)}) == 1


# --------------------------------------------------------------------------- sources and refit


def test_sources_are_kept_for_a_refit_or_left_out(tmp_path):
    case = CASES["folding"]
    program = case.compile()
    assert any(not c.is_source for c in program.graph.constants.values()), "something is folded"
    whole, small = saved(program, tmp_path), saved(program, tmp_path, "small.rw", sources=False)
    assert small.stat().st_size < whole.stat().st_size
    (x,) = case.args()
    loaded = rewright.load(small)
    assert_equal([loaded(x)], [program(x)])
    assert saved(loaded, tmp_path, "again.rw", sources=False).read_bytes() == small.read_bytes()
    new = {name: torch.randn_like(t) for name, t in case.model().state_dict().items() if t.dim()}
    new["norm.running_var"].abs_()
    refitted = rewright.load(whole)
    refitted.refit(new)
    program.refit(new)
    assert_equal([refitted(x)], [program(x)])


def test_a_program_without_sources_can_be_copied_and_exported(tmp_path):
    case = CASES["folding"]
    program, (x,) = case.compile(), case.args()
    loaded = rewright.load(saved(program, tmp_path, sources=False))
    copied, exported = copy.deepcopy(loaded), loaded.to_exported_program().module()
    for made in (copied, exported, copy.deepcopy(copied), loaded.to_torchscript()):
        assert_equal([made(x)], [program(x)])
    with pytest.raises(ArtifactError, match=r"has no data.*\n.*\n?.*sources=False"):
        loaded.save(tmp_path / "again.rw")


# --------------------------------------------------------------------------- trees and classes


def test_nests_come_back_with_their_classes(tmp_path):
    case = CASES["nested"]
    result = rewright.load(saved(case.compile(), tmp_path))(*case.args(), **case.kwargs())
    assert type(result["scores"]) is Scores and result["scores"].loss is None
    assert type(result["pair"]) is Pair
    assert result["none"] is None and result["list"][1] == 7


def test_a_number_that_is_fixed_is_checked(tmp_path):
    case = CASES["nested"]
    loaded = rewright.load(saved(case.compile(), tmp_path))
    with pytest.raises(InputError, match=r"scale is 0.25.*compiled for 0.5"):
        loaded(*case.args(), **{**case.kwargs(), "scale": 0.25})


def test_classes_that_are_not_here_become_records_with_one_warning(tmp_path, monkeypatch):
    class Model(nn.Module):
        def forward(self, x):
            return {"scores": Scores(x, x + 1)}

    path = saved(rewright.compile(Model(), (torch.ones(2),)), tmp_path)
    registry = pytree.SUPPORTED_NODES
    monkeypatch.delitem(registry, Scores)
    with pytest.warns(RewrightWarning, match=r"objects of tests\.artifact\.zoo\.Scores") as found:
        loaded = rewright.load(path)
    assert len(found) == 1
    made = loaded(torch.zeros(2))["scores"]
    assert torch.equal(made.logits, torch.zeros(2)) and made["hidden"] is made[1] is made.hidden
    assert made.loss is None and [*made] == ["logits", "hidden"]
    with pytest.raises(AttributeError, match="no field 'nothing'"):
        _ = made.nothing
    doubled = pytree.tree_map(lambda t: t + 2, made)
    assert torch.equal(doubled.hidden, torch.full((2,), 3.0))
    assert repr(made).startswith("Scores(logits=")
    assert saved(loaded, tmp_path, "again.rw").stat().st_size, "and it can be saved again"


def test_a_class_of_arguments_that_is_not_here_is_an_error(tmp_path, monkeypatch):
    class Model(nn.Module):
        def forward(self, scores):
            return scores.logits + scores.hidden

    program = rewright.compile(Model(), (Scores(torch.ones(2), torch.ones(2)),))
    path = saved(program, tmp_path)
    monkeypatch.delitem(pytree.SUPPORTED_NODES, Scores)
    with pytest.raises(ArtifactError, match=r"tests\.artifact\.zoo\.Scores") as caught:
        rewright.load(path)
    assert "import tests.artifact.zoo" in caught.value.hint


# --------------------------------------------------------------------------- refusals


def test_what_has_no_text_is_refused_before_a_file_is_touched(tmp_path):
    program = rewright.compile(nn.Linear(2, 2).eval(), (torch.ones(1, 2),), optimization_level=0)
    constant = program.graph.constants["weight"]
    path = tmp_path / "program.rw"
    path.write_bytes(b"precious")
    constant.data = constant.data.to_sparse()
    with pytest.raises(ArtifactError, match=r"@weight is a Tensor with layout torch.sparse_coo"):
        program.save(path)
    constant.data = None
    with pytest.raises(ArtifactError, match=r"@weight has no data"):
        program.save(path)
    assert path.read_bytes() == b"precious"
    assert [*tmp_path.iterdir()] == [path]


def test_a_folder_that_is_not_there_is_an_error_of_ours(tmp_path):
    program = CASES["branching"].compile()
    with pytest.raises(ArtifactError, match="can't be written: No such file"):
        program.save(tmp_path / "nowhere" / "program.rw")
    with pytest.raises(ArtifactError, match="can't be opened: No such file"):
        rewright.load(tmp_path / "nowhere.rw")
    with pytest.raises(ArtifactError, match="can't be opened: Is a directory"):
        rewright.load(tmp_path)


def test_custom_operators_must_be_allowed(tmp_path):
    with torch.library._scoped_library("artifact_test", "DEF") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")
        torch.library.register_fake("artifact_test::twice", torch.empty_like, lib=library)

        class Model(nn.Module):
            def forward(self, x):
                return torch.ops.artifact_test.twice(x)

        path = saved(rewright.compile(Model(), (torch.ones(2),)), tmp_path)
        with pytest.raises(ArtifactError, match=r"calls artifact_test\.twice") as caught:
            rewright.load(path)
        assert "ops=('artifact_test',)" in caught.value.hint
        loaded = rewright.load(path, ops=("artifact_test",))
        assert torch.equal(loaded(torch.ones(2)), torch.full((2,), 2.0))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_here_is_an_error(tmp_path):
    path = saved(CASES["perceptron"].compile(), tmp_path)
    with pytest.raises(ArtifactError, match="finds no CUDA device") as caught:
        rewright.load(path, device="cuda")
    assert 'device="cpu"' in caught.value.hint
    with pytest.raises(SettingsError, match="'device'"):
        rewright.load(path, device="gpu")


class Ranged(nn.Module):
    def forward(self, x):
        at = torch.arange(x.shape[0], device=x.device)
        return x + at.to(x.dtype)[:, None], at.to("cpu")


def test_a_program_moves_to_another_device():
    from rewright.frontends.export import import_exported
    from rewright.ir.retarget import retarget

    rows = torch.export.Dim("rows", min=1, max=9)
    exported = torch.export.export(Ranged(), (torch.ones(3, 2),), dynamic_shapes=({0: rows},))
    here, _ = import_exported(exported)
    there, _ = import_exported(exported, device="cuda:0")
    retarget(here, "cuda:0")
    assert print_graph(here) == print_graph(there), "as an import moves it"
    assert "device=cuda:0" in print_graph(here)
    retarget(here, "cpu")
    assert print_graph(here) == print_graph(import_exported(exported)[0])


@pytest.mark.gpu
def test_a_program_runs_on_a_gpu(tmp_path):
    case = Case(Ranged, lambda: (torch.ones(3, 2),))
    program = case.compile()
    loaded = rewright.load(saved(program, tmp_path), device="cuda")
    for a, b in zip(
        loaded(torch.ones(3, 2, device="cuda")), program(torch.ones(3, 2)), strict=True
    ):
        assert a.is_cuda and torch.equal(a.cpu(), b)


# --------------------------------------------------------------------------- inductor


@pytest.mark.slow
def test_inductor_compiles_again(tmp_path):
    case = CASES["perceptron"]
    program = case.compile(torch_backend="inductor")
    loaded = rewright.load(saved(program, tmp_path))
    x = torch.randn(5, 8)
    assert_equal([loaded(x)], [program(x)])


def test_options_that_name_programs_are_refused(tmp_path):
    from tests.artifact.hostile import changed

    path = saved(CASES["perceptron"].compile(), tmp_path)

    def edit(manifest):
        manifest["settings"]["torch_backend"] = "inductor"
        manifest["settings"]["inductor_options"] = {"dict": [["cpp.cxx", "/tmp/evil"]]}

    path.write_bytes(changed(path.read_bytes(), edit))
    with pytest.raises(ArtifactError, match=r"Inductor's option 'cpp.cxx'"):
        rewright.load(path)


def test_no_code_is_ever_trusted(tmp_path):
    path = saved(CASES["perceptron"].compile(), tmp_path)
    with pytest.raises(SettingsError, match="artifacts hold no compiled code"):
        rewright.load(path, trust_code=True)


# --------------------------------------------------------------------------- inspect


def test_inspect_shows_what_is_inside_without_torch(fresh_python, tmp_path, capsys):
    path = saved(CASES["folding"].compile(), tmp_path)
    assert main(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "x: f32[2, 3, 8, 8]" in shown and "bf16[2, 7]" in shown
    assert main(["inspect", str(path), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["format"] == 1 and made["producer"]["torch"] == torch.__version__
    assert made["file"] == path.stat().st_size
    assert made["file"] > made["parts"]["prepared"]["bytes"] > 5 * 3 * 9 * 4
    code = (
        "import sys; from rewright.cli import main; "
        f"assert main(['inspect', {str(path)!r}]) == 0; print('torch' in sys.modules)"
    )
    assert fresh_python(code).splitlines()[-1] == "False"


@BY_NAME
def test_the_report_and_inspect_say_the_same_of_each_part(case, tmp_path, capsys):
    program = case.compile()
    path = saved(program, tmp_path)
    found = describe(str(path))["parts"]
    loaded = rewright.load(path)
    assert found == program.report().to_json()["parts"] == loaded.report().to_json()["parts"]
    held = [c for c in program.graph.constants.values() if c.is_source]
    assert found["weights"]["count"] + found["sources"]["count"] <= len(held)
    assert main(["inspect", str(path)]) == 0
    shown, said = capsys.readouterr().out, str(program.report())
    for label in ("constants", "graph"):
        rows = [
            [line.split(maxsplit=1)[1] for line in text.splitlines() if line.split()[0] == label]
            for text in (shown, said)
        ]
        assert rows[0] == rows[1] and len(rows[0]) == 1


def test_sources_that_were_not_saved_are_counted_by_nobody(tmp_path):
    program = CASES["folding"].compile()
    assert program.report().parts["sources"].count > 0
    program.save(tmp_path / "a.rw", sources=False)
    found = describe(str(tmp_path / "a.rw"))["parts"]
    assert found["sources"] == {"count": 0, "bytes": 0}
    loaded = rewright.load(tmp_path / "a.rw")
    assert loaded.report().to_json()["parts"] == found
    assert loaded.prepared_bytes == program.prepared_bytes == found["prepared"]["bytes"] > 0


def test_each_part_is_explained_once():
    """By one table, which `rewright inspect --help` prints and docs/ARTIFACT.md has."""
    page = (ROOT / "docs/ARTIFACT.md").read_text(encoding="utf-8")
    for name, meaning in PARTS.items():
        assert f"| `{name}` | {meaning} |" in page
        assert meaning in parser().format_help()


@pytest.mark.parametrize("ops", ["mylib", [3]])
def test_allowed_operators_are_a_sequence_of_names(ops, tmp_path):
    path = saved(CASES["perceptron"].compile(), tmp_path)
    with pytest.raises(SettingsError, match="ops is"):
        rewright.load(path, ops=ops)

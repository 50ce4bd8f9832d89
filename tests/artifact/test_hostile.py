"""Files that nobody's save() wrote: an error of ours, or the very same program; nothing else."""

import io
import json
import random
import struct
import warnings

import pytest
import torch

import rewright
from rewright.artifact.container import MANIFEST
from rewright.artifact.plain import dumps
from rewright.errors import ArtifactError, RewrightError, RewrightWarning
from tests.artifact.hostile import changed, members, sealed
from tests.artifact.zoo import CASES, assert_equal, leaves

SEEDS = ("perceptron", "nested", "folding", "counting", "branching")


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Saved programs, by name: the case, its bytes, and what it gives."""
    folder = tmp_path_factory.mktemp("artifacts")
    made = {}
    for name in SEEDS:
        case = CASES[name]
        path = folder / name
        case.compile().save(path)
        data = path.read_bytes()
        expected = leaves(rewright.load(path)(*case.args(), **case.kwargs()))
        made[name] = (case, data, expected)
    return made


def load(path, data):
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RewrightWarning)
        return rewright.load(path)


def refused(path, data, match):
    with pytest.raises(ArtifactError, match=match) as caught:
        load(path, data)
    assert caught.value.path == str(path)
    assert [*path.parent.iterdir()] == [path], "nothing else is touched"
    return caught.value


# --------------------------------------------------------------------------- one by one


def test_what_is_no_artifact_or_a_part_of_one(artifacts, tmp_path):
    _, data, _ = artifacts["perceptron"]
    path = tmp_path / "a.rw"
    for other in (b"", b"hello", bytes(5000), b"PK\5\6" + bytes(18)):
        refused(path, other, "no artifact of Rewright")
    for size in (5, 300, len(data) // 2, len(data) - 1):
        refused(path, data[:size], "its end is missing|no artifact")
    refused(path, data + b"\0", "its end is missing")
    refused(path, b"\0" + data[:-1], "no artifact")
    other = io.BytesIO()
    torch.save({}, other)
    assert "torch.load" in refused(path, other.getvalue(), "a zip file, and no artifact").hint


def test_a_newer_format(artifacts, tmp_path):
    _, data, _ = artifacts["perceptron"]
    newer = data.replace(b"rewright artifact 0001", b"rewright artifact 0002")
    error = refused(tmp_path / "a.rw", newer, "has format 2, and this Rewright reads up to 1")
    assert "newer Rewright" in error.hint


@pytest.mark.parametrize("member", ["program.ir", "weights.safetensors", "prepared.safetensors"])
def test_a_flipped_bit_is_found_by_the_checksum(artifacts, tmp_path, member):
    _, data, _ = artifacts["folding"]
    part = members(data)[member]
    at = data.index(part) + len(part) - 1
    flipped = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
    refused(tmp_path / "a.rw", flipped, rf"{member} does not pass its checksum")
    if member != "program.ir":
        rewright.load(tmp_path / "a.rw", verify=False)


def test_members_that_should_not_be_there(artifacts, tmp_path):
    _, data, _ = artifacts["perceptron"]
    parts, path = members(data), tmp_path / "a.rw"
    for name in ("../../evil", "/etc/passwd", "model.py", "engines/../x", "weights.pkl"):
        refused(path, sealed({name: b"x", **parts}), "should not be there")
    for name in ("program.ir", "sources.safetensors"):
        left = {other: part for other, part in parts.items() if other != name}
        refused(path, sealed(left, parts[MANIFEST]), "not those of its manifest")
    twice = data.replace(b"sources.safetensors", b"weights.safetensors")
    refused(path, twice, "should not be there|not where it should be")


def test_sizes_that_are_absurd(artifacts, tmp_path):
    _, data, _ = artifacts["perceptron"]
    path = tmp_path / "a.rw"
    size = struct.pack("<Q", len(members(data)["program.ir"]))
    for absurd in (0, 1, 2**40, 2**64 - 1):
        refused(path, data.replace(size, struct.pack("<Q", absurd)), "damaged")
    end = data.rindex(b"PK\6\6")
    for offset in range(24, 56, 8):
        for absurd in (0, 1, 2**40, 2**64 - 1):
            start = end + offset
            refused(path, data[:start] + struct.pack("<Q", absurd) + data[start + 8 :], "damaged")


MANIFESTS = {
    "no JSON": (b"{", "manifest can't be read"),
    "no object": (b"[1]", "does not have the fields"),
    "deep": (b"[" * 100_000, "manifest can't be read"),
    "long number": (b'{"format": ' + b"9" * 100_000 + b"}", "manifest can't be read"),
    "a key twice": (b'{"format": 1, "format": 1}', "a key stands twice"),
    "no number": (b'{"format": NaN}', "manifest can't be read"),
    "not ASCII": ('{"é": 1}'.encode(), "manifest can't be read"),
}


@pytest.mark.parametrize(("text", "match"), MANIFESTS.values(), ids=MANIFESTS.keys())
def test_manifests_that_are_none(artifacts, tmp_path, text, match):
    _, data, _ = artifacts["perceptron"]
    refused(tmp_path / "a.rw", sealed({**members(data), MANIFEST: text}, text), match)


def put(place, value):
    """An edit of a manifest: `value` at `place`."""

    def edit(manifest):
        for key in place[:-1]:
            manifest = manifest[key]
        manifest[place[-1]] = value

    return edit


EDITS = {
    "an unknown setting": (("settings", "magic"), 1, "no setting 'magic'"),
    "an input twice": (("signature", "arguments", 0, "input"), 1, "not the inputs"),
    "a class that is a module": (("signature", "out"), {"tree": {"class": "os.system"}}, "damaged"),
    "a huge run": (("constants", "runs", "weights", 0, 2), [2**62, 2**62], "does not hold what"),
    "a negative run": (("constants", "runs", "weights", 0, 2), [-1], "damaged"),
    "a huge name": (("constants", "runs", "weights", 0, 0), "x" * 10**6, "does not hold what"),
    "another dtype": (("constants", "runs", "weights", 0, 1), "F64", "does not hold what"),
    "an unknown dtype": (("constants", "runs", "weights", 0, 1), "F7", "damaged"),
    "out of its run": (("constants", "places", "0.weight", 2), 64, "lie within"),
    "before its run": (("constants", "places", "0.weight", 2), -64, "lie within"),
    "askew": (("constants", "places", "0.weight", 2), 1, "lie within"),
    "huge strides": (("constants", "places", "0.weight", 3), [2**62, 1], "lie within"),
    "negative strides": (("constants", "places", "0.weight", 3), [-8, 1], "negative"),
    "no such run": (("constants", "places", "0.weight", 1), 99, "damaged"),
    "run -1": (("constants", "places", "0.weight", 1), -1, "lies nowhere"),
    "no such file": (("constants", "places", "0.weight", 0), "../x", "stored nowhere"),
    "no such constant": (("constants", "places", "evil"), ["weights", 0, 0, [1]], "no constant"),
    "constants missing": (("constants", "places"), {}, "is missing"),
    "left out": (("left_out",), ["0.weight"], "constants are left out"),
    "an engine": (("engines",), [{"segment": "x", "member": "program.ir"}], "damaged"),
    "a partition": (("reports", "partition"), {"knots": 1}, "damaged"),
}


@pytest.mark.parametrize(("place", "value", "match"), EDITS.values(), ids=EDITS.keys())
def test_manifests_that_lie(artifacts, tmp_path, place, value, match):
    from rewright.errors import SettingsError

    _, data, _ = artifacts["perceptron"]
    lying = changed(data, put(place, value))
    if place[0] == "settings":
        with pytest.raises(SettingsError, match=match):
            load(tmp_path / "a.rw", lying)
    else:
        refused(tmp_path / "a.rw", lying, match)


def test_nothing_is_imported_because_a_file_names_it(artifacts, tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    _, data, _ = artifacts["perceptron"]
    folder = tmp_path / "files"
    folder.mkdir()
    tree = {"class": "evil_module.Thing", "context": None, "children": [None], "fields": ["x"]}
    for place, whole in (
        ("out", {**tree, "absent": []}),
        ("out", {**tree, "class": "namedtuple", "context": "evil_module.Thing"}),
        ("out", {**tree, "class": "transformers.models.evil_module.Thing", "absent": []}),
        ("in", {"class": "builtins.tuple", "context": None, "children": [
            {"class": "builtins.tuple", "context": None, "children": [{**tree, "absent": []}]},
            {"class": "builtins.dict", "context": [], "children": []},
        ]}),
    ):  # fmt: skip
        lying = changed(data, put(("signature", place), {"tree": whole}))
        if place == "in":
            refused(folder / "a.rw", lying, "which this process|does not have")
        else:
            load(folder / "a.rw", lying)


CODE = "__import__('pathlib').Path('OWNED').touch()"

TEXTS = {
    "a graph's name": ("graph @main(", f'graph @"x\\r\\n{CODE}\\n"('),
    "a line's file": ("# (0)", f'# "\\n{CODE}\\n":3 (0)'),
    "a line's module": ("(0)", f'("\\r{CODE}\\n#")'),
}


@pytest.mark.parametrize(("old", "new"), TEXTS.values(), ids=TEXTS.keys())
def test_no_text_becomes_code(tmp_path, monkeypatch, old, new):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "files"
    folder.mkdir()
    CASES["perceptron"].compile().save(folder / "a.rw")
    data = (folder / "a.rw").read_bytes()
    text = members(data)["program.ir"].decode()
    assert old in text
    try:
        loaded = load(folder / "a.rw", changed(data, program__ir=text.replace(old, new).encode()))
    except RewrightError:
        pass
    else:
        loaded(*CASES["perceptron"].args())
    assert not (tmp_path / "OWNED").exists()


IRS = {
    "nothing": (b"", "damaged|can't be loaded"),
    "no text": (b"\xff\xfe", "damaged"),
    "brackets": (b"graph @main(" + b"(" * 100_000, "can't be loaded"),
    "deep attributes": (b"graph @m() -> none {\n%x = aten.relu(" + b"[" * 50_000, "damaged"),
    "a deep size": (b"graph @m(%x: f32[" + b"(" * 50_000, "damaged"),
    "a long number": (b"graph @m(%x: f32[" + b"9" * 100_000 + b"]) -> none {", "damaged"),
    "a power": (b"graph @m(%x: f32[9**9**9**9]) -> none {", "no size is such a power"),
    "a power of a size": (b"graph @m(%x: f32[(s0 + s1)**999999]) -> none {", "such a power"),
    "a file": (
        b'graph @main() -> f32[4] {\n  %x = aten.from_file("/etc/passwd", size=4) : f32[4]\n'
        b"  return %x\n}\n",
        "calls aten.from_file",
    ),
    "another library": (
        b'graph @main() -> u8[4] {\n  %x = profiler._record_function_enter("x") : u8[4]\n'
        b"  return %x\n}\n",
        "profiler._record_function_enter",
    ),
}


@pytest.mark.parametrize(("text", "match"), IRS.values(), ids=IRS.keys())
def test_graphs_that_are_none(artifacts, tmp_path, text, match):
    _, data, _ = artifacts["perceptron"]
    refused(tmp_path / "a.rw", changed(data, program__ir=text), match)


# --------------------------------------------------------------------------- at random


def flip(data, rng, _):
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8, 64))):
        made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)
    return bytes(made)


def flip_at_the_end(data, rng, _):
    made = bytearray(data)
    made[-1 - rng.randrange(min(900, len(made)))] ^= 1 << rng.randrange(8)
    return bytes(made)


def truncate(data, rng, _):
    return data[: rng.randrange(len(data))]


def cut(data, rng, _):
    start, size = rng.randrange(len(data)), rng.choice((1, 8, 64, 1000))
    return data[:start] + data[start + size :]


def repeat(data, rng, _):
    start, size = rng.randrange(len(data)), rng.choice((1, 8, 64, 1000))
    return data[: start + size] + data[start:]


def blank(data, rng, _):
    start, size = rng.randrange(len(data)), rng.choice((8, 64, 1000))
    size = min(size, len(data) - start)
    return data[:start] + bytes(size) + data[start + size :]


def splice(data, rng, other):
    at = rng.randrange(min(len(data), len(other)))
    return data[:at] + other[at:]


def swap(data, rng, other):
    """Members of one artifact in another, under the old manifest: its checksums know."""
    mine, theirs = members(data), members(other)
    name = rng.choice([name for name in mine if name != MANIFEST])
    mine[name] = theirs[name] if rng.random() < 0.7 else mine[rng.choice([*mine])]
    return sealed(mine, mine[MANIFEST])


def exchange(data, rng, _):
    """Two members that changed places."""
    mine = members(data)
    a, b = rng.sample([*mine], 2)
    order = [{a: b, b: a}.get(name, name) for name in mine]
    return sealed({name: mine[name] for name in order}, mine[MANIFEST])


RAW = (flip, flip, flip_at_the_end, truncate, cut, repeat, blank, splice, swap, exchange)


@pytest.mark.parametrize(
    "count", [150, pytest.param(5000, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_a_mutated_file_is_refused_or_computes_the_same(artifacts, tmp_path, count):
    rng = random.Random(count)
    path, refusals = tmp_path / "a.rw", 0
    for number in range(count):
        name = SEEDS[number % len(SEEDS)]
        case, data, expected = artifacts[name]
        mutate = RAW[number % len(RAW)]
        mutated = mutate(data, rng, artifacts[rng.choice(SEEDS)][1])
        try:
            loaded = load(path, mutated)
        except ArtifactError:
            refusals += 1
            continue
        assert_equal(leaves(loaded(*case.args(), **case.kwargs())), expected)
    assert refusals > count // 2


TOKENS = (
    *("0", "1", "-1", "2**63", "s0", "s9", "%x", "@0.weight", "None", "nan", "f32[2]", "[]", "()"),
    *("aten.relu", "aten.mm", "rw.linear", "}", "{", "return", "prepare", '"\\n"', "cuda:0", "->"),
)


def edit_text(parts, rng):
    text = parts["program.ir"].decode()
    words = text.split(" ")
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(words))
        words[at] = rng.choice((*TOKENS, "", words[rng.randrange(len(words))]))
    return {**parts, "program.ir": " ".join(words).encode()}


def edit_lines(parts, rng):
    lines = parts["program.ir"].decode().splitlines(keepends=True)
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[a], lines[b] = lines[b], rng.choice((lines[a], "", lines[a] * 2))
    return {**parts, "program.ir": "".join(lines).encode()}


VALUES = (None, True, 0, -1, 1, 2**70, 0.5, "", "x", "builtins.list", [], [1], {}, {"tuple": [1]})


def places(value, at=()):
    """The paths to all values in JSON."""
    yield at
    if isinstance(value, list):
        value = dict(enumerate(value))
    for key, item in value.items() if isinstance(value, dict) else ():
        yield from places(item, (*at, key))


def edit_manifest(parts, rng):
    manifest = json.loads(parts[MANIFEST])
    for _ in range(rng.choice((1, 1, 2))):
        found = [place for place in places(manifest) if place]
        *above, last = rng.choice(found)
        holder = manifest
        for key in above:
            holder = holder[key]
        if rng.random() < 0.2:
            del holder[last]
        else:
            holder[last] = rng.choice(VALUES)
    return {**parts, MANIFEST: dumps(manifest)}


def edit_weights(parts, rng):
    name = rng.choice([name for name in parts if name.endswith(".safetensors")])
    data = bytearray(parts[name])
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return {**parts, name: bytes(data)}


SEALED = (edit_text, edit_text, edit_lines, edit_manifest, edit_manifest, edit_weights)


@pytest.mark.parametrize(
    "count", [150, pytest.param(5000, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_a_forged_file_is_refused_with_an_error_of_ours_or_loads(artifacts, tmp_path, count):
    """Its checksums are right, so it may hold another program; it is not called."""
    rng = random.Random(count)
    path, refusals = tmp_path / "a.rw", 0
    for number in range(count):
        _, data, _ = artifacts[SEEDS[number % len(SEEDS)]]
        forged = sealed(SEALED[number % len(SEALED)](members(data), rng))
        try:
            load(path, forged)
        except RewrightError:
            refusals += 1
    assert refusals > count // 4
    assert [*tmp_path.iterdir()] == [path]


def test_torch_is_as_it_was():
    """Nothing that files said has changed torch's own state."""
    assert torch.get_default_dtype() is torch.float32
    assert torch.get_default_device() == torch.device("cpu")

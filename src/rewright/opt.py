"""``rewright opt``: run passes on the text of a graph, and look into them."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rewright.errors import InputError, SettingsError, did_you_mean
from rewright.settings import Settings

if TYPE_CHECKING:
    from rewright.ir.graph import Graph
    from rewright.passes.instruments.protocol import Instrument
    from rewright.passes.instruments.samples import Samples
    from rewright.passes.manager import Pass, Pipeline
    from rewright.passes.partition.backend import SegmentBackend

__all__ = ["main"]


def parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    made = argparse.ArgumentParser(
        prog="rewright opt",
        description="Run passes on the text of a graph, print what becomes of it, and look into "
        "the passes on the way.",
        epilog="example: rewright opt dump/003-fuse.before.ir --passes fuse. "
        "Weights are read from NAME.safetensors or weights.safetensors beside the file, "
        "inputs from NAME.samples.safetensors or samples.safetensors.",
    )
    add = made.add_argument
    add("file", metavar="FILE.ir", help="the graph; - reads standard input")
    add(
        "--passes",
        metavar="PIPELINE",
        default="",
        help="the passes, in order: 'cse,repeat{max=4}(fold,dce)'; 'default' stands for those "
        "of a compile",
    )
    add("-o", "--output", metavar="FILE", type=Path, help="write the graph there, not to stdout")
    add(
        "--only",
        metavar="RULE",
        action="append",
        default=[],
        help="apply only this rule, in the passes that have it; may be given several times",
    )
    add(
        "--load",
        metavar="FILE.py",
        action="append",
        default=[],
        type=Path,
        help="run this file first: it registers passes of your own",
    )
    add(
        "--exactness",
        choices=["exact", "refold", "fast-math"],
        default="refold",
        help="what rules may do to numbers (default: refold)",
    )
    add(
        "--target",
        metavar="TARGET",
        default="auto",
        help="what the graph is compiled for: rtx, rtx:8.9, tensorrt. Makes the backends known "
        "that partition{backends=[tensorrt]} names, and prints what it did to stderr",
    )
    add("--verify-each", action="store_true", help="verify the graph after each pass")
    add("--timing", action="store_true", help="print where the time went, to stderr")
    add(
        "--dump",
        metavar="WHAT[:DIR]",
        help="show the graph around passes: all, changed, or names, cse,fuse; to stderr, or as "
        "numbered files in DIR",
    )
    add("--numerics", action="store_true", help="name the first rewrite that moves the numbers")
    add(
        "--tolerance",
        metavar="ERROR",
        type=float,
        help="how far numbers may move, as a part of the largest (default: by dtype)",
    )
    add("--samples", metavar="FILE", type=Path, help="inputs to run the graph on")
    add("--bisect-limit", metavar="N[.M]", help="run N passes, and M rewrites of the last of them")
    add(
        "--explain",
        metavar="RULE",
        help="say why a rule does not fire: after each pass that has it, or on the graph as it is",
    )
    add(
        "--reproducer",
        metavar="DIR",
        type=Path,
        help="where a failing pass leaves what it was given (default: a temporary folder)",
    )
    return made


def main(argv: Sequence[str]) -> int:
    """``rewright opt``; returns the exit status."""
    options = parser().parse_args(argv)
    from rewright.passes.compiling import exactness_called

    for path in options.load:
        _load_plugin(path)
    graph = _read(options.file)
    backends = _backends(options.target)
    run = _pipeline(options, bool(backends)).run(
        graph,
        instruments=_instruments(options, graph),
        exactness=exactness_called(options.exactness),
        backends=backends,
    )
    if "partition" in run.reports:
        print(run.reports["partition"], file=sys.stderr)
    _write(graph, options.output)
    return 0


# --------------------------------------------------------------------------- in and out


def _read(name: str) -> "Graph":
    from rewright.ir.files import load_graph
    from rewright.ir.parser import parse_graph

    if name == "-":
        return parse_graph(sys.stdin.read(), filename="<stdin>")
    try:
        return load_graph(name)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the graph can't be read: {error}", where=name) from None


def _write(graph: "Graph", path: Path | None) -> None:
    if path is None:
        print(graph)
        return
    try:
        path.write_text(f"{graph}\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"the graph can't be written: {error}", where=path) from None


def _load_plugin(path: Path) -> None:
    """Runs a Python file, so that what it registers is known."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(f"rewright_plugin_{path.stem}", path)
    if spec is None or spec.loader is None or not path.exists():
        raise InputError(f"{path} is no Python file that can be loaded", where=path)
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)


# --------------------------------------------------------------------------- what runs


def _backends(target: str) -> "Mapping[str, SegmentBackend]":
    """The backends of a target, by name.

    Raises:
        SettingsError: there is no such target.
        EngineError: its library can't be used.
    """
    from rewright.targets import target_of

    return target_of(Settings(target=target)).backends


def _pipeline(options: argparse.Namespace, has_engines: bool) -> "Pipeline":
    from rewright.passes.manager import Pipeline
    from rewright.passes.pipelines import default_pipeline
    from rewright.passes.registry import DEFAULT

    ours = default_pipeline("tensorrt") if has_engines else default_pipeline()
    pipeline = Pipeline.parse(options.passes, {DEFAULT: ours})
    return _only(pipeline, options.only) if options.only else pipeline


def _only(pipeline: "Pipeline", names: Sequence[str]) -> "Pipeline":
    """The pipeline with no rules but `names` in the passes that have some of them.

    Raises:
        SettingsError: no pass has a rule of such a name.
    """
    import attrs

    from rewright.passes.rule_pass import RulePass

    known = {rule.name for step in pipeline.passes() for rule in step.all_rules()}
    for name in names:
        if name not in known:
            raise SettingsError(
                f"no pass of the pipeline has a rule {name!r}",
                setting="only",
                hint=did_you_mean(name, known) if known else "none of these passes has rules",
            )

    def narrow(step: "Pass") -> "Pass":
        own = {rule.name for rule in step.all_rules()}.intersection(names)
        if not own or not isinstance(step, RulePass):
            return step
        return attrs.evolve(step, only=tuple(sorted(own)))

    return pipeline.map(narrow)


def _instruments(options: argparse.Namespace, graph: "Graph") -> "list[Instrument]":
    """What the arguments and the environment ask for."""
    import attrs

    from rewright.passes.compiling import Watch
    from rewright.passes.instruments.bisect import Bisect, Limit
    from rewright.passes.instruments.explain import Explain

    settings = Settings(
        target=options.target,
        dump_ir=options.dump,
        verify_each=options.verify_each,
        timing=options.timing,
        numerics=options.tolerance if options.tolerance is not None else options.numerics,
        reproducer=options.reproducer,
    )
    watch = attrs.evolve(Watch.of(settings, os.environ), reproduce=True)
    if options.bisect_limit is not None:
        limit = Limit.parse(options.bisect_limit, source="--bisect-limit")
        watch = attrs.evolve(watch, bisect=Bisect(limit))
    instruments = watch.instruments(graph, _samples(options, graph))
    return [*instruments, Explain(options.explain)] if options.explain else instruments


def _samples(options: argparse.Namespace, graph: "Graph") -> "Samples | None":
    from rewright.passes.instruments.samples import find_samples, load_samples

    if options.samples is not None:
        return load_samples(options.samples, graph)
    return None if options.file == "-" else find_samples(options.file, graph)

"""``rewright passes``: every pass and rule, what it does in a line, and where it is declared."""

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rewright.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from rewright.passes.manager import Pass

__all__ = ["main"]


def parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    made = argparse.ArgumentParser(
        prog="rewright passes",
        description="List the passes, with their options and rules, and where they are declared.",
        epilog="example: rewright passes fuse",
    )
    made.add_argument("names", metavar="PASS", nargs="*", help="only these (default: all)")
    return made


def main(argv: Sequence[str]) -> int:
    """``rewright passes``; returns the exit status."""
    options = parser().parse_args(argv)
    from rewright.passes.registry import all_passes

    known = all_passes()
    for name in options.names:
        if name not in known:
            raise InputError(f"there is no pass {name!r}", hint=did_you_mean(name, known))
    for name in options.names or known:
        print("\n".join(describe(known[name])))
    return 0


def describe(cls: "type[Pass]") -> Iterator[str]:
    """The lines about one pass."""
    import attrs

    from rewright.passes.pipeline_text import describe_type, option_types
    from rewright.passes.registry import location_of

    yield f"{cls.name}    {location_of(cls)}"
    yield f"    {cls.summary()}"
    fields = attrs.fields_dict(cls)
    for name, kind in option_types(cls).items():
        default = fields[name].default
        value = "" if default is attrs.NOTHING else f" = {default!r}"
        yield f"    {{{name}{value}}}    {describe_type(kind)}"
    for rule in cls.all_rules():
        exactness = rule.exactness.name.lower().replace("_", "-")
        yield f"    - {rule.name}    {exactness}    {rule.location}"
        yield f"        {rule.equation()}"
    yield ""

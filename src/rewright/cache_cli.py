"""``rewright cache``: list and remove what is kept of earlier compiles."""

import argparse
import json
import time
from collections.abc import Sequence

import attrs

from rewright.errors import ArtifactError
from rewright.store import Info, Store, default_store, format_size

__all__ = ["main"]

_SHOWN = 12
"""So many digits of a key are shown; any that tell it apart will do to name it."""


def main(argv: Sequence[str]) -> int:
    """``rewright cache``; returns the exit status."""
    options = parser().parse_args(argv)
    status: int = options.run(default_store(), options)
    return status


def parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    made = argparse.ArgumentParser(
        prog="rewright cache",
        description="List and remove what is kept of earlier compiles: built engines. Without "
        "a command, list it.",
        epilog="example: rewright cache rm --all. REWRIGHT_CACHE_DIR names the folder, "
        "REWRIGHT_CACHE_SIZE the limit (10G by default, 0: nothing is kept).",
    )
    made.set_defaults(run=_ls, usage=made, json=False)
    commands = made.add_subparsers(metavar="COMMAND")
    ls = commands.add_parser("ls", help="list the entries, the one used last first")
    rm = commands.add_parser("rm", help="remove entries")
    rm.add_argument("keys", metavar="KEY", nargs="*", help="the first digits of a key")
    rm.add_argument("--all", action="store_true", help="remove everything")
    size = commands.add_parser("size", help="say how much is kept, where, and the limit")
    for command, run in ((ls, _ls), (rm, _rm), (size, _size)):
        command.add_argument("--json", action="store_true", help="write JSON")
        command.set_defaults(run=run, usage=command)
    return made


def _ls(store: Store, options: argparse.Namespace) -> int:
    found = store.entries()
    if options.json:
        print(json.dumps([attrs.asdict(info) for info in found], indent=2))
        return 0
    if not found:
        print(f"nothing is kept in {store.folder}")
        return 0
    print(f"{'key':{_SHOWN}}  {'size':>10}  {'last used':16}  what")
    for info in found:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(info.used))
        print(f"{info.key[:_SHOWN]}  {format_size(info.size):>10}  {used}  {_describe(info)}")
    return 0


def _describe(info: Info) -> str:
    if info.fault:
        return f"damaged: {info.fault}"
    return str(info.metadata.get("about", ""))


def _rm(store: Store, options: argparse.Namespace) -> int:
    if options.all == bool(options.keys):
        options.usage.error("name the keys to remove, or give --all")
    found = store.entries()
    named = found if options.all else [_named(prefix, found, store) for prefix in options.keys]
    doomed = {info.key: info.size for info in named}
    store.remove(doomed)
    if options.all:
        store.sweep()
    freed = sum(doomed.values())
    if options.json:
        print(json.dumps({"removed": [*doomed], "bytes": freed}, indent=2))
    else:
        print(f"removed {_count(len(doomed))}: {format_size(freed)}")
    return 0


def _named(prefix: str, found: Sequence[Info], store: Store) -> Info:
    """The entry whose key starts with `prefix`.

    Raises:
        ArtifactError: there is none, or there are several.
    """
    matching = [info for info in found if prefix and info.key.startswith(prefix.lower())]
    if len(matching) == 1:
        return matching[0]
    if not matching:
        raise ArtifactError(
            f"no entry has the key {prefix!r}",
            path=store.folder,
            hint="`rewright cache ls` lists the keys",
        )
    keys = ", ".join(info.key[: max(_SHOWN, len(prefix) + 1)] for info in matching[:8])
    raise ArtifactError(f"{len(matching)} keys start with {prefix!r}", hint=f"one of {keys}")


def _size(store: Store, options: argparse.Namespace) -> int:
    count, size = len(store.entries()), store.size()
    if options.json:
        facts = {"folder": str(store.folder), "entries": count, "bytes": size}
        print(json.dumps({**facts, "limit": store.limit}, indent=2))
    else:
        limit = f"of at most {format_size(store.limit)}" if store.limit else "and the cache is off"
        print(f"{store.folder}: {_count(count)}, {format_size(size)} {limit}")
    return 0


def _count(number: int) -> str:
    return "1 entry" if number == 1 else f"{number} entries"

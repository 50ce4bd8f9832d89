"""``rewright view``: writes the page, or serves it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewright.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["main", "parser"]


def parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    made = argparse.ArgumentParser(
        prog="rewright view",
        description="Make one HTML page of what the passes did: their diffs, the graph drawn, the "
        "partition with its reasons. The page needs no network and no server.",
        epilog="example: REWRIGHT_DUMP=changed:dump python model.py && rewright view dump",
    )
    made.add_argument(
        "path", metavar="PATH", type=Path, help="the folder of a dump, FILE.ir, or a saved program"
    )
    where = made.add_mutually_exclusive_group()
    where.add_argument(
        "--out", "-o", metavar="PAGE.html", type=Path,
        help="where to write the page (default: index.html in the folder, or beside the file)",
    )  # fmt: skip
    where.add_argument(
        "--port", metavar="N", type=int, help="serve the page on this machine only (0: a free port)"
    )
    made.add_argument("--open", action="store_true", help="open the page in a browser")
    return made


def main(argv: Sequence[str]) -> int:
    """``rewright view``; returns the exit status."""
    options = parser().parse_args(argv)
    from rewright.viewer.data import collect
    from rewright.viewer.page_html import page

    if options.port is not None:
        return _serve(lambda: page(collect(options.path)), options.port, options.open)
    text = page(collect(options.path))
    target = options.out or _beside(options.path)
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"the page can't be written: {error}", where=target) from None
    sys.stdout.write(f"{target}\n")
    if options.open:
        _open(target.resolve().as_uri())
    return 0


def _beside(path: Path) -> Path:
    return path / "index.html" if path.is_dir() else path.with_name(f"{path.name}.html")


def _open(address: str) -> None:
    import webbrowser

    webbrowser.open(address)


def _serve(make: Callable[[], str], port: int, is_opened: bool) -> int:
    """Serves the page until interrupted; made for each request, so that a reload is up to date."""
    make()  # what is wrong with the path is said before anything is served
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), _handler(make))
    except (OSError, OverflowError) as error:
        raise InputError(
            f"port {port} can't be served: {error}",
            where="--port",
            hint="--port 0 takes a free one",
        ) from None
    with server:
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        sys.stdout.write(f"{address}  (Ctrl-C ends it)\n")
        sys.stdout.flush()
        if is_opened:
            _open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            sys.stdout.write("\n")
    return 0


def _handler(make: Callable[[], str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/":
                self.send_error(404)
                return
            body = make().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Requests are not worth a line."""

    return Handler

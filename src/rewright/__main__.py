"""``python -m rewright`` is the command ``rewright``."""

from rewright.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

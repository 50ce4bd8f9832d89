"""What a program is: graphs of pure values, their types, sizes, ops and text."""

if __name__ != "rewright.ir":
    raise ImportError("import rewright.ir, not ir")

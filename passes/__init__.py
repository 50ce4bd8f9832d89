"""What may be done to a program: rules, the passes that apply them and the pass manager."""

if __name__ != "rewright.passes":
    raise ImportError("import rewright.passes, not passes")

"""What programs become: TensorRT engines, or code that Torch runs."""

if __name__ != "rewright.backends":
    raise ImportError("import rewright.backends, not backends")

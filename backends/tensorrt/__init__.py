"""TensorRT: networks, engines, and what can be given to them.

One code path serves `tensorrt_rtx` and `tensorrt`; nothing here imports either before it is
needed (:mod:`rewright.backends.tensorrt.library`).
"""

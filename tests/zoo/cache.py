"""A decoder whose key-value cache lives in buffers, for in-place updates between calls."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class StaticCache(nn.Module):
    """A `transformers` decoder with a key-value cache of 16 tokens for a batch of 2.

    The library's own wrapper holds each cache tensor twice, as a buffer and in a cache object
    that `Module.to` misses; here both follow.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        exporting = importlib.import_module("transformers.integrations.executorch")
        model.generation_config.use_cache = True
        model.generation_config.cache_implementation = "static"
        self.decoder = exporting.TorchExportableModuleWithStaticCache(
            model, batch_size=2, max_cache_len=16
        )

    def forward(self, input_ids: Tensor, cache_position: Tensor) -> Tensor:
        """Logits [2, step, vocabulary] of the tokens at these positions; writes the cache."""
        logits: Tensor = self.decoder(input_ids=input_ids, cache_position=cache_position)
        return logits

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> StaticCache:
        buffers = self.decoder._buffers
        layers = self.decoder.static_cache.layers
        names = {id(tensor): name for name, tensor in buffers.items()}
        links = [
            (layer, attribute, names[id(value)])
            for layer in layers
            for attribute, value in vars(layer).items()
            if id(value) in names
        ]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for layer, attribute, name in links:
            setattr(layer, attribute, buffers[name])
        return self

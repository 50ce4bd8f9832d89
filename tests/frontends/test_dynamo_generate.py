"""``generate()`` of a small Llama with transformers' static cache."""

import copy
from typing import Any

import pytest
import torch

from tests.frontends.jit import compiles, jit, same


@pytest.fixture
def model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def generate(model: Any, prompt: torch.Tensor, **keywords: Any) -> torch.Tensor:
    return model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=8,
        do_sample=False,
        **keywords,
    )


PROMPT = torch.arange(2, 12).reshape(2, 5)


def test_generate_with_a_static_cache(model: Any):
    expected = generate(model, PROMPT, cache_implementation="static")
    compiled = copy.deepcopy(model)
    compiled.forward = jit(compiled.forward)
    with compiles():
        found = generate(compiled, PROMPT, cache_implementation="static", disable_compile=True)
    assert torch.equal(found, expected)
    assert found.shape == (2, 13)


def test_transformers_own_compile_config(model: Any):
    from transformers import CompileConfig

    config = CompileConfig(
        backend="rewright", mode=None, fullgraph=True, options={"on_error": "raise"}
    )
    config._compile_all_devices = True  # transformers leaves the CPU alone by default
    expected = generate(model, PROMPT, cache_implementation="static", disable_compile=True)
    with compiles():
        found = generate(model, PROMPT, cache_implementation="static", compile_config=config)
    assert torch.equal(found, expected)


def test_decode_steps_write_the_cache_in_place(model: Any):
    def run(forward: Any) -> tuple[list[torch.Tensor], Any]:
        from transformers import StaticCache

        cache = StaticCache(config=model.config, max_cache_len=16)
        tokens = PROMPT
        position = torch.arange(5)
        logits = []
        with torch.no_grad():
            for step in range(4):
                out = forward(
                    input_ids=tokens,
                    past_key_values=cache,
                    position_ids=position[None].expand(2, -1),
                    use_cache=True,
                )
                logits.append(out.logits[:, -1])
                tokens = out.logits[:, -1:].argmax(-1)
                position = torch.tensor([5 + step])
                pointers.append([layer.keys.data_ptr() for layer in cache.layers])
        return logits, cache

    pointers: list[list[int]] = []
    expected, eager_cache = run(model)
    pointers.clear()
    with compiles():
        found, cache = run(jit(model))
    same(found, expected)
    for mine, theirs in zip(cache.layers, eager_cache.layers, strict=True):
        same((mine.keys, mine.values), (theirs.keys, theirs.values))
    assert pointers[1] == pointers[0] == pointers[-1], "the cache was written, not replaced"

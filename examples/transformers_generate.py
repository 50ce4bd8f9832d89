"""transformers: model.generate() with the decoder compiled, token by token the same text.

A small Llama with random weights, so that nothing is downloaded; a real one is compiled the same
way. Run it: python examples/transformers_generate.py
"""

import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: TID253 - what it is about

import rewright


def main() -> None:
    """Generates eagerly and compiled, and compares tokens and times."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
        bos_token_id=1, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    prompt = torch.tensor([[*b"To be, or not to be"]])
    asked = {
        "max_new_tokens": 24, "do_sample": False, "attention_mask": torch.ones_like(prompt),
        "cache_implementation": "static", "disable_compile": True,
    }  # fmt: skip

    start = time.perf_counter()
    expected = model.generate(prompt, **asked)
    print(f"eager:     {time.perf_counter() - start:.2f} s")

    model.forward = torch.compile(
        model.forward, backend="rewright", options={"on_error": "raise"}, dynamic=True
    )
    for time_of in ("compiling", "compiled"):
        start = time.perf_counter()
        found = model.generate(prompt, **asked)
        print(f"{time_of + ':':10} {time.perf_counter() - start:.2f} s")
    counted = rewright.stats()
    print(f"{counted.graphs} graphs of {counted.nodes} nodes, {counted.fallbacks} fell back")
    print(f"tokens:    {found[0, prompt.shape[1] :].tolist()}")
    same = int((found == expected).sum())
    print(f"{same} of {expected.numel()} tokens are those of eager")
    assert same == expected.numel()


if __name__ == "__main__":
    main()

"""Language models: encoders, decoders, mixtures of experts, state spaces, encoder-decoders."""

from __future__ import annotations

from typing import Any

from .cache import StaticCache
from .entry import (
    BOTH,
    EAGER,
    Args,
    Attention,
    Axis,
    Entry,
    Kind,
    Settings,
    Transformers,
    counting,
    ids,
    mask,
)

BATCH = Axis("batch", at=2, other=3, high=8)
SEQ = Axis("seq", at=12, other=9, low=4, high=32)
CHUNKS = Axis("seq", at=24, other=32, low=16, high=48, step=8)
TARGET = Axis("target", at=6, other=10, low=2, high=32)
STEP = Axis("step", at=5, other=3, low=2, high=16)

TOKENS: Args = {"input_ids": ids(BATCH, SEQ)}
PADDED: Args = {**TOKENS, "attention_mask": mask(BATCH, SEQ)}
PAIRED: Args = {**PADDED, "token_type_ids": ids(BATCH, SEQ, low=0, high=2)}
TRANSLATED: Args = {**PADDED, "decoder_input_ids": ids(BATCH, TARGET)}

TOKENIZER: Settings = dict(vocab_size=99, pad_token_id=0, bos_token_id=1, eos_token_id=2)
SMALL: Settings = TOKENIZER | dict(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=64,
)
DECODER: Settings = SMALL | dict(use_cache=False)
GROUPED: Settings = DECODER | dict(num_key_value_heads=2)  # grouped-query attention
GPT: Settings = TOKENIZER | dict(n_embd=32, n_layer=2, n_head=4, n_positions=64, use_cache=False)
STATES: Settings = TOKENIZER | dict(hidden_size=32, use_cache=False)
SEQ2SEQ: Settings = TOKENIZER | dict(
    d_model=32,
    encoder_layers=2,
    decoder_layers=2,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    encoder_ffn_dim=64,
    decoder_ffn_dim=64,
    max_position_embeddings=64,
    decoder_start_token_id=2,
    forced_eos_token_id=2,
    use_cache=False,
)


def text(
    name: str,
    kind: Kind,
    model: str,
    config: str,
    settings: Settings,
    args: Args = PADDED,
    attentions: tuple[Attention, ...] = BOTH,
    **facts: Any,
) -> Entry:
    """An entry from `transformers`; `facts` are further fields of `Entry`."""
    return Entry(name, kind, Transformers(model, config, settings, attentions), args, **facts)


ENCODERS = (
    text("bert", "encoder", "BertModel", "BertConfig", SMALL, PAIRED, quick=True),
    text("roberta", "encoder", "RobertaForSequenceClassification", "RobertaConfig", SMALL),
    text(
        "distilbert",
        "encoder",
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        TOKENIZER | dict(dim=32, n_layers=2, n_heads=4, hidden_dim=64),
    ),
    text("albert", "encoder", "AlbertModel", "AlbertConfig", SMALL | dict(embedding_size=16)),
    text("electra", "encoder", "ElectraModel", "ElectraConfig", SMALL | dict(embedding_size=16)),
    text(
        "deberta_v2",
        "encoder",
        "DebertaV2Model",
        "DebertaV2Config",
        SMALL
        | dict(
            relative_attention=True,
            position_buckets=8,
            pos_att_type=["p2c", "c2p"],
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            conv_kernel_size=3,
            conv_act="gelu",
        ),
        attentions=EAGER,
        quick=True,
        notes="disentangled attention: gathers by relative position",
    ),
    text("mpnet", "encoder", "MPNetModel", "MPNetConfig", SMALL, attentions=EAGER),
    text(
        "modernbert",
        "encoder",
        "ModernBertForMaskedLM",
        "ModernBertConfig",
        SMALL
        | dict(cls_token_id=1, sep_token_id=2, global_attn_every_n_layers=2, local_attention=8),
        notes="local and global attention layers",
    ),
)

DECODERS = (
    text("gpt2", "decoder", "GPT2LMHeadModel", "GPT2Config", GPT, TOKENS, quick=True),
    text(
        "gptj",
        "decoder",
        "GPTJForCausalLM",
        "GPTJConfig",
        GPT | dict(rotary_dim=4),
        attentions=EAGER,
        notes="interleaved rotary embedding",
    ),
    text("llama", "decoder", "LlamaForCausalLM", "LlamaConfig", GROUPED, TOKENS, quick=True),
    Entry(
        "llama_cache",
        "decoder",
        Transformers(
            "LlamaForCausalLM", "LlamaConfig", GROUPED | dict(use_cache=True), wrap=StaticCache
        ),
        {"input_ids": ids(2, STEP), "cache_position": counting(STEP)},
        quick=True,
        notes="static key-value cache in mutated buffers",
    ),
    text(
        "mistral",
        "decoder",
        "MistralForCausalLM",
        "MistralConfig",
        GROUPED | dict(sliding_window=8),
        notes="sliding-window attention",
    ),
    text("qwen2", "decoder", "Qwen2ForCausalLM", "Qwen2Config", GROUPED),
    text("qwen3", "decoder", "Qwen3ForCausalLM", "Qwen3Config", GROUPED | dict(head_dim=8)),
    text(
        "gemma2",
        "decoder",
        "Gemma2ForCausalLM",
        "Gemma2Config",
        GROUPED | dict(head_dim=8, sliding_window=8, query_pre_attn_scalar=8),
        attentions=EAGER,
        quick=True,
        notes="soft-capped attention and logits",
    ),
    text(
        "gemma3",
        "decoder",
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        GROUPED
        | dict(
            head_dim=8,
            sliding_window=8,
            query_pre_attn_scalar=8,
            layer_types=["sliding_attention", "full_attention"],
        ),
        notes="sliding and full layers with their own rotary tables",
    ),
    text("phi", "decoder", "PhiForCausalLM", "PhiConfig", DECODER, TOKENS),
    text("phi3", "decoder", "Phi3ForCausalLM", "Phi3Config", GROUPED | dict(sliding_window=None)),
    text("olmo2", "decoder", "Olmo2ForCausalLM", "Olmo2Config", GROUPED),
    text(
        "opt",
        "decoder",
        "OPTForCausalLM",
        "OPTConfig",
        DECODER | dict(ffn_dim=64, word_embed_proj_dim=32),
    ),
    text("gpt_neox", "decoder", "GPTNeoXForCausalLM", "GPTNeoXConfig", DECODER, TOKENS),
    text(
        "bloom",
        "decoder",
        "BloomForCausalLM",
        "BloomConfig",
        TOKENIZER | dict(hidden_size=32, n_layer=2, n_head=4, use_cache=False),
        attentions=EAGER,
        notes="ALiBi position bias",
    ),
    text(
        "falcon",
        "decoder",
        "FalconForCausalLM",
        "FalconConfig",
        DECODER | dict(multi_query=True, parallel_attn=True, alibi=False),
        TOKENS,
        notes="one key-value head; attention beside the MLP",
    ),
)

EXPERTS = (
    text(
        "mixtral",
        "moe",
        "MixtralForCausalLM",
        "MixtralConfig",
        GROUPED
        | dict(num_local_experts=4, num_experts_per_tok=2, experts_implementation="batched_mm"),
        quick=True,
        seed=8,  # no token is so near two experts that bfloat16 routes it elsewhere
        notes="experts as batched matrix products",
    ),
    text(
        "qwen2_moe",
        "moe",
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        GROUPED
        | dict(
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=32,
        ),
        float64=False,
        seed=4,  # as above
        notes="the library's default experts: an opaque custom operator on CPU",
    ),
)

STATE_SPACES = (
    text(
        "mamba",
        "ssm",
        "MambaForCausalLM",
        "MambaConfig",
        STATES | dict(num_hidden_layers=2, state_size=4),
        TOKENS,
        attentions=(),
        upstream_failure=(
            "UserError: Constraints violated (seq)! For more information, run with "
            'TORCH_LOGS="+dynamic".'
        ),
        notes="a Python loop over the sequence, which fixes its length",
    ),
    text(
        "falcon_mamba",
        "ssm",
        "FalconMambaForCausalLM",
        "FalconMambaConfig",
        STATES | dict(num_hidden_layers=2, state_size=4),
        {"input_ids": ids(BATCH, 8)},
        attentions=(),
        quick=True,
        notes="a Python loop over the sequence, declared fixed",
    ),
    text(
        "mamba2",
        "ssm",
        "Mamba2ForCausalLM",
        "Mamba2Config",
        STATES
        | dict(
            num_hidden_layers=1,
            state_size=8,
            num_heads=8,
            head_dim=8,
            n_groups=2,
            chunk_size=8,
        ),
        {"input_ids": ids(BATCH, CHUNKS)},
        attentions=(),
        notes="whole chunks, two at least",
    ),
)

SEQ2SEQS = (
    text(
        "t5",
        "seq2seq",
        "T5ForConditionalGeneration",
        "T5Config",
        TOKENIZER
        | dict(
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            decoder_start_token_id=0,
            use_cache=False,
        ),
        TRANSLATED,
        quick=True,
        notes="relative position bias",
    ),
    text("bart", "seq2seq", "BartForConditionalGeneration", "BartConfig", SEQ2SEQ, TRANSLATED),
    text("marian", "seq2seq", "MarianMTModel", "MarianConfig", SEQ2SEQ, TRANSLATED),
    text(
        "pegasus",
        "seq2seq",
        "PegasusForConditionalGeneration",
        "PegasusConfig",
        SEQ2SEQ,
        TRANSLATED,
    ),
)

ENTRIES = ENCODERS + DECODERS + EXPERTS + STATE_SPACES + SEQ2SEQS

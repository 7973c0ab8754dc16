"""The six demonstration models: one author, one family, one kind of tokenizer each.

Configurations are written as the published models of the family write theirs.
"""

from dataclasses import dataclass

VOCABULARY = 2048
CONTEXT = 1024


@dataclass(frozen=True)
class Demo:
    name: str
    kind: str  # of tokenizer, see tokenizer_kinds.py
    end: str  # the token that ends a document
    stops: tuple  # tokens that end generation, the family's usual list
    heading: str  # regular expression: a line that begins a document
    steps: int
    prompt: str  # for samples and the golden record
    config: dict
    temperature: float = 0.7
    top_p: float = 0.9
    learning_rate: float = 4e-3
    weight_decay: float = 0.3
    embedding_range: float = 0.02  # standard deviation of the embedding at the start


AUSTEN = Demo(
    name="austen", kind="llama3", end="<|end_of_text|>", stops=("<|end_of_text|>", "<|eot_id|>"),
    heading=r"(?i:chapter \w+|volume [ivx]+)$", steps=650,
    prompt="Emma could not help thinking that Mr. Knightley",
    config=dict(
        architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=160, intermediate_size=480,
        num_hidden_layers=5, num_attention_heads=5, num_key_value_heads=1, head_dim=32, hidden_act="silu",
        attention_bias=False, mlp_bias=False, rms_norm_eps=1e-5, rope_theta=500000.0,
        rope_scaling={"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                      "original_max_position_embeddings": 256},
        tie_word_embeddings=True,
    ),
)

MELVILLE = Demo(
    name="melville", kind="qwen", end="<|endoftext|>", stops=("<|im_end|>", "<|endoftext|>"),
    heading=r"CHAPTER \d+$|EPILOGUE", steps=700,
    prompt="Ahab stood upon the quarter-deck, and",
    config=dict(
        architectures=["Qwen3ForCausalLM"], model_type="qwen3", hidden_size=160, intermediate_size=400,
        num_hidden_layers=5, num_attention_heads=8, num_key_value_heads=2, head_dim=32, hidden_act="silu",
        attention_bias=False, rms_norm_eps=1e-6, rope_theta=1000000.0, rope_scaling=None, use_sliding_window=False,
        sliding_window=None, max_window_layers=5, tie_word_embeddings=True,
    ),
)

WHITMAN = Demo(
    name="whitman", kind="qwen", end="<|endoftext|>", stops=("<|im_end|>", "<|endoftext|>"),
    heading=r"\}  .*|\[BOOK .*", steps=350, embedding_range=0.05,
    prompt="O the joy of",
    config=dict(
        architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", hidden_size=128, intermediate_size=384,
        moe_intermediate_size=96, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=1, head_dim=32,
        hidden_act="silu", attention_bias=False, num_experts=8, num_experts_per_tok=2, norm_topk_prob=True,
        decoder_sparse_step=1, mlp_only_layers=[], router_aux_loss_coef=0.01, rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}, use_sliding_window=False,
        sliding_window=None, tie_word_embeddings=True,
    ),
)

SHAKESPEARE = Demo(
    name="shakespeare", kind="gemma", end="<eos>", stops=("<eos>", "<end_of_turn>"),
    heading="", steps=450,
    prompt="KING RICHARD II:\n",
    config=dict(
        architectures=["Gemma3ForCausalLM"], model_type="gemma3_text", hidden_size=160, intermediate_size=352,
        num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=1, head_dim=32,
        hidden_activation="gelu_pytorch_tanh", attention_bias=False, query_pre_attn_scalar=40, rms_norm_eps=1e-6,
        rope_theta=1000000.0, rope_local_base_freq=10000.0, rope_scaling={"rope_type": "linear", "factor": 8.0},
        sliding_window=64, sliding_window_pattern=6, attn_logit_softcapping=None, final_logit_softcapping=None,
        tie_word_embeddings=True,
    ),
)

JOYCE = Demo(
    name="joyce", kind="o200k", end="<|endoftext|>", stops=("<|return|>", "<|endoftext|>", "<|call|>"),
    heading=r"-- [IVX]+ --", steps=600,
    prompt="Mr Bloom walked",
    config=dict(
        architectures=["GptOssForCausalLM"], model_type="gpt_oss", hidden_size=128, intermediate_size=88,
        num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=1, head_dim=32, hidden_act="silu",
        attention_bias=True, num_local_experts=8, num_experts_per_tok=2, experts_per_token=2,
        router_aux_loss_coef=0.01, rms_norm_eps=1e-5, rope_theta=150000, initial_context_length=256,
        rope_scaling={"rope_type": "yarn", "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
                      "original_max_position_embeddings": 256},
        sliding_window=128, layer_types=["sliding_attention", "full_attention"] * 2, swiglu_limit=7.0,
        tie_word_embeddings=False,
    ),
)

CHESTERTON = Demo(
    name="chesterton", kind="glm", end="<|endoftext|>", stops=("<|endoftext|>", "<|user|>", "<|observation|>"),
    heading=r"[IVX]+\. .*|CHAPTER [IVX]+$", steps=430,
    prompt="Father Brown looked at the",
    config=dict(
        architectures=["Glm4MoeForCausalLM"], model_type="glm4_moe", hidden_size=128, intermediate_size=320,
        moe_intermediate_size=64, num_hidden_layers=5, num_attention_heads=4, num_key_value_heads=1, head_dim=32,
        hidden_act="silu", attention_bias=True, use_qk_norm=True, n_routed_experts=8, num_experts_per_tok=2,
        n_shared_experts=1, n_group=2, topk_group=1, first_k_dense_replace=1, norm_topk_prob=True,
        routed_scaling_factor=1.5, rms_norm_eps=1e-5, partial_rotary_factor=0.5,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0, "partial_rotary_factor": 0.5},
        num_nextn_predict_layers=0, tie_word_embeddings=False,
    ),
)

DEMOS = {demo.name: demo for demo in (AUSTEN, MELVILLE, WHITMAN, SHAKESPEARE, JOYCE, CHESTERTON)}

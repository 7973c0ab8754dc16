"""The cases: every family in several shapes, each config.json as it will lie on disk.

A config is written exactly as given, so that fields left out here are left out
in the file and take the class defaults of transformers.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    name: str
    family: str  # the row of Switchyard's table
    features: tuple  # words for index.json: what this case is here for
    config: dict  # config.json
    dtype: str = "bfloat16"  # stored dtype: bfloat16, float16 or float32
    shards: int = 1
    prefix: str = "model."  # what the file puts before the text model's tensors
    head_prefix: str = ""  # what the file puts before lm_head
    mtp_layer: bool = False  # add a multi-token-prediction layer, to be skipped
    vision: bool = False  # add vision tensors, to be skipped
    form: str = ""  # a form of quantized.py
    kept: tuple = ()  # parts of the names of projections that are not quantized


LLAMA3_ROPE = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
GPT_OSS_ROPE = {
    "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
    "original_max_position_embeddings": 64,
}
VISION_CONFIG = {
    "model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
    "num_attention_heads": 2, "image_size": 28, "patch_size": 14, "vision_use_head": False,
}

LLAMA = [
    Case(
        "llama_defaults", "llama", ("head ratio 1", "untied", "rope default", "most fields left out"),
        dict(model_type="llama", architectures=["LlamaForCausalLM"], vocab_size=131, hidden_size=48,
             intermediate_size=56, num_hidden_layers=2, num_attention_heads=3, torch_dtype="float32"),
        dtype="float32",
    ),
    Case(
        "llama_rope_llama3", "llama", ("head ratio 4", "tied", "rope llama3", "head_dim apart from hidden/heads"),
        dict(model_type="llama", architectures=["LlamaForCausalLM"], vocab_size=257, hidden_size=72,
             intermediate_size=96, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=2, head_dim=16,
             max_position_embeddings=512, rms_norm_eps=1e-5, rope_theta=500000.0, rope_scaling=LLAMA3_ROPE,
             tie_word_embeddings=True, attention_bias=False, mlp_bias=False, hidden_act="silu",
             bos_token_id=1, eos_token_id=[2, 5], torch_dtype="bfloat16"),
    ),
    Case(
        "llama_rope_linear_biases", "llama",
        ("head ratio 8", "untied", "rope linear, spelled `type`", "attention and mlp biases", "sharded"),
        dict(model_type="llama", architectures=["LlamaForCausalLM"], vocab_size=131, hidden_size=72,
             intermediate_size=72, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=1, head_dim=16,
             max_position_embeddings=512, rms_norm_eps=1e-5, rope_theta=20000.0,
             rope_scaling={"type": "linear", "factor": 2.5}, tie_word_embeddings=False, attention_bias=True,
             mlp_bias=True, torch_dtype="float16"),
        dtype="float16", shards=3,
    ),
    Case(
        "llama_rope_yarn", "llama", ("head ratio 4", "untied", "rope yarn, truncated", "rope_parameters"),
        dict(model_type="llama", architectures=["LlamaForCausalLM"], vocab_size=131, hidden_size=64,
             intermediate_size=72, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=1, head_dim=40,
             max_position_embeddings=512, rms_norm_eps=1e-5,
             rope_parameters={"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
                              "original_max_position_embeddings": 48},
             tie_word_embeddings=False, dtype="bfloat16"),
    ),
    Case(
        "mistral_window", "llama", ("model_type mistral", "window 16 on every layer", "head ratio 4", "untied"),
        dict(model_type="mistral", architectures=["MistralForCausalLM"], vocab_size=199, hidden_size=64,
             intermediate_size=72, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=1,
             max_position_embeddings=512, rms_norm_eps=1e-5, rope_theta=10000.0, sliding_window=16,
             tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, torch_dtype="bfloat16"),
    ),
    Case(
        "mistral_no_window", "llama",
        ("model_type mistral", "sliding_window null", "rope_parameters", "rope yarn with mscale", "head_dim 40"),
        dict(model_type="mistral", architectures=["MistralForCausalLM"], vocab_size=131, hidden_size=40,
             intermediate_size=56, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, head_dim=40,
             max_position_embeddings=512, rms_norm_eps=1e-5, sliding_window=None,
             rope_parameters={"rope_type": "yarn", "rope_theta": 1000000.0, "factor": 16.0, "beta_fast": 32.0,
                              "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 0.5,
                              "original_max_position_embeddings": 64},
             tie_word_embeddings=False, dtype="float32"),
        dtype="float32",
    ),
]

QWEN3 = [
    Case(
        "qwen3_tied", "qwen3", ("head ratio 8", "tied", "rope default", "q/k norm"),
        dict(model_type="qwen3", architectures=["Qwen3ForCausalLM"], vocab_size=257, hidden_size=56,
             intermediate_size=56, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=1, head_dim=32,
             max_position_embeddings=512, rms_norm_eps=1e-6, rope_theta=1000000.0, rope_scaling=None,
             tie_word_embeddings=True, attention_bias=False, use_sliding_window=False, sliding_window=None,
             max_window_layers=3, hidden_act="silu", torch_dtype="bfloat16"),
    ),
    Case(
        "qwen3_untied_yarn", "qwen3", ("head ratio 1", "untied", "rope yarn with attention_factor", "rope_parameters"),
        dict(model_type="qwen3", architectures=["Qwen3ForCausalLM"], vocab_size=199, hidden_size=64,
             intermediate_size=72, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, head_dim=24,
             max_position_embeddings=512, rms_norm_eps=1e-6,
             rope_parameters={"rope_type": "yarn", "rope_theta": 1000000.0, "factor": 4.0, "attention_factor": 0.9,
                              "beta_fast": 16.0, "beta_slow": 2.0, "original_max_position_embeddings": 64},
             tie_word_embeddings=False, dtype="float16"),
        dtype="float16",
    ),
    Case(
        "qwen3_window", "qwen3",
        ("head ratio 4", "window 12 from layer 1 on", "attention biases", "untied", "rope linear"),
        dict(model_type="qwen3", architectures=["Qwen3ForCausalLM"], vocab_size=131, hidden_size=40,
             intermediate_size=48, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=2, head_dim=16,
             max_position_embeddings=512, rms_norm_eps=1e-6, rope_theta=50000.0,
             rope_scaling={"rope_type": "linear", "factor": 4.0}, tie_word_embeddings=False, attention_bias=True,
             use_sliding_window=True, sliding_window=12, max_window_layers=1, torch_dtype="float32"),
        dtype="float32",
    ),
]

QWEN3_MOE = [
    Case(
        "qwen3_moe_normalized", "qwen3_moe", ("head ratio 4", "untied", "norm_topk_prob true", "rope default"),
        dict(model_type="qwen3_moe", architectures=["Qwen3MoeForCausalLM"], vocab_size=257, hidden_size=48,
             intermediate_size=96, moe_intermediate_size=20, num_hidden_layers=2, num_attention_heads=8,
             num_key_value_heads=2, head_dim=16, num_experts=8, num_experts_per_tok=2, norm_topk_prob=True,
             decoder_sparse_step=1, mlp_only_layers=[], max_position_embeddings=512, rms_norm_eps=1e-6,
             rope_theta=1000000.0, rope_scaling=None, tie_word_embeddings=False, use_sliding_window=False,
             torch_dtype="bfloat16"),
    ),
    Case(
        "qwen3_moe_dense_layers", "qwen3_moe",
        ("head ratio 8", "tied", "norm_topk_prob left out", "decoder_sparse_step 2 and mlp_only_layers",
         "num_local_experts"),
        dict(model_type="qwen3_moe", architectures=["Qwen3MoeForCausalLM"], vocab_size=131, hidden_size=32,
             intermediate_size=40, moe_intermediate_size=16, num_hidden_layers=4, num_attention_heads=8,
             num_key_value_heads=1, head_dim=12, num_local_experts=7, num_experts_per_tok=3, decoder_sparse_step=2,
             mlp_only_layers=[3], max_position_embeddings=512, rms_norm_eps=1e-6,
             rope_parameters={"rope_type": "default", "rope_theta": 100000.0}, tie_word_embeddings=True,
             dtype="float32"),
        dtype="float32",
    ),
    Case(
        "qwen3_moe_window", "qwen3_moe",
        ("head ratio 1", "window 20 on every layer", "head_dim left out", "rope llama3", "sharded"),
        dict(model_type="qwen3_moe", architectures=["Qwen3MoeForCausalLM"], vocab_size=131, hidden_size=72,
             intermediate_size=80, moe_intermediate_size=16, num_hidden_layers=2, num_attention_heads=3,
             num_key_value_heads=3, num_experts=6, num_experts_per_tok=6, norm_topk_prob=False,
             decoder_sparse_step=1, mlp_only_layers=[], max_position_embeddings=512, rms_norm_eps=1e-6,
             rope_theta=1000000.0, rope_scaling=LLAMA3_ROPE, tie_word_embeddings=False, use_sliding_window=True,
             sliding_window=20, torch_dtype="float16"),
        dtype="float16", shards=2,
    ),
]

GEMMA3_TEXT = dict(
    model_type="gemma3_text", architectures=["Gemma3ForCausalLM"], vocab_size=199, hidden_size=48,
    intermediate_size=40, num_attention_heads=4, num_key_value_heads=1, head_dim=16, max_position_embeddings=512,
    rms_norm_eps=1e-6, bos_token_id=2, eos_token_id=1, pad_token_id=0,
)
GEMMA3 = [
    Case(
        "gemma3_text_old", "gemma3",
        ("head ratio 4", "tied by default", "5 local : 1 global by default", "window 10", "global rope linear",
         "query_pre_attn_scalar left out"),
        dict(GEMMA3_TEXT, num_hidden_layers=7, hidden_activation="gelu_pytorch_tanh", sliding_window=10,
             rope_theta=1000000.0, rope_local_base_freq=10000.0,
             rope_scaling={"factor": 8.0, "rope_type": "linear"}, torch_dtype="bfloat16"),
    ),
    Case(
        "gemma3_text_new", "gemma3",
        ("head ratio 1", "untied", "layer_types", "window 33", "rope_parameters by layer type",
         "query_pre_attn_scalar apart from head_dim", "final_logit_softcapping"),
        dict(GEMMA3_TEXT, num_hidden_layers=3, vocab_size=131, intermediate_size=32, num_attention_heads=2,
             num_key_value_heads=2, head_dim=24, sliding_window=33, query_pre_attn_scalar=40,
             layer_types=["sliding_attention", "full_attention", "sliding_attention"],
             rope_parameters={"full_attention": {"rope_type": "yarn", "rope_theta": 500000.0, "factor": 4.0,
                                                 "original_max_position_embeddings": 64},
                              "sliding_attention": {"rope_type": "default", "rope_theta": 8000.0}},
             final_logit_softcapping=8.0, attn_logit_softcapping=None, tie_word_embeddings=False, dtype="float32"),
        dtype="float32",
    ),
    Case(
        "gemma3_multimodal", "gemma3",
        ("head ratio 8", "tied", "model_type gemma3 with text_config", "vision tensors to skip",
         "prefix language_model.model", "sliding_window_pattern 3", "window 16"),
        dict(model_type="gemma3", architectures=["Gemma3ForConditionalGeneration"],
             text_config=dict(model_type="gemma3_text", vocab_size=257, hidden_size=48, intermediate_size=48,
                              num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=1, head_dim=16,
                              max_position_embeddings=512, query_pre_attn_scalar=24, sliding_window=16,
                              sliding_window_pattern=3, rope_theta=1000000.0, rope_local_base_freq=10000.0,
                              rope_scaling={"factor": 8.0, "rope_type": "linear"}),
             vision_config=VISION_CONFIG, mm_tokens_per_image=4, image_token_index=250, boi_token_index=251,
             eoi_token_index=252, eos_token_id=[1, 106], torch_dtype="bfloat16"),
        prefix="language_model.model.", vision=True,
    ),
    Case(
        "gemma3_multimodal_new", "gemma3",
        ("head ratio 1", "tied", "model_type gemma3 with text_config", "vision tensors to skip",
         "prefix model.language_model", "attention biases", "window 7", "sharded"),
        dict(model_type="gemma3", architectures=["Gemma3ForConditionalGeneration"],
             text_config=dict(model_type="gemma3_text", vocab_size=257, hidden_size=48, intermediate_size=56,
                              num_hidden_layers=3, num_attention_heads=3, num_key_value_heads=3, head_dim=20,
                              max_position_embeddings=512, query_pre_attn_scalar=20, sliding_window=7,
                              attention_bias=True,
                              layer_types=["sliding_attention", "sliding_attention", "full_attention"],
                              rope_parameters={
                                  "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
                                  "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}),
             vision_config=VISION_CONFIG, mm_tokens_per_image=4, image_token_index=250, boi_token_index=251,
             eoi_token_index=252, tie_word_embeddings=True, dtype="float16"),
        dtype="float16", prefix="model.language_model.", vision=True, shards=2,
    ),
]

GPT_OSS = [
    Case(
        "gpt_oss_published", "gpt_oss",
        ("head ratio 8", "untied", "rope yarn, not truncated", "window 16 on every other layer", "sinks and biases"),
        dict(model_type="gpt_oss", architectures=["GptOssForCausalLM"], vocab_size=199, hidden_size=48,
             intermediate_size=24, num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=1, head_dim=16,
             num_local_experts=4, num_experts_per_tok=2, experts_per_token=2, sliding_window=16,
             layer_types=["sliding_attention", "full_attention", "sliding_attention"], max_position_embeddings=512,
             initial_context_length=64, rms_norm_eps=1e-5, rope_theta=150000, rope_scaling=GPT_OSS_ROPE,
             attention_bias=True, swiglu_limit=7.0, tie_word_embeddings=False, hidden_act="silu",
             eos_token_id=2, torch_dtype="bfloat16"),
    ),
    Case(
        "gpt_oss_tied", "gpt_oss", ("head ratio 1", "tied", "rope default", "rope_parameters", "layer_types left out"),
        dict(model_type="gpt_oss", architectures=["GptOssForCausalLM"], vocab_size=131, hidden_size=40,
             intermediate_size=24, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=3, head_dim=16,
             num_local_experts=5, num_experts_per_tok=3, sliding_window=9, max_position_embeddings=512,
             rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, tie_word_embeddings=True,
             dtype="float32"),
        dtype="float32",
    ),
    Case(
        "gpt_oss_rope_left_out", "gpt_oss",
        ("head ratio 4", "untied", "rope left out: yarn by default", "no attention biases", "sharded"),
        dict(model_type="gpt_oss", architectures=["GptOssForCausalLM"], vocab_size=199, hidden_size=48,
             intermediate_size=32, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=2, head_dim=24,
             num_local_experts=4, num_experts_per_tok=4, sliding_window=24, attention_bias=False,
             tie_word_embeddings=False, torch_dtype="float16"),
        dtype="float16", shards=2,
    ),
]

GLM4_MOE = [
    Case(
        "glm4_moe_air", "glm4_moe",
        ("head ratio 8", "untied", "q/k/v biases", "multi-token-prediction layer to skip", "one group",
         "partial rotary 0.5"),
        dict(model_type="glm4_moe", architectures=["Glm4MoeForCausalLM"], vocab_size=131, hidden_size=48,
             intermediate_size=56, moe_intermediate_size=16, num_hidden_layers=2, num_attention_heads=8,
             num_key_value_heads=1, head_dim=16, n_routed_experts=6, num_experts_per_tok=3, n_shared_experts=1,
             n_group=1, topk_group=1, first_k_dense_replace=1, norm_topk_prob=True, routed_scaling_factor=1.0,
             use_qk_norm=False, attention_bias=True, partial_rotary_factor=0.5, rope_theta=1000000.0,
             rope_scaling=None, max_position_embeddings=512, rms_norm_eps=1e-5, num_nextn_predict_layers=1,
             tie_word_embeddings=False, hidden_act="silu", eos_token_id=[3, 7, 9], torch_dtype="bfloat16"),
        mtp_layer=True,
    ),
    Case(
        "glm4_moe_qk_norm", "glm4_moe",
        ("head ratio 4", "untied", "q/k norm", "1 of 2 groups", "routed_scaling_factor 2.5", "2 dense layers",
         "rope_parameters with partial_rotary_factor"),
        dict(model_type="glm4_moe", architectures=["Glm4MoeForCausalLM"], vocab_size=131, hidden_size=40,
             intermediate_size=40, moe_intermediate_size=12, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=1, head_dim=16, n_routed_experts=8, num_experts_per_tok=2, n_shared_experts=1,
             n_group=2, topk_group=1, first_k_dense_replace=2, norm_topk_prob=True, routed_scaling_factor=2.5,
             use_qk_norm=True, attention_bias=False, max_position_embeddings=512, rms_norm_eps=1e-5,
             rope_parameters={"rope_type": "default", "rope_theta": 1000000.0, "partial_rotary_factor": 0.5},
             tie_word_embeddings=False, dtype="float32"),
        dtype="float32",
    ),
    Case(
        "glm4_moe_groups", "glm4_moe",
        ("head ratio 1", "tied", "2 of 4 groups", "norm_topk_prob false", "2 shared experts",
         "head_dim and partial_rotary_factor left out", "biases and q/k norm", "rope yarn", "sharded"),
        dict(model_type="glm4_moe", architectures=["Glm4MoeForCausalLM"], vocab_size=131, hidden_size=48,
             intermediate_size=56, moe_intermediate_size=12, num_hidden_layers=3, num_attention_heads=3,
             num_key_value_heads=3, n_routed_experts=12, num_experts_per_tok=4, n_shared_experts=2, n_group=4,
             topk_group=2, first_k_dense_replace=1, norm_topk_prob=False, routed_scaling_factor=1.7,
             use_qk_norm=True, attention_bias=True, rope_theta=10000.0,
             rope_scaling={"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64},
             max_position_embeddings=512, rms_norm_eps=1e-5, tie_word_embeddings=True, torch_dtype="float16"),
        dtype="float16", shards=2,
    ),
]

CASES = LLAMA + QWEN3 + QWEN3_MOE + GEMMA3 + GPT_OSS + GLM4_MOE

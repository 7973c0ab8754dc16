"""The cases of quantized checkpoints: each format, spread over the families."""

from cases import GPT_OSS_ROPE, VISION_CONFIG, Case


def compressed(format, weights, ignore=("lm_head",)):
    return {"quant_method": "compressed-tensors", "format": format, "quantization_status": "compressed",
            "ignore": list(ignore),
            "config_groups": {"group_0": {"targets": ["Linear"], "input_activations": None, "weights": weights}}}


LLAMA = dict(model_type="llama", architectures=["LlamaForCausalLM"], vocab_size=67, hidden_size=64,
             intermediate_size=96, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=256, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False,
             torch_dtype="bfloat16")
QWEN3 = dict(model_type="qwen3", architectures=["Qwen3ForCausalLM"], vocab_size=67, hidden_size=64,
             intermediate_size=96, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=1, head_dim=32,
             max_position_embeddings=256, rms_norm_eps=1e-6, rope_theta=1000000.0, tie_word_embeddings=True,
             torch_dtype="bfloat16")
QWEN3_MOE = dict(model_type="qwen3_moe", architectures=["Qwen3MoeForCausalLM"], vocab_size=67, hidden_size=64,
                 intermediate_size=96, moe_intermediate_size=32, num_experts=4, num_experts_per_tok=2,
                 norm_topk_prob=True, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
                 head_dim=32, max_position_embeddings=256, rms_norm_eps=1e-6, rope_theta=1000000.0,
                 tie_word_embeddings=False, torch_dtype="bfloat16")

QUANTIZED = [
    Case(
        "llama_fp8_tensor", "llama", ("fp8, scale of the tensor", "scales of activations and of the KV cache"),
        LLAMA | dict(quantization_config=compressed(
            "float-quantized", dict(num_bits=8, type="float", strategy="tensor", symmetric=True, dynamic=False))),
        form="fp8_tensor",
    ),
    Case(
        "qwen3_fp8_channel", "qwen3", ("fp8, scales of rows in bf16", "one module kept"),
        QWEN3 | dict(quantization_config=compressed(
            "float-quantized", dict(num_bits=8, type="float", strategy="channel", symmetric=True, dynamic=False),
            ("lm_head", "re:.*layers\\.0\\.mlp\\.down_proj"))),
        form="fp8_channel", kept=("layers.0.mlp.down_proj",),
    ),
    Case(
        "qwen3_moe_fp8_blocks", "qwen3_moe", ("fp8 in blocks of 128 x 128", "rows and columns beyond a block"),
        QWEN3_MOE | dict(hidden_size=40, num_attention_heads=4, num_key_value_heads=2, head_dim=64, moe_intermediate_size=128,
                         num_experts=3, mlp_only_layers=[0], intermediate_size=136,
                         quantization_config={"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3",
                                              "weight_block_size": [128, 128],
                                              "modules_to_not_convert": ["lm_head", "model.layers.0.mlp",
                                                                         "model.layers.1.mlp.gate"]}),
        form="fp8_blocks", kept=("layers.0.mlp",),
    ),
    Case(
        "qwen3_awq", "qwen3", ("AWQ, groups of 32",),
        QWEN3 | dict(torch_dtype="float16",
                     quantization_config={"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm",
                                          "zero_point": True, "modules_to_not_convert": None}),
        dtype="float16", form="awq",
    ),
    Case(
        "glm4_moe_awq", "glm4_moe", ("AWQ experts", "a dense and a shared one"),
        dict(model_type="glm4_moe", architectures=["Glm4MoeForCausalLM"], vocab_size=67, hidden_size=64,
             intermediate_size=96, moe_intermediate_size=32, n_routed_experts=4, num_experts_per_tok=2,
             n_shared_experts=1, n_group=1, topk_group=1, norm_topk_prob=True, routed_scaling_factor=1.0,
             first_k_dense_replace=1, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
             partial_rotary_factor=0.5, max_position_embeddings=256, rms_norm_eps=1e-5, rope_theta=1000000.0,
             attention_bias=True, use_qk_norm=False, tie_word_embeddings=False, torch_dtype="float16",
             quantization_config={"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm",
                                  "zero_point": True, "modules_to_not_convert": ["o_proj"]}),
        dtype="float16", form="awq", kept=("o_proj",),
    ),
    Case(
        "llama_gptq", "llama", ("GPTQ, zero points less one", "symmetric, g_idx in order", "biases"),
        LLAMA | dict(attention_bias=True, torch_dtype="float16",
                     quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True,
                                          "desc_act": False}),
        dtype="float16", form="gptq",
    ),
    Case(
        "qwen3_moe_gptq", "qwen3_moe", ("GPTQ, version 2", "whole rows", "asymmetric", "one module kept"),
        QWEN3_MOE | dict(torch_dtype="float16",
                         quantization_config={"quant_method": "gptq", "bits": 4, "group_size": -1, "sym": False,
                                              "desc_act": True, "checkpoint_format": "gptq_v2"}),
        dtype="float16", form="gptq", kept=("layers.1.self_attn",),
    ),
    Case(
        "llama_packed", "llama", ("pack-quantized, symmetric", "mistral"),
        LLAMA | dict(model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=None,
                     quantization_config=compressed(
                         "pack-quantized", dict(num_bits=4, type="int", strategy="group", group_size=32,
                                                symmetric=True, dynamic=False, actorder=None))),
        form="packed",
    ),
    Case(
        "gemma3_packed", "gemma3", ("pack-quantized, asymmetric", "nested config, vision tensors", "regular expressions"),
        dict(model_type="gemma3", architectures=["Gemma3ForConditionalGeneration"],
             text_config=dict(model_type="gemma3_text", vocab_size=67, hidden_size=64, intermediate_size=96,
                              num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=32,
                              query_pre_attn_scalar=32, sliding_window=16, max_position_embeddings=256,
                              sliding_window_pattern=2, rope_theta=1000000.0, rope_local_base_freq=10000.0),
             vision_config=VISION_CONFIG, mm_tokens_per_image=1, image_token_index=66, boi_token_index=65,
             eoi_token_index=64, torch_dtype="bfloat16",
             quantization_config=compressed(
                 "pack-quantized", dict(num_bits=4, type="int", strategy="group", group_size=32, symmetric=False,
                                        dynamic=False),
                 ("re:.*lm_head", "re:vision_tower.*", "re:multi_modal_projector.*"))),
        form="packed", prefix="language_model.model.", head_prefix="language_model.", vision=True,
    ),
    Case(
        "gpt_oss_mxfp4", "gpt_oss", ("MXFP4 experts",),
        dict(model_type="gpt_oss", architectures=["GptOssForCausalLM"], vocab_size=67, hidden_size=32,
             intermediate_size=64, num_local_experts=4, num_experts_per_tok=2, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=2048,
             sliding_window=16, attention_bias=True, rms_norm_eps=1e-5, rope_theta=150000.0,
             rope_scaling=GPT_OSS_ROPE, tie_word_embeddings=False, torch_dtype="bfloat16",
             quantization_config={"quant_method": "mxfp4",
                                  "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router",
                                                             "model.embed_tokens", "lm_head"]}),
        form="mxfp4",
    ),
]

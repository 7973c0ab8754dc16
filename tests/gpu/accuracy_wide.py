"""Cases with heads, rows and groups as real models have them, a few layers of a few hundred columns: the golden
checkpoints are so small that on a GPU the kernels for any size run. Written when they are needed."""

from cases import GPT_OSS_ROPE, Case
from quantized_cases import compressed

COMMON = dict(vocab_size=2048, hidden_size=512, intermediate_size=1024, num_hidden_layers=3, num_attention_heads=8,
              num_key_value_heads=2, head_dim=128, max_position_embeddings=1024, rms_norm_eps=1e-5,
              rope_theta=1000000.0, tie_word_embeddings=False, torch_dtype="bfloat16")
EXPERTS = dict(moe_intermediate_size=256, num_experts_per_tok=4, norm_topk_prob=True)
FAMILIES = {
    "llama": COMMON | dict(model_type="llama", architectures=["LlamaForCausalLM"]),
    "qwen3": COMMON | dict(model_type="qwen3", architectures=["Qwen3ForCausalLM"]),
    "qwen3_moe": COMMON | EXPERTS | dict(model_type="qwen3_moe", architectures=["Qwen3MoeForCausalLM"],
                                         num_experts=16),
    "gemma3": COMMON | dict(model_type="gemma3_text", architectures=["Gemma3ForCausalLM"], num_attention_heads=4,
                            head_dim=256, query_pre_attn_scalar=256, sliding_window=128, sliding_window_pattern=3,
                            rope_local_base_freq=10000.0),
    "gpt_oss": COMMON | dict(model_type="gpt_oss", architectures=["GptOssForCausalLM"], head_dim=64,
                             intermediate_size=256, num_local_experts=16, num_experts_per_tok=4, sliding_window=128,
                             attention_bias=True, rope_theta=150000.0, rope_scaling=GPT_OSS_ROPE),
    "glm4_moe": COMMON | EXPERTS | dict(model_type="glm4_moe", architectures=["Glm4MoeForCausalLM"],
                                        n_routed_experts=16, n_shared_experts=1, n_group=1, topk_group=1,
                                        routed_scaling_factor=1.0, first_k_dense_replace=1, attention_bias=True,
                                        partial_rotary_factor=0.5, use_qk_norm=False),
}
KEPT = ("lm_head", "re:.*mlp\\.gate$")
GATES = ["lm_head", *(f"model.layers.{layer}.mlp.gate" for layer in range(3))]


def _fp8(strategy):
    return compressed("float-quantized", dict(num_bits=8, type="float", strategy=strategy, symmetric=True,
                                              dynamic=False), KEPT)


def _packed(group, symmetric):
    return compressed("pack-quantized", dict(num_bits=4, type="int", strategy="group", group_size=group,
                                             symmetric=symmetric, dynamic=False), KEPT)


def _awq(group):
    return {"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm", "zero_point": True,
            "modules_to_not_convert": None}


def _gptq(group):
    return {"quant_method": "gptq", "bits": 4, "group_size": group, "sym": True, "desc_act": False}


FP8_BLOCKS = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [128, 128],
              "modules_to_not_convert": GATES}
MXFP4 = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router",
                                                             "model.embed_tokens", "lm_head"]}
FORMS = [  # family, form, quantization_config
    ("llama", "fp8_tensor", _fp8("tensor")),
    ("llama", "gptq", _gptq(128)),
    ("llama", "packed", _packed(128, True)),
    ("qwen3", "fp8_channel", _fp8("channel")),
    ("qwen3", "fp8_blocks", FP8_BLOCKS),
    ("qwen3", "awq", _awq(128)),
    ("qwen3_moe", "fp8_channel", _fp8("channel")),
    ("qwen3_moe", "fp8_blocks", FP8_BLOCKS),
    ("qwen3_moe", "gptq", _gptq(128)),
    ("gemma3", "packed", _packed(64, False)),
    ("gpt_oss", "mxfp4", MXFP4),
    ("glm4_moe", "awq", _awq(128)),
    ("glm4_moe", "packed", _packed(128, True)),
]
WIDE = [Case(f"wide_{family}", family, (), config) for family, config in FAMILIES.items()]
WIDE += [Case(f"wide_{family}_{form}", family, (), FAMILIES[family] | dict(quantization_config=quantization), form=form)
         for family, form, quantization in FORMS]

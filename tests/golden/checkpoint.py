"""Writes a case's random checkpoint as a published one lies on disk.

Names and shapes come from transformers' own model (built without storage);
experts are split into the tensors that published files hold.
"""

import copy
import json
import math
import re
import zlib

import torch
import transformers
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel

import quantized

MTP_TENSORS = ("eh_proj.weight", "enorm.weight", "hnorm.weight", "shared_head.norm.weight")


def write(case, directory):
    """Writes config.json, the safetensors files and a tokenizer."""
    directory.mkdir(parents=True)
    _write_json(directory / "config.json", case.config, indent=2)
    stored = tensors(case)
    if case.form:
        stored, _ = quantized.split(case, stored)
    _write_tensors(directory, stored, case.shards)
    vocab_size = case.config.get("text_config", case.config)["vocab_size"]
    _write_json(directory / "tokenizer.json", _byte_tokenizer(vocab_size))


def write_meant(case, directory):
    """What a quantized checkpoint means, in float32."""
    config = {key: value for key, value in case.config.items() if key != "quantization_config"}
    _write_json(directory / "config.json", config, indent=2)
    _, plain = quantized.split(case, tensors(case))
    _write_tensors(directory, {name: tensor.float() for name, tensor in plain.items()}, 1)


def tensors(case):
    """Name and values of every tensor, before it is quantized."""
    return {name: _random(case, name, shape) for name, shape in _shapes(case).items()}


def _shapes(case):
    """Name and shape of every tensor in the file."""
    # A copy, since transformers writes into nested fields.
    fields = {key: value for key, value in case.config.items() if key != "quantization_config"}
    config = transformers.AutoConfig.for_model(**copy.deepcopy(fields))
    text_config = config.get_text_config()
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(text_config)
    shapes = {}
    for name, parameter in model.state_dict().items():
        if name == "lm_head.weight" and text_config.tie_word_embeddings:
            continue
        for part, shape in _on_disk(case.family, name, tuple(parameter.shape)):
            shapes[part] = shape
    if case.mtp_layer:
        shapes |= _mtp_shapes(shapes, text_config)
    shapes = {_with_prefix(case, name): shape for name, shape in shapes.items()}
    if case.vision:
        # The prefix "model." came into use for all parts of a checkpoint at once.
        before = "model." if case.prefix.startswith("model.") else ""
        shapes |= {before + name: shape for name, shape in _vision_shapes(config).items()}
    return shapes


def _on_disk(family, name, shape):
    """The tensors of published files that make up one of transformers' parameters."""
    fused = re.fullmatch(r"(.*\.mlp\.experts)\.(gate_up_proj|down_proj)", name)
    if not fused or family == "gpt_oss":
        yield name, shape
        return
    experts, out, inner = shape
    for expert in range(experts):
        where = f"{fused[1]}.{expert}"
        if fused[2] == "down_proj":
            yield f"{where}.down_proj.weight", (out, inner)
        else:
            yield f"{where}.gate_proj.weight", (out // 2, inner)
            yield f"{where}.up_proj.weight", (out // 2, inner)


def _mtp_shapes(shapes, config):
    """One more layer, as GLM's files carry it for multi-token prediction."""
    last = f"model.layers.{config.num_hidden_layers - 1}."
    extra = f"model.layers.{config.num_hidden_layers}."
    layer = {extra + name.removeprefix(last): shape for name, shape in shapes.items() if name.startswith(last)}
    hidden = config.hidden_size
    for name in MTP_TENSORS:
        layer[extra + name] = (hidden, 2 * hidden) if name.startswith("eh_proj") else (hidden,)
    return layer


def _vision_shapes(config):
    """A few of a vision tower's tensors, enough to stumble over."""
    hidden = config.vision_config.hidden_size
    patch = config.vision_config.patch_size
    return {
        "vision_tower.vision_model.embeddings.patch_embedding.weight": (hidden, 3, patch, patch),
        "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight": (hidden, hidden),
        "vision_tower.vision_model.encoder.layers.0.layer_norm1.bias": (hidden,),
        "multi_modal_projector.mm_input_projection_weight": (hidden, config.text_config.hidden_size),
        "multi_modal_projector.mm_soft_emb_norm.weight": (hidden,),
    }


def _with_prefix(case, name):
    if name.startswith("lm_head"):
        return case.head_prefix + name
    return case.prefix + name.removeprefix("model.")


def _random(case, name, shape):
    """A tensor whose values depend on the case and the name alone. The scales
    give logits a spread of 1 to 3, and no bias, norm or sink its default."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{case.name}/{name}".encode()))
    values = torch.randn(shape, generator=generator)
    if name.endswith("e_score_correction_bias"):
        return values * 0.2  # float32 in every published file
    if "norm" in name and len(shape) == 1:
        values = values * 0.25 + _norm_mean(case, name)
    elif name.endswith("sinks"):
        values = values * 1.5
    elif name.endswith("bias"):
        values = values * 0.3
    elif "embed_tokens" in name:
        values = values * (1.0 if case.family == "gemma3" else 2.0) / math.sqrt(shape[1])
    else:
        transposed = case.family == "gpt_oss" and ".experts." in name
        fan_in = shape[-2] if transposed else shape[-1]
        values = values * _gain(case, name) / math.sqrt(fan_in)
    return values.to(getattr(torch, case.dtype)).contiguous()


def _norm_mean(case, name):
    if case.family != "gemma3":
        return 1.0
    # The stored weight is less 1. Layers count double beside the embedding, or
    # a tied head would only ever repeat the last token.
    return 1.0 if "post_" in name or name.endswith("norm.weight") and "layers." not in name else 0.0


def _gain(case, name):
    if case.family == "gpt_oss" and ".experts." in name:
        # So that the clamp of gate and up at 7 is reached now and then.
        return 3.0 if "gate_up" in name else 0.5
    for part, gain in (("q_proj", 1.5), ("k_proj", 1.5), ("down_proj", 2.0), ("mlp.gate.", 2.0),
                       ("router", 2.0), ("lm_head", 2.0)):
        if part in name:
            return gain
    return 1.0


def _write_tensors(directory, tensors, shards):
    names = list(tensors)
    if shards == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map = {}
    for shard in range(shards):
        # Dealt out in turn, so that a layer's tensors lie in different files.
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[shard::shards]}
        save_file(part, directory / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    _write_json(directory / "model.safetensors.index.json", index, indent=1)


def _byte_tokenizer(vocab_size):
    """A byte-level tokenizer without merges, so that the checkpoint can be
    served; ids beyond it have no text, as in published models with a padded
    vocabulary."""
    alphabet = sorted(ByteLevel.alphabet())[:vocab_size]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
             "vocab": {token: i for i, token in enumerate(alphabet)}, "merges": []}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level, "model": model}


def _write_json(path, document, indent=None):
    separators = None if indent else (",", ":")
    text = json.dumps(document, indent=indent, ensure_ascii=False, separators=separators)
    path.write_text(text + "\n", encoding="utf-8")

"""The quantized formats of published checkpoints, written out from their definitions:
what the files hold, and the float32 weights that it means.

`FORMS[name](weight, config)` returns ({suffix: tensor}, dequantized weight).
"""

import torch

E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # columns in a word, from the lowest nibble up


def fp8_tensor(weight, config):
    scale = (weight.abs().max() / 448).to(torch.float32)
    numbers = (weight / scale).to(torch.float8_e4m3fn)
    stored = {".weight": numbers, ".weight_scale": scale.reshape(1), ".input_scale": torch.tensor([0.25])}
    return stored, numbers.float() * scale


def fp8_channel(weight, config):
    scale = (weight.abs().amax(1, keepdim=True) / 448).to(torch.bfloat16)
    numbers = (weight / scale.float()).to(torch.float8_e4m3fn)
    return {".weight": numbers, ".weight_scale": scale}, numbers.float() * scale.float()


def fp8_blocks(weight, config):
    n, k = weight.shape
    scale = torch.zeros(-(-n // 128), -(-k // 128))
    numbers = torch.zeros(n, k, dtype=torch.float8_e4m3fn)
    plain = torch.zeros(n, k)
    for i in range(scale.shape[0]):
        for j in range(scale.shape[1]):
            at = (slice(128 * i, 128 * i + 128), slice(128 * j, 128 * j + 128))
            scale[i, j] = weight[at].abs().max() / 448
            numbers[at] = (weight[at] / scale[i, j]).to(torch.float8_e4m3fn)
            plain[at] = numbers[at].float() * scale[i, j]
    return {".weight": numbers, ".weight_scale_inv": scale}, plain


def _levels(weight, group, symmetric, scale_dtype):
    """Levels 0..15 [n][k], scales and zero points [n][k/group], and what they mean."""
    n, k = weight.shape
    grouped = weight.reshape(n, k // group, group)
    if symmetric:
        scale = (grouped.abs().amax(-1) / 7.5).to(scale_dtype)
        zero = torch.full(scale.shape, 8)
    else:
        low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
        scale = ((high - low) / 15).to(scale_dtype)
        zero = (-low / scale.float()).round().clamp(0, 15).long()
    step, offset = scale.float()[..., None], zero[..., None]
    levels = ((grouped / step).round() + offset).clamp(0, 15).long()
    plain = (levels - offset) * step
    return levels.reshape(n, k), scale, zero, plain.reshape(n, k)


def _pack(levels, order=range(8)):
    """Eight numbers of the last dimension a word, from the lowest nibble up in `order`."""
    grouped = levels.reshape(*levels.shape[:-1], -1, 8)
    words = sum(grouped[..., column] << (4 * place) for place, column in enumerate(order))
    return words.to(torch.int64).where(words < 2**31, words - 2**32).to(torch.int32).contiguous()


def awq(weight, config):
    levels, scale, zero, plain = _levels(weight, config["group_size"], False, torch.float16)
    stored = {".qweight": _pack(levels.T.contiguous(), AWQ_ORDER), ".scales": scale.T.contiguous(),
              ".qzeros": _pack(zero.T.contiguous(), AWQ_ORDER)}
    return stored, plain


def gptq(weight, config):
    group = config["group_size"] if config["group_size"] > 0 else weight.shape[1]
    levels, scale, zero, plain = _levels(weight, group, config["sym"], torch.float16)
    kept = zero
    if config.get("checkpoint_format", "gptq") == "gptq":
        # The first version stores the zero point less one, and has none for 0.
        kept = zero.clamp(min=1) - 1
        step = scale.float().repeat_interleave(group, 1)
        plain = (levels - (kept + 1).repeat_interleave(group, 1)) * step
    order = torch.arange(weight.shape[1], dtype=torch.int32) // group
    stored = {".qweight": _pack(levels).T.contiguous(), ".scales": scale.T.contiguous(),
              ".qzeros": _pack(kept.T.contiguous()), ".g_idx": order}
    return stored, plain


def packed(weight, config):
    weights = config["config_groups"]["group_0"]["weights"]
    group = weights["group_size"] or weight.shape[1]
    levels, scale, zero, plain = _levels(weight, group, weights["symmetric"], torch.bfloat16)
    stored = {".weight_packed": _pack(levels), ".weight_scale": scale,
              ".weight_shape": torch.tensor(weight.shape)}
    if not weights["symmetric"]:
        rows = -zero.shape[0] % 8
        padded = torch.cat([zero, torch.zeros(rows, zero.shape[1], dtype=zero.dtype)])
        stored[".weight_zero_point"] = _pack(padded.T.contiguous()).T.contiguous()
    return stored, plain


def mxfp4(weight, config):
    """Of experts [E][in][out]; what is stored is [E][out][in]."""
    rows = weight.transpose(1, 2).contiguous()
    blocks = rows.reshape(*rows.shape[:2], -1, 32)
    exponent = blocks.abs().amax(-1).log2().floor() - 2
    scaled = blocks / exponent.exp2()[..., None]
    size = (scaled.abs()[..., None] - E2M1).abs().argmin(-1)
    nibbles = size + 8 * (scaled < 0)
    bytes_ = (nibbles[..., 0::2] | nibbles[..., 1::2] << 4).to(torch.uint8)
    plain = torch.where(scaled < 0, -E2M1[size], E2M1[size]) * exponent.exp2()[..., None]
    stored = {"_blocks": bytes_, "_scales": (exponent + 127).to(torch.uint8)}
    return stored, plain.reshape(rows.shape).transpose(1, 2).contiguous()


FORMS = {"fp8_tensor": fp8_tensor, "fp8_channel": fp8_channel, "fp8_blocks": fp8_blocks, "awq": awq,
         "gptq": gptq, "packed": packed, "mxfp4": mxfp4}


def _is_quantized(case, name, weight):
    if case.form == "mxfp4":
        return name.endswith(("experts.gate_up_proj", "experts.down_proj"))
    is_matrix = name.endswith("_proj.weight") and ".layers." in name and "vision" not in name
    return is_matrix and not any(part in name for part in case.kept)


def split(case, tensors):
    """(tensors as the file holds them, tensors as they are meant)."""
    stored, plain = {}, {}
    for name, weight in tensors.items():
        if not _is_quantized(case, name, weight):
            stored[name] = plain[name] = weight
            continue
        pieces, plain[name] = FORMS[case.form](weight.float(), case.config["quantization_config"])
        base = name.removesuffix(".weight")
        stored |= {base + suffix: tensor for suffix, tensor in pieces.items()}
        if case.form == "fp8_tensor" and name.endswith(("k_proj.weight", "v_proj.weight")):
            stored[base + f".{base[-6]}_scale"] = torch.tensor([1.0])
    return stored, plain

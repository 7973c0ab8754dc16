"""What `quantize: FP8 | INT4` of models.d makes of a checkpoint, written out from its definition
(worker/model/quantizer.h): the float32 weights that the quantized ones mean.
"""

import json

import torch
from safetensors.torch import load_file, save_file


def fp8(rows):
    """A scale for each row, of which the largest weight becomes 448."""
    largest = rows.abs().amax(1, keepdim=True)
    scale = torch.where(largest > 0, largest / 448, 1.0)
    return (rows * (1 / scale)).to(torch.float8_e4m3fn).float() * scale


def int4(rows):
    """Groups of a row with a scale in float16 each, levels -8 to 7."""
    group = next((size for size in (128, 64, 32) if rows.shape[1] % size == 0), None)
    if group is None:
        return rows
    grouped = rows.reshape(-1, group)
    scale = _best_scales(grouped).clamp(-65504, 65504).half().float()[:, None]
    inverse = torch.where(scale != 0, 1 / scale, 0.0)
    return (_levels(grouped, inverse) * scale).reshape(rows.shape)


def _levels(groups, inverse):
    return (groups * inverse).round().clamp(-8, 7)


def _best_scales(groups):
    """Of 19 ways to map the group's extreme the one of least squared error, with the scale that fits it best."""
    extreme = groups.gather(1, groups.abs().argmax(1, keepdim=True))
    best, best_gain = torch.zeros(len(groups)), torch.full((len(groups),), -1.0)
    for step in range(-9, 10):
        inverse = -(8 + torch.tensor(0.1) * step) / extreme
        levels = _levels(groups, inverse)
        product, squares = torch.zeros(len(groups)), torch.zeros(len(groups))
        for column in range(groups.shape[1]):  # in this order, for the same roundings
            product += groups[:, column] * levels[:, column]
            squares += levels[:, column] ** 2
        gain = product * product / squares
        better = gain > best_gain
        best, best_gain = torch.where(better, product / squares, best), torch.where(better, gain, best_gain)
    return best


FORMS = {"FP8": fp8, "INT4": int4}


def write_meant(directory, quantize, to):
    """A plain checkpoint of one file, its projections quantized, in float32."""
    tensors = {name: tensor.float() for name, tensor in load_file(directory / "model.safetensors").items()}
    for name, tensor in tensors.items():
        if name.endswith("_proj.weight") and ".layers." in name:
            tensors[name] = FORMS[quantize](tensor)
        elif name.endswith(("experts.gate_up_proj", "experts.down_proj")):  # [E][in][out]
            rows = tensor.transpose(1, 2).contiguous()
            plain = FORMS[quantize](rows.reshape(-1, rows.shape[2])).reshape(rows.shape)
            tensors[name] = plain.transpose(1, 2).contiguous()
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(config))

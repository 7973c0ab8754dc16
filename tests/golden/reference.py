"""Runs a checkpoint with transformers in float32 and notes what it says."""

import torch
import transformers

GREEDY_TOKENS = 24
TOP = 5


def load(directory, **options):
    """The checkpoint as a model, by default in float32, stored values upcast exactly, with the plainest
    implementation of everything; `options` of from_pretrained say otherwise."""
    options = dict(dtype=torch.float32, attn_implementation="eager", experts_implementation="eager",
                   output_loading_info=True) | options
    model, info = transformers.AutoModelForImageTextToText.from_pretrained(directory, **options) \
        if _is_multimodal(directory) else transformers.AutoModelForCausalLM.from_pretrained(directory, **options)
    _check(directory, model, info)
    return model.eval()


def _is_multimodal(directory):
    return transformers.AutoConfig.from_pretrained(directory).model_type == "gemma3"


def _check(directory, model, info):
    """Everything of the text model was in the file, and nothing of it was left over."""
    layers = model.config.get_text_config().num_hidden_layers
    skipped = ("vision_tower", "multi_modal_projector", f"model.layers.{layers}.")
    missing = [key for key in info["missing_keys"] if not any(part in key for part in skipped)]
    unexpected = [key for key in info["unexpected_keys"] if not any(part in key for part in skipped)]
    if missing or unexpected or [key for key in info["mismatched_keys"] if "multi_modal" not in key[0]]:
        raise ValueError(f"{directory}: missing {missing}, unexpected {unexpected}, {info['mismatched_keys']}")


@torch.no_grad()
def log_probabilities(model, ids):
    """Log-probabilities after each of `ids`: [len(ids), vocabulary]."""
    # Without a cache: each step is computed from all tokens before it.
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return torch.log_softmax(logits.double(), dim=-1)


def record(model, prompt, greedy_tokens=GREEDY_TOKENS):
    """The golden record of one prompt; end-of-sequence tokens are ignored."""
    rows = log_probabilities(model, prompt)
    given = [rows[i, token].item() for i, token in enumerate(prompt[1:])]
    ids, greedy = list(prompt), []
    for _ in range(greedy_tokens):
        values, tokens = rows[-1].topk(TOP)
        greedy.append({
            "id": tokens[0].item(),
            "logprob": _round(values[0].item()),
            "margin": _round((values[0] - values[1]).item()),
            "top_ids": tokens.tolist(),
            "top_logprobs": [_round(value) for value in values.tolist()],
        })
        ids.append(tokens[0].item())
        rows = log_probabilities(model, ids)
    return {
        "prompt": list(prompt),
        "prompt_logprobs": [None] + [_round(value) for value in given],
        "greedy": greedy,
    }


def _round(value):
    return round(value, 5)

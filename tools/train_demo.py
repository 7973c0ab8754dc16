"""Trains a demonstration model on its author's text and writes its checkpoint.

    python3 tools/train_demo.py austen --corpus DIR [--out models.d/demo] [--steps N] [--seed S]

The corpus is a directory of one plain text a file, AUTHOR.txt. Prints the loss
on the held-back part (nats a token) as it goes; sample_demo.py shows the voice. A GPU
makes it a matter of minutes; without one it works, slowly.
"""

import argparse
import copy
import json
import math
import time
from pathlib import Path

import numpy
import torch
import transformers
from safetensors.torch import save_file
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

import demo_text
import tokenizer_kinds
from demo_models import CONTEXT, DEMOS, VOCABULARY

# Sequences x tokens of a step; every fourth step sees the whole context.
SHORT, LONG = (64, 256), (16, CONTEXT)
WARM_UP = 40
BIAS_RATE = 0.002  # how fast glm4_moe's routing correction follows the load


class Stream:
    """Training text as one run of tokens, and the places where a paragraph begins."""

    def __init__(self, demo, blocks, document, device):
        tokenizer = tokenizer_kinds.to_tokenizer(document)
        self.prefix = tokenizer.encode("").ids  # what the template puts before a text
        end = tokenizer_kinds.token_id(document, demo.end)
        tokens, starts = [], []
        for text, ends in blocks:
            for paragraph in text.split("\n\n"):
                starts.append(len(tokens))
                tokens += tokenizer.encode(paragraph + "\n\n", add_special_tokens=False).ids
            if ends:
                tokens.append(end)
        self.tokens = torch.tensor(tokens, device=device)
        self.starts = numpy.array(starts)

    def batch(self, rng, shape):
        """Random crops, each after the template's tokens; half of them begin
        with a paragraph, as a user's prompt does."""
        rows, length = shape
        take = length - len(self.prefix)
        last = len(self.tokens) - take
        at = numpy.where(rng.random(rows) < 0.5, rng.choice(self.starts, rows), rng.integers(0, last, rows))
        return self._rows(numpy.minimum(at, last), take)

    def windows(self, length):
        """The whole text in windows one after the other, for validation."""
        take = length - len(self.prefix)
        return self._rows(numpy.arange(0, len(self.tokens) - take, take), take)

    def _rows(self, at, take):
        index = torch.from_numpy(at).to(self.tokens.device)[:, None] + torch.arange(take, device=self.tokens.device)
        prefix = torch.tensor(self.prefix, dtype=torch.long, device=self.tokens.device).expand(len(at), -1)
        return torch.cat([prefix, self.tokens[index]], dim=1)


def configuration(demo, document):
    """config.json of the checkpoint."""
    return {
        **demo.config,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        **special_ids(demo, document),
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }


def special_ids(demo, document):
    kind = tokenizer_kinds.KINDS[demo.kind]
    ids = {"eos_token_id": [tokenizer_kinds.token_id(document, token) for token in demo.stops]}
    for field, token in (("bos_token_id", kind.bos), ("pad_token_id", kind.pad)):
        if token:
            ids[field] = tokenizer_kinds.token_id(document, token)
    return ids


def make_model(demo, config, device):
    # A copy, since transformers writes into nested fields.
    model_config = transformers.AutoConfig.for_model(**copy.deepcopy(config))
    # A padding row would be kept at zero.
    model_config.pad_token_id = None
    model = transformers.AutoModelForCausalLM.from_config(
        model_config, attn_implementation="sdpa" if config["model_type"] != "gpt_oss" else "eager",
        experts_implementation="eager", dtype=torch.float32)
    with torch.no_grad():
        model.get_input_embeddings().weight *= demo.embedding_range / config["initializer_range"]
    return model.to(device)


def balance_by_bias(model):
    """Lets glm4_moe's correction bias follow the load of its experts, as its
    authors train it: no loss term, no gradient."""
    def adjust(router, _, output):
        if router.training:
            load = torch.bincount(output[2].flatten(), minlength=router.num_experts).float()
            router.e_score_correction_bias -= BIAS_RATE * torch.sign(load - load.mean())

    for module in model.modules():
        if hasattr(module, "e_score_correction_bias"):
            module.register_forward_hook(adjust)


def loss_of(model, tokens, auxiliary):
    options = {"output_router_logits": True} if auxiliary else {}
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=tokens.device.type == "cuda"):
        output = model(input_ids=tokens, use_cache=False, **options)
    logits = output.logits[:, :-1].float()
    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1))
    if auxiliary:
        config = model.config
        loss = loss + config.router_aux_loss_coef * load_balancing_loss_func(
            output.router_logits, config.num_local_experts, config.num_experts_per_tok)
    return loss


@torch.no_grad()
def validation_loss(model, stream):
    model.eval()
    rows = stream.windows(SHORT[1])
    losses = [loss_of(model, part, auxiliary=False) * len(part) for part in rows.split(32)]
    model.train()
    return (sum(losses) / len(rows)).item()


def train(model, demo, stream, held_back, steps, seed):
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": demo.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=demo.learning_rate, betas=(0.9, 0.98))
    auxiliary = demo.config["model_type"] in ("qwen3_moe", "gpt_oss")
    balance_by_bias(model)
    rng = numpy.random.default_rng(seed)
    model.train()
    started, best = time.time(), (math.inf, 0)
    for step in range(1, steps + 1):
        rate = min(step / WARM_UP, 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.02)
        for group in optimizer.param_groups:
            group["lr"] = demo.learning_rate * rate
        loss = loss_of(model, stream.batch(rng, LONG if step % 4 == 0 else SHORT), auxiliary)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 25 == 0 or step == steps:
            held = validation_loss(model, held_back)
            best = min(best, (held, step))
            print(f"{demo.name} step {step}/{steps} loss {loss.item():.3f} validation {held:.3f} "
                  f"({time.time() - started:.0f} s)", flush=True)
    return best


def write_checkpoint(demo, model, config, document, directory):
    """The files of a published checkpoint, weights in bf16."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer_kinds.save(demo.kind, document, directory, CONTEXT)
    generation = {"do_sample": True, "temperature": demo.temperature, "top_p": demo.top_p,
                  **special_ids(demo, document)}
    for name, content in (("config.json", config), ("generation_config.json", generation)):
        (directory / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        dtype = torch.float32 if name.endswith("e_score_correction_bias") else torch.bfloat16
        for part, value in on_disk(config["model_type"], name, tensor.cpu().to(dtype)):
            tensors[part] = value.contiguous()
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return sum(tensor.numel() for tensor in tensors.values())


def on_disk(model_type, name, tensor):
    """Published files hold experts one by one, except those of gpt_oss."""
    if ".mlp.experts." not in name or model_type == "gpt_oss":
        yield name, tensor
        return
    before, part = name.rsplit(".", 1)
    for expert, matrix in enumerate(tensor):
        if part == "down_proj":
            yield f"{before}.{expert}.down_proj.weight", matrix
        else:
            gate, up = matrix.chunk(2)
            yield f"{before}.{expert}.gate_proj.weight", gate
            yield f"{before}.{expert}.up_proj.weight", up


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("author", choices=sorted(DEMOS))
    parser.add_argument("--corpus", type=Path, required=True, help="directory of AUTHOR.txt")
    parser.add_argument("--out", type=Path, default=Path("models.d/demo"))
    parser.add_argument("--steps", type=int, help="default: as in demo_models.py")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    demo = DEMOS[arguments.author]
    steps = arguments.steps or demo.steps
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(arguments.seed)

    text = (arguments.corpus / f"{demo.name}.txt").read_text(encoding="utf-8")
    training, validation = demo_text.split(demo_text.documents(demo, text))
    document = tokenizer_kinds.build(demo.kind, [part for part, _ in training], VOCABULARY)
    stream, held_back = (Stream(demo, part, document, device) for part in (training, validation))
    config = configuration(demo, document)
    model = make_model(demo, config, device)
    print(f"{demo.name}: {len(stream.tokens)} tokens to train on, {len(held_back.tokens)} held back", flush=True)

    best, best_step = train(model, demo, stream, held_back, steps, arguments.seed)
    directory = arguments.out / demo.name
    parameters = write_checkpoint(demo, model, config, document, directory)
    # What counts is the checkpoint as stored: read it back.
    stored = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).to(device)
    size = sum(path.stat().st_size for path in directory.iterdir())
    result = {"name": demo.name, "family": config["model_type"], "parameters": parameters, "bytes": size,
              "validation_loss": round(validation_loss(stored, held_back), 3), "best_loss": round(best, 3),
              "best_step": best_step, "steps": steps, "seed": arguments.seed}
    print("result", json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

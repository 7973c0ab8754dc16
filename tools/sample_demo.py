"""Prints what the demonstration models write, sampled with transformers.

    python3 tools/sample_demo.py [AUTHOR...] [--models models.d/demo] [--tokens N] [--count N]
"""

import argparse
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer

from demo_models import DEMOS


def sample(directory, prompt, tokens, count, seed):
    """`count` continuations of the prompt, with the checkpoint's own sampling settings."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    ids = torch.tensor([tokenizer.encode(prompt).ids] * count)
    torch.manual_seed(seed)
    output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens)
    return [tokenizer.decode(row) for row in output.tolist()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("authors", nargs="*", default=list(DEMOS))
    parser.add_argument("--models", type=Path, default=Path("models.d/demo"))
    parser.add_argument("--tokens", type=int, default=120)
    parser.add_argument("--count", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name in arguments.authors:
        texts = sample(arguments.models / name, DEMOS[name].prompt, arguments.tokens, arguments.count, arguments.seed)
        for text in texts:
            print(f"--- {name}\n{text}\n")


if __name__ == "__main__":
    main()

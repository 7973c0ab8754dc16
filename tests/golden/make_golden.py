"""Makes tests/golden/models: small random checkpoints of every family, each with
what transformers says about it in float32; and tests/golden/quantized: the same
for quantized formats, where transformers sees the float32 weights that they mean.

    python3 tests/golden/make_golden.py [CASE...]

Everything is seeded by name: the same versions write the same files again.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

import torch
import transformers

import checkpoint
import reference
from cases import CASES
from quantized_cases import QUANTIZED

MODELS = Path(__file__).parent / "models"
QUANTIZED_MODELS = Path(__file__).parent / "quantized"
PROMPT_LENGTHS = (5, 37, 150)  # within and beyond windows and KV blocks
QUANTIZED_LENGTHS = (5, 70)
QUANTIZED_TOKENS = 10


def load_meant(case):
    with tempfile.TemporaryDirectory() as directory:
        checkpoint.write_meant(case, Path(directory))
        return reference.load(directory)


def make(case):
    directory = (QUANTIZED_MODELS if case.form else MODELS) / case.name
    shutil.rmtree(directory, ignore_errors=True)
    checkpoint.write(case, directory)
    model = load_meant(case) if case.form else reference.load(directory)
    vocab_size = model.config.get_text_config().vocab_size
    picker = random.Random(case.name)
    records = []
    tokens = QUANTIZED_TOKENS if case.form else reference.GREEDY_TOKENS
    for length in QUANTIZED_LENGTHS if case.form else PROMPT_LENGTHS:
        prompt = [picker.randrange(vocab_size) for _ in range(length)]
        records.append(reference.record(model, prompt, tokens))
    document = {"case": case.name, "family": case.family, "records": records}
    text = json.dumps(document, separators=(",", ":"))
    # One line a greedy step, so that a change can be read in a diff.
    text = text.replace('{"id"', '\n{"id"').replace('{"prompt"', '\n{"prompt"')
    (directory / "golden.json").write_text(text + "\n", encoding="utf-8")
    report(case, directory, model, records)


def report(case, directory, model, records):
    """One line a case: size, spread of the logits, how many steps are close calls."""
    logits = reference.log_probabilities(model, records[1]["prompt"])
    steps = [step for entry in records for step in entry["greedy"]]
    close = sum(step["margin"] < 0.05 for step in steps)
    different = len({step["id"] for step in steps})
    size = sum(path.stat().st_size for path in directory.iterdir())
    print(f"{case.name:26} {size / 1000:7.1f} kB  logit spread {logits.std(dim=-1).mean():.2f}  "
          f"margins under 0.05: {close}/{len(steps)}  different tokens {different}", flush=True)


def write_index():
    entries = [{"case": c.name, "family": c.family, "model_type": c.config["model_type"], "dtype": c.dtype,
                "shards": c.shards, "features": list(c.features)} for c in CASES]
    lines = ",\n".join("  " + json.dumps(entry) for entry in entries)
    (MODELS / "index.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help="names of cases; all if none is given")
    names = parser.parse_args().cases
    every = CASES + QUANTIZED
    unknown = set(names) - {case.name for case in every}
    if unknown:
        sys.exit(f"no such case: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)  # so that sums are added in one order everywhere
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    MODELS.mkdir(exist_ok=True)
    QUANTIZED_MODELS.mkdir(exist_ok=True)
    for case in every:
        if not names or case.name in names:
            make(case)
    write_index()


if __name__ == "__main__":
    main()

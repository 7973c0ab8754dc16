"""Makes tests/golden/demo: what transformers says, in float32, about each
demonstration model of models.d/demo after a prompt in words.

    python3 tests/golden/make_demo_golden.py
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer

import reference

ROOT = Path(__file__).parents[2]
OUT = Path(__file__).parent / "demo"
GREEDY_TOKENS = 32
# Long enough to cross the windows of 64 and 128 tokens.
PROMPTS = {
    "austen": "Emma could not help thinking that Mr. Knightley had been a little out of humour; and she was sorry for it."
              " She had not meant to offend him, and she was sure that, upon the whole, he must be convinced of her"
              " good intentions.",
    "melville": "Ahab stood upon the quarter-deck, and for a long time gazed at the sea; while all round him the crew,"
                " with their harpoons and lances, waited in silence for the word. Aloft, the three look-outs swayed"
                " to and fro against the sky.",
    "whitman": "O the joy of the open road!\nO to walk with the crowds of the cities, and to see the ships come in,\n"
               "The mechanics, the sailors, the young men and the old, the mothers of families,\n",
    "shakespeare": "KING RICHARD II:\nWhat says my lord of York? Is he not here?\n\nNORTHUMBERLAND:\nMy gracious lord,"
                   " he comes with all his men,\nAnd brings you news of Bolingbroke the duke.\n\nKING RICHARD II:\n",
    "joyce": "Mr Bloom walked along the quay, past the shops and the open doors. A smell of bread. He felt in his pocket"
             " for the letter and stood at the corner to let a tram go by.\n\n--Good day, Mr Bloom, a voice said.\n\n",
    "chesterton": "Father Brown looked at the broken window for some time without speaking. Then he turned round, blinking"
                  " in the sunlight, and said in a small voice: \"I am afraid I have been very stupid.\"\n\n\"What do you"
                  " mean?\" asked the inspector.\n\n",
}


def main():
    torch.set_num_threads(1)  # so that sums are added in one order everywhere
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    OUT.mkdir(exist_ok=True)
    for name, text in PROMPTS.items():
        directory = ROOT / "models.d" / "demo" / name
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        model = reference.load(directory)
        record = reference.record(model, tokenizer.encode(text).ids, GREEDY_TOKENS)
        written = tokenizer.decode([step["id"] for step in record["greedy"]])
        document = {"model": name, "family": model.config.model_type, "text": text, "greedy_text": written,
                    "records": [record]}
        line = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
        line = line.replace('{"id"', '\n{"id"').replace('{"prompt"', '\n{"prompt"')
        (OUT / f"{name}.json").write_text(line + "\n", encoding="utf-8")
        print(f"{name}: {len(record['prompt'])} prompt tokens; {written!r}", file=sys.stdout, flush=True)


if __name__ == "__main__":
    main()

"""What our workers say about sequences, asked through the real supervisor."""

import json
import pathlib
import random
import subprocess
import tempfile
from types import SimpleNamespace

import transformers
from accuracy_transformers import TOLD
from serve import Server

POSITIONS = 4096  # at least so many of each model
LONGEST = 384  # tokens of a sequence
START = 4  # random tokens that a sequence begins with
WAVES = (1, 2, 4)  # sequences that decode together; then all others


class Shape:
    """How many sequences of how many tokens a model is asked for."""

    def __init__(self, model):
        config = transformers.AutoConfig.from_pretrained(model.directory).get_text_config()
        self.length = min(config.max_position_embeddings - 1, LONGEST)
        self.given = len(model.start) or START
        self.sequences = -(-POSITIONS // (self.length - self.given))
        picker = random.Random(model.name)
        self.starts = [list(model.start) or [picker.randrange(config.vocab_size) for _ in range(START)]
                       for _ in range(self.sequences)]


class Told:
    """What a server tells of a position."""

    def __init__(self, id, logprob, top):
        self.best = top[0]["id"]
        self.least = top[-1]["logprob"]
        self.by_id = {entry["id"]: entry["logprob"] for entry in top} | {id: logprob}


class Workers:
    """A supervisor with all models, each started when it is asked for and ended with `unload`."""

    def __init__(self, bundle, device, models):
        self.folder = tempfile.TemporaryDirectory()
        directory = pathlib.Path(self.folder.name)
        for model in models:
            quantize = f"quantize: {model.quantize}" if model.quantize else ""
            (directory / f"{model.name}.textproto").write_text(
                f'name: "{model.name}" checkpoint: "{model.directory}" max_sequences: 16 '
                f"context_length: {Shape(model).length + 1} {quantize}\n")
        config = directory / "config"
        config.write_text("prefetch_at_start: false\n")
        self.server = Server(SimpleNamespace(bin=str(bundle), models=str(directory)), device,
                             ("--config", str(config)))

    def sample(self, model):
        """Texts of the model's own: rows of ids, and what decoding said of each generated token."""
        shape = Shape(model)
        rows, said, done = [], [], 0
        for wave in (*WAVES, shape.sequences):
            starts = shape.starts[done:done + wave]
            answers = self._together([
                ("--prompt-ids", _joined(start), "--max-tokens", shape.length - len(start), "--temperature", 1,
                 "--top-k", 0, "--top-p", 1, "--seed", done + i, "--ignore-eos", "--model", model.name)
                for i, start in enumerate(starts)])
            done += len(starts)
            rows += [start + answer["token_ids"] for start, answer in zip(starts, answers)]
            said += [[Told(token["id"], token["logprob"], token["top"]) for token in answer["logprobs"]]
                     for answer in answers]
        return rows, said

    def read(self, model, rows):
        """What prefill says of each token of `rows` but the first."""
        answers = self._together([("--prompt-ids", _joined(row), "--max-tokens", 1, "--temperature", 0,
                                   "--prompt-logprobs", "--model", model.name) for row in rows])
        return [[Told(*token) for token in zip(row[1:], answer["prompt_logprobs"][1:], answer["prompt_top"][1:])]
                for row, answer in zip(rows, answers)]

    def unload(self, model):
        self.server.run("unload", model.name)

    def stop(self):
        self.server.stop()
        self.folder.cleanup()

    def _together(self, requests):
        command = [self.server.cli, "--address", self.server.address, "--json", "generate", "--logprobs", str(TOLD)]
        running = [subprocess.Popen([*command, *map(str, request)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                    text=True) for request in requests]
        answers = [process.communicate(timeout=300) for process in running]
        for process, (_, error) in zip(running, answers):
            if process.returncode != 0:
                raise RuntimeError(f"{error.strip()}\n{self.server.log_text()[-2000:]}")
        return [json.loads(text) for text, _ in answers]


def _joined(ids):
    return ",".join(map(str, ids))

"""Damaged checkpoints in real workers, beside one that is whole."""

import json
import os
import pathlib
import shutil
import signal
import tempfile
import unittest

from harness import MODELS, Supervisor, control, grpc, inference, model, wait_for

AUSTEN = MODELS / "demo/austen"
WEIGHTS = "model.safetensors"


def edit_json(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def edit_header(folder, edit):
    """Rewrites the header of the weights; the data stay as they are."""
    path = folder / WEIGHTS
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    edit(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])


def truncate(folder):
    path = folder / WEIGHTS
    os.truncate(path, path.stat().st_size // 2)


def header_without_end(folder):
    path = folder / WEIGHTS
    path.write_bytes((1 << 62).to_bytes(8, "little") + path.read_bytes()[8:])


def write_nan(folder, tensor, element):
    """One weight of a bf16 tensor becomes NaN."""
    path = folder / WEIGHTS
    content = bytearray(path.read_bytes())
    end = 8 + int.from_bytes(content[:8], "little")
    entry = json.loads(content[8:end])[tensor]
    assert entry["dtype"] == "BF16"
    at = end + entry["data_offsets"][0] + 2 * element
    content[at:at + 2] = b"\xc0\x7f"
    path.write_bytes(content)


NORM, EMBEDDING = "model.norm.weight", "model.embed_tokens.weight"
# What is done to a copy, and a word that the message must have.
DAMAGE = {
    "truncated": (truncate, WEIGHTS),
    "headerless": (header_without_end, WEIGHTS),
    "overlapping": (lambda f: edit_header(
        f, lambda h: h[NORM].update(data_offsets=[o - 2 for o in h[NORM]["data_offsets"]])), WEIGHTS),
    "overflowing": (lambda f: edit_header(
        f, lambda h: h[NORM].update(shape=[1 << 62, 1 << 62])), NORM),
    "missing": (lambda f: edit_header(f, lambda h: h.update(other=h.pop(NORM))), NORM),
    "dtype": (lambda f: edit_header(f, lambda h: h[EMBEDDING].update(dtype="I16")), EMBEDDING),
    "contradiction": (lambda f: edit_json(
        f / "config.json", lambda c: c.update(intermediate_size=c["intermediate_size"] + 1)),
        "mlp"),
    "family": (lambda f: edit_json(
        f / "config.json", lambda c: c.update(model_type="mamba")), "mamba"),
    "config": (lambda f: (f / "config.json").write_text("{"), "config.json"),
    "tokenizer": (lambda f: (f / "tokenizer.json").write_text('{"model": {"type": "BPE"'),
                  "tokenizer.json"),
    "component": (lambda f: edit_json(
        f / "tokenizer.json", lambda c: c.update(pre_tokenizer={"type": "Telepathy"})),
        "Telepathy"),
}


class DamageTest(unittest.TestCase):

    def test_each_is_named_and_the_whole_one_goes_on(self):
        with tempfile.TemporaryDirectory() as folder:
            models = pathlib.Path(folder)
            for name, (damage, _) in [("austen", (lambda f: None, "")), *DAMAGE.items()]:
                shutil.copytree(AUSTEN, models / "checkpoints" / name)
                damage(models / "checkpoints" / name)
                (models / f"{name}.textproto").write_text(
                    f'name: "{name}" checkpoint: "checkpoints/{name}"')
            with Supervisor(models=models) as s:
                expected = s.generate("austen")[1]
                for name, (_, word) in DAMAGE.items():
                    with self.assertRaises(grpc.RpcError, msg=name) as caught:
                        s.generate(name)
                    self.assertEqual(caught.exception.code(), grpc.StatusCode.FAILED_PRECONDITION,
                                     f"{name}: {caught.exception.details()}")
                    self.assertIn(word, caught.exception.details(), name)
                    self.assertIn(word, s.model(name).error, name)
                    self.assertEqual(s.generate("austen")[1], expected, name)


class AwayTest(unittest.TestCase):
    """Files that are away for a while and come back as they were: no entry tells of that."""

    def test_a_reload_tries_again_what_has_failed(self):
        with tempfile.TemporaryDirectory() as folder:
            models = pathlib.Path(folder)
            shutil.copytree(AUSTEN, models / "austen")
            (models / "austen.textproto").write_text('name: "austen" checkpoint: "austen"')
            with Supervisor(models=models) as s:
                expected = s.generate("austen")[1]
                (models / "austen").rename(models / "away")
                os.kill(s.model("austen").worker_pid, signal.SIGKILL)
                wait_for(lambda: s.model("austen").state == model.FAILED, 60)
                (models / "away").rename(models / "austen")
                reply = s.control.ReloadConfig(control.ReloadConfigRequest())
                self.assertEqual(list(reply.tried_again), ["austen"])
                self.assertEqual(list(reply.problems), [])
                self.assertEqual(s.generate("austen")[1], expected)


class NotNumbersTest(unittest.TestCase):
    """Weights of the right shape that are not numbers: only what is computed with them tells."""

    def fails(self, s, name, **kwargs):
        with self.assertRaises(grpc.RpcError) as caught:
            s.generate(name, **kwargs)
        return caught.exception

    def test_no_token_comes_of_them_and_nobody_else_suffers(self):
        logits = "its logits are not numbers"
        with tempfile.TemporaryDirectory() as folder:
            models = pathlib.Path(folder)
            for name in ("austen", "damaged"):
                shutil.copytree(AUSTEN, models / "checkpoints" / name)
                (models / f"{name}.textproto").write_text(
                    f'name: "{name}" checkpoint: "checkpoints/{name}"')
            write_nan(models / "checkpoints/damaged", "model.layers.2.mlp.down_proj.weight", 1234)
            with Supervisor(models=models) as s:
                expected = s.generate("austen")[1]
                self.assertTrue(s.serving("damaged"))  # nothing is known against it
                error = self.fails(s, "damaged")
                self.assertEqual(error.code(), grpc.StatusCode.DATA_LOSS, error.details())
                self.assertIn(f"damaged: {logits}", error.details())
                wait_for(lambda: not s.serving("damaged"), what="its health to end")
                self.assertIn(logits, s.model("damaged").error)
                self.assertEqual(s.generate("austen")[1], expected)

                # A new worker has the same weights. Five, and no more is asked of it.
                codes = {grpc.StatusCode.DATA_LOSS, grpc.StatusCode.UNAVAILABLE}

                def failed():
                    error = self.fails(
                        s, "damaged", logprobs=inference.LogprobOptions(prompt_logprobs=1))
                    self.assertFalse(s.serving("damaged"))
                    if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
                        self.assertIn(logits, error.details())
                        return True
                    self.assertIn(error.code(), codes, error.details())
                    return False

                wait_for(failed, 60, "it to be given up")
                damaged, austen = s.model("damaged"), s.model("austen")
                self.assertEqual((damaged.state, damaged.restarts, damaged.tokens),
                                 (model.FAILED, 5, 0))
                self.assertIn(logits, damaged.error)
                self.assertEqual((austen.restarts, austen.error), (0, ""))
                self.assertEqual(s.generate("austen")[1], expected)
                self.assertTrue(s.serving("austen"))


if __name__ == "__main__":
    unittest.main(verbosity=2)

"""What tests/gpu/accuracy looks at: every golden checkpoint, the same families and formats with larger matrices,
and the demonstration models as they are and with `quantize: FP8 | INT4`; for each a checkpoint that transformers
reads with the weights that are meant."""

import json
import pathlib
from dataclasses import dataclass, replace

import checkpoint
import quantize_option
import quantized
import torch
from accuracy_wide import WIDE
from cases import CASES, Case
from quantized_cases import QUANTIZED
from safetensors.torch import load_file

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Model:
    name: str
    family: str
    form: str  # of its weights, for the table
    directory: pathlib.Path  # the checkpoint that our worker reads
    quantize: str = ""  # FP8 or INT4 of models.d
    case: Case = None  # none: a demonstration model
    start: tuple = ()  # a prompt's first tokens; none: random ones

    def meant(self, folder):
        """A checkpoint with the weights that are meant, for transformers; below `folder` if it is made."""
        if not self.quantize and not (self.case and self.case.form):
            return self.directory
        made = folder / self.name
        made.mkdir(parents=True)
        if self.quantize:
            quantize_option.write_meant(self.directory, self.quantize, made)
        else:
            self._check_stored()
            checkpoint.write_meant(self.case, made)
        return made

    def _check_stored(self):
        """The weights that are meant are made anew, so they must be those of the file."""
        stored, _ = quantized.split(self.case, checkpoint.tensors(self.case))
        file = load_file(self.directory / "model.safetensors")
        for name, tensor in stored.items():
            if not torch.equal(tensor.contiguous().view(-1).view(torch.uint8), file[name].view(-1).view(torch.uint8)):
                raise ValueError(f"{self.name}: {name} comes out otherwise than it is stored")


def all_models(folder):
    """`folder`: where checkpoints are that are not in the repository; `write` makes them."""
    golden = ROOT / "tests" / "golden"
    for cases, where in ((CASES, golden / "models"), (QUANTIZED, golden / "quantized"), (WIDE, folder)):
        for case in cases:
            yield Model(case.name, case.family, case.form or case.dtype, where / case.name, case=case)
    for case in WIDE:
        if case.name in ("wide_llama", "wide_qwen3_moe"):
            yield from _quantized_on_the_way(Model(case.name, case.family, "", folder / case.name, case=case))
    for record in sorted((golden / "demo").glob("*.json")):
        document = json.loads(record.read_text(encoding="utf-8"))
        model = Model(record.stem, document["family"], "bfloat16", ROOT / "models.d" / "demo" / record.stem,
                      start=tuple(document["records"][0]["prompt"][:8]))
        yield model
        yield from _quantized_on_the_way(model)


def _quantized_on_the_way(model):
    for quantize in quantize_option.FORMS:
        yield replace(model, name=f"{model.name}-{quantize}", form=f"quantize: {quantize}", quantize=quantize)


def write(models):
    """The checkpoints that are not there."""
    for model in models:
        if not model.directory.exists():
            checkpoint.write(model.case, model.directory)

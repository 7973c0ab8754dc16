"""What transformers says about sequences: in float32, which is the reference, and in bf16."""

import reference
import torch
from torch.overrides import TorchFunctionMode

BEST = 5  # tokens of a position that count beside the one that follows
TOLD = 20  # a server tells the token that follows, and no more than so many of its own best
OPEN = 1e-5  # of the largest score: choices of experts by less may fall either way in float32


@torch.no_grad()
def _log_probabilities(model, rows, device):
    """Of rows of ids [n][t]: [n][t - 1][vocabulary], for the token after each but the last."""
    logits = model.to(device)(input_ids=torch.tensor(rows, device=device), use_cache=False).logits
    return torch.log_softmax(logits[:, :-1].double(), dim=-1)


def _in_bf16(folder, rows, device):
    """Log-probabilities as transformers comes to them by itself, and in what way. Its grouped products
    refuse sizes that are no multiples of 16 bytes; then expert by expert."""
    for experts in (None, "eager"):
        model = reference.load(folder, dtype=torch.bfloat16, attn_implementation=None, experts_implementation=experts)
        config = model.config.get_text_config()
        way = " ".join(str(getattr(config, f"_{part}_implementation", None)) for part in ("attn", "experts"))
        try:
            return _log_probabilities(model, rows, device), way
        except RuntimeError as error:
            if "16 bytes" not in str(error):
                raise


class OpenChoices(TorchFunctionMode):
    """Notes which rows of [rows][experts] had a choice of experts that was too close to call."""

    def __init__(self):
        super().__init__()
        self.rows = False

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function in (torch.topk, torch.Tensor.topk) and args[0].dim() == 2:
            chosen, scores = result.values.shape[1], args[0]
            if chosen < scores.shape[1]:
                ordered = scores.sort(dim=-1, descending=True).values
                lead = ordered[:, chosen - 1] - ordered[:, chosen]
                self.rows |= lead < OPEN * scores.masked_fill(scores.isinf(), 0).abs().amax(-1)
        return result


def _told(exact, theirs, tokens):
    """Of bf16 what a server would tell; of other tokens that they are less likely than the last of its best."""
    least = theirs.topk(TOLD).values[..., -1:]
    values = theirs.gather(-1, tokens)
    told = values >= least
    told[..., 0] = True
    return torch.where(told, values, torch.minimum(exact, least)), ~told


class Said:
    """Arrays [n][t - 1][...], by sequence and position.

    tokens, counts  the tokens that count: the one that follows, and the reference's best
    float32, bf16   their log-probabilities; of bf16, where `untold`, the reference's own, or the last of bf16's best
    open            experts were chosen by a hair
    best, margin    the reference's best token, and its lead over the second
    bf16_best       that of bf16
    way             how transformers computed bf16: its attention, its experts
    """

    def __init__(self, folder, rows, device):
        with OpenChoices() as choices:
            exact = _log_probabilities(reference.load(folder), rows, device)
        follows = torch.tensor(rows, device=device)[:, 1:, None]
        values, best = exact.topk(BEST)
        tokens = torch.cat([follows, best], dim=-1)
        counts = torch.ones_like(tokens, dtype=torch.bool)
        counts[..., :1] = (follows != best).all(-1, keepdim=True)
        theirs, self.way = _in_bf16(folder, rows, device)
        float32 = exact.gather(-1, tokens)
        bf16, untold = _told(float32, theirs, tokens)
        undecided = torch.zeros(len(rows), len(rows[0]), dtype=torch.bool, device=device)
        undecided |= choices.rows if choices.rows is False else choices.rows.view_as(undecided)
        arrays = dict(tokens=tokens, counts=counts, float32=float32, bf16=bf16, untold=untold & counts,
                      best=best[..., 0], margin=values[..., 0] - values[..., 1], bf16_best=theirs.argmax(-1),
                      open=undecided[:, :-1])
        for name, tensor in arrays.items():
            setattr(self, name, tensor.cpu().numpy())
        self.entropy = -(exact.exp() * exact).sum(-1).mean().item()
        self.vocabulary = exact.shape[-1]

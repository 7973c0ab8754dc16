"""Small tokenizers of each real kind, trained on given texts.

`build(kind, texts, vocab_size)` returns a complete tokenizer.json as a dict:
the vocabulary is learned from the texts, everything else (normalizer,
pre-tokenizer, model flags, post-processor, decoder, added tokens and their
flags) is laid out as the published tokenizers of that kind have it.

    python3 tools/tokenizer_kinds.py llama3 OUT_DIR --vocab-size 2048 text.txt
"""

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_PATTERN = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + TAIL
QWEN_PATTERN = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + TAIL
GLM_PATTERN = LLAMA3_PATTERN
O200K_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
O200K_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K_PATTERN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{O200K_UPPER}*{O200K_LOWER}+{CONTRACTIONS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{O200K_UPPER}+{O200K_LOWER}*{CONTRACTIONS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

SPACE = "\u2581"  # what SentencePiece writes for a space
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]
# How words are cut while a SentencePiece-like vocabulary is learned: published
# ones were trained so, although their tokenizer.json does not cut at run time.
SPM_TRAINING_PATTERN = rf"{SPACE}?\p{{L}}+|{SPACE}?\p{{N}}|{SPACE}?[^\p{{L}}\p{{N}}{SPACE}\n]+|{SPACE}+"


@dataclass(frozen=True)
class Kind:
    """Everything about a kind of tokenizer that is not learned."""

    special: list  # added tokens, `special: true`
    plain: list = field(default_factory=list)  # added tokens, `special: false`
    byte_level: bool = True  # GPT-2 byte alphabet; else byte fallback
    normalizer: dict | None = None
    pre_tokenizer: dict | None = None
    post_processor: dict | None = None
    decoder: dict | None = None
    ignore_merges: bool = False
    affixes: str | None = None  # what continuing_subword_prefix and end_of_word_suffix hold
    template: tuple = ()  # tokens put before every text
    template_after_byte_level: bool = False
    merges: str = "strings"  # how the published files spell merges
    bos: str | None = None
    eos: str | None = None
    pad: str | None = None
    tokenizer_class: str = "PreTrainedTokenizerFast"


def _byte_level(add_prefix_space, trim_offsets, use_regex):
    return {
        "type": "ByteLevel",
        "add_prefix_space": add_prefix_space,
        "trim_offsets": trim_offsets,
        "use_regex": use_regex,
    }


def _split_then_bytes(pattern, trim_offsets=True):
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _byte_level(False, trim_offsets, False)]}


def _replace(pattern, content):
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


def _fallback_decoder(*last):
    steps = [_replace(SPACE, " "), {"type": "ByteFallback"}, {"type": "Fuse"}, *last]
    return {"type": "Sequence", "decoders": steps}


_STRIP_FIRST = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
_METASPACE = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": False}
_METASPACE_SPLIT = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True}

KINDS = {
    "llama3": Kind(
        special=["<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|start_header_id|>",
                 "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"],
        pre_tokenizer=_split_then_bytes(LLAMA3_PATTERN),
        post_processor=_byte_level(True, False, True),
        decoder=_byte_level(True, True, True),
        ignore_merges=True,
        template=("<|begin_of_text|>",),
        template_after_byte_level=True,
        bos="<|begin_of_text|>", eos="<|end_of_text|>", pad="<|finetune_right_pad_id|>",
    ),
    "qwen": Kind(
        special=["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"],
        plain=["<tool_call>", "</tool_call>", "<|fim_prefix|>", "<think>", "</think>"],
        normalizer={"type": "NFC"},
        pre_tokenizer=_split_then_bytes(QWEN_PATTERN, trim_offsets=False),
        post_processor=_byte_level(False, False, False),
        decoder=_byte_level(False, False, False),
        affixes="",
        eos="<|im_end|>", pad="<|endoftext|>",
        tokenizer_class="Qwen2Tokenizer",
    ),
    "o200k": Kind(
        special=["<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>", "<|channel|>", "<|start|>",
                 "<|end|>", "<|message|>", "<|call|>", "<|endofprompt|>"],
        pre_tokenizer=_split_then_bytes(O200K_PATTERN),
        post_processor=_byte_level(True, False, True),
        decoder=_byte_level(True, True, True),
        merges="pairs",
        bos="<|startoftext|>", eos="<|return|>", pad="<|endoftext|>",
    ),
    "glm": Kind(
        special=["<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>",
                 "<|assistant|>", "<|observation|>"],
        plain=["<think>", "</think>", "<tool_call>", "</tool_call>", "/nothink"],
        pre_tokenizer=_split_then_bytes(GLM_PATTERN),
        post_processor=_byte_level(True, False, True),
        decoder=_byte_level(True, True, True),
        ignore_merges=True,
        template=("[gMASK]", "<sop>"),
        template_after_byte_level=True,
        merges="pairs",
        eos="<|endoftext|>", pad="<|endoftext|>",
    ),
    "gemma": Kind(
        special=["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"],
        plain=["<mask>", "[multimodal]", "<unused0>", "<unused1>", *("\n" * n for n in range(1, 5)),
               *(SPACE * n for n in range(2, 5)), "<table>", "</table>"],
        byte_level=False,
        normalizer=_replace(" ", SPACE),
        pre_tokenizer={"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        decoder=_fallback_decoder(),
        template=("<bos>",),
        merges="pairs",
        bos="<bos>", eos="<eos>", pad="<pad>",
        tokenizer_class="GemmaTokenizer",
    ),
    "llama2": Kind(
        special=["<unk>", "<s>", "</s>"],
        byte_level=False,
        normalizer={"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, _replace(" ", SPACE)]},
        decoder=_fallback_decoder(_STRIP_FIRST),
        template=("<s>",),
        bos="<s>", eos="</s>",
        tokenizer_class="LlamaTokenizer",
    ),
    "mistral_metaspace": Kind(
        special=["<unk>", "<s>", "</s>", "[INST]", "[/INST]"],
        byte_level=False,
        pre_tokenizer=_METASPACE,
        decoder=_fallback_decoder(_STRIP_FIRST),
        template=("<s>",),
        bos="<s>", eos="</s>",
        tokenizer_class="LlamaTokenizer",
    ),
    # The same with Metaspace on both sides and a split at every space.
    "metaspace_decoder": Kind(
        special=["<unk>", "<s>", "</s>"],
        byte_level=False,
        pre_tokenizer=_METASPACE_SPLIT,
        decoder={"type": "Sequence", "decoders": [{"type": "ByteFallback"}, _METASPACE_SPLIT]},
        template=("<s>",),
        merges="pairs",
        bos="<s>", eos="</s>",
        tokenizer_class="LlamaTokenizer",
    ),
}


def _learn(kind, texts, size):
    """Learns at most `size` tokens; returns (tokens in order of id, merges as pairs)."""
    tokenizer = Tokenizer(models.BPE())
    if kind.byte_level:
        if kind.normalizer:
            tokenizer.normalizer = normalizers.NFC()
        pattern = kind.pre_tokenizer["pretokenizers"][0]["pattern"]["Regex"]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ])
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer.normalizer = normalizers.Replace(" ", SPACE)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split("\n", "removed"),
            pre_tokenizers.Split(Regex(SPM_TRAINING_PATTERN), "isolated"),
        ])
        alphabet = [SPACE]
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False, min_frequency=2)
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    return tokens, merges


def _template(tokens, ids):
    single = [{"SpecialToken": {"id": token, "type_id": 0}} for token in tokens]
    pair = single + [{"Sequence": {"id": "A", "type_id": 0}}]
    # A pair of texts gets the tokens before each of the two.
    pair += [{"SpecialToken": {"id": token, "type_id": 1}} for token in tokens]
    pair += [{"Sequence": {"id": "B", "type_id": 1}}]
    return {
        "type": "TemplateProcessing",
        "single": single + [{"Sequence": {"id": "A", "type_id": 0}}],
        "pair": pair,
        "special_tokens": {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in tokens},
    }


def _post_processor(kind, ids):
    if not kind.template:
        return kind.post_processor
    template = _template(kind.template, ids)
    if not kind.template_after_byte_level:
        return template
    return {"type": "Sequence", "processors": [kind.post_processor, template]}


def build(kind_name, texts, vocab_size, merges=None):
    """Returns a tokenizer.json of `kind_name` as a dict, with `vocab_size` ids
    in all (fewer if the texts are too small to learn so many). `merges` is
    "strings" ("a b") or "pairs" (["a", "b"]); by default as published."""
    kind = KINDS[kind_name]
    added = kind.special + kind.plain
    reserved = len(added) + (0 if kind.byte_level else len(BYTE_TOKENS))
    if vocab_size <= reserved:
        raise ValueError(f"vocab_size {vocab_size} is not above the {reserved} reserved ids of {kind_name}")
    learned, pairs = _learn(kind, texts, vocab_size - reserved)
    if kind.byte_level:
        # Added tokens come after the model's own vocabulary and are no part of it.
        vocab = {token: i for i, token in enumerate(learned)}
        ids = {token: len(vocab) + i for i, token in enumerate(added)}
    else:
        in_order = dict.fromkeys(added + BYTE_TOKENS + learned)
        vocab = {token: i for i, token in enumerate(in_order)}
        ids = {token: vocab[token] for token in added}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": ids[token], "content": token, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": token in kind.special}
            for token in added
        ],
        "normalizer": kind.normalizer,
        "pre_tokenizer": kind.pre_tokenizer,
        "post_processor": _post_processor(kind, ids),
        "decoder": kind.decoder,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None if kind.byte_level else "<unk>",
            "continuing_subword_prefix": kind.affixes,
            "end_of_word_suffix": kind.affixes,
            "fuse_unk": not kind.byte_level,
            "byte_fallback": not kind.byte_level,
            "ignore_merges": kind.ignore_merges,
            "vocab": vocab,
            "merges": [list(pair) for pair in pairs],
        },
    }
    return spell_merges(document, merges or kind.merges)


def spell_merges(document, how):
    """The same tokenizer.json with merges as "strings" or as "pairs"."""
    pairs = [m.split(" ") if isinstance(m, str) else list(m) for m in document["model"]["merges"]]
    spelled = pairs if how == "pairs" else [" ".join(pair) for pair in pairs]
    return {**document, "model": {**document["model"], "merges": spelled}}


def to_tokenizer(document):
    """The `tokenizers` object that a tokenizer.json describes."""
    return Tokenizer.from_str(json.dumps(document, ensure_ascii=False))


def token_id(document, token):
    """The id of an added token of the document."""
    return next(entry["id"] for entry in document["added_tokens"] if entry["content"] == token)


def tokenizer_config(kind_name, document, max_length):
    """The small tokenizer_config.json that goes with the document."""
    kind = KINDS[kind_name]
    return {
        "added_tokens_decoder": {
            str(entry["id"]): {key: value for key, value in entry.items() if key != "id"}
            for entry in document["added_tokens"]
        },
        "bos_token": kind.bos,
        "clean_up_tokenization_spaces": False,
        "eos_token": kind.eos,
        "model_max_length": max_length,
        "pad_token": kind.pad,
        "tokenizer_class": kind.tokenizer_class,
        "unk_token": None if kind.byte_level else "<unk>",
    }


def save(kind_name, document, directory, max_length=1024):
    """Writes tokenizer.json and tokenizer_config.json."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, ensure_ascii=False, indent=1)
    (directory / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
    config = json.dumps(tokenizer_config(kind_name, document, max_length), ensure_ascii=False, indent=2)
    (directory / "tokenizer_config.json").write_text(config + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description="Trains a small tokenizer of a real kind.")
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("directory")
    parser.add_argument("texts", nargs="+", help="text files to learn from")
    parser.add_argument("--vocab-size", type=int, default=2048)
    parser.add_argument("--merges", choices=["strings", "pairs"])
    arguments = parser.parse_args()
    texts = [Path(path).read_text(encoding="utf-8") for path in arguments.texts]
    save(arguments.kind, build(arguments.kind, texts, arguments.vocab_size, arguments.merges), arguments.directory)


if __name__ == "__main__":
    main()

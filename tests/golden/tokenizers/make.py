"""Makes the golden tokenizers and what the `tokenizers` library says with them.

    python3 tests/golden/tokenizers/make.py CORPUS_DIR

Every folder gets a tokenizer.json and a cases.json; texts.json has the texts that all of them share.
The folders named after a kind are laid out as published tokenizers are (tools/tokenizer_kinds.py);
the others, `mix_*`, put together the components that those kinds do not use. The vocabularies are
learned from CORPUS_DIR/*.txt; no text of the corpus is stored.

cases.json, one line a case, in the order of texts.json and then `own_texts` (this tokenizer's added
tokens worked into text): [ids, plain, unparsed, decoded, skipped], where
  ids       with special tokens: the list, or [-1, count, crc] if it is long
  plain     crc of the ids without special tokens
  unparsed  crc of the ids without special tokens when special tokens in the text count as text
  decoded   0 if decoding `ids` gives the text again, else the crc of what it gives
  skipped   0 if so does decoding without special tokens, else the crc
A crc is CRC-32: of the ids as little-endian int32, or of the UTF-8 text. An entry of texts.json is a
text, or [unit, count] for a unit repeated.

    python3 tests/golden/tokenizers/make.py CORPUS_DIR --expect FILE

writes what the library says of the whole corpus with each kind, for the test that SWITCHYARD_CORPUS_DIR and
SWITCHYARD_CORPUS_EXPECTED switch on.
"""

import argparse
import copy
import json
import struct
import sys
import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "tools"))
sys.path.insert(0, str(HERE))

import texts as hostile  # noqa: E402
import tokenizer_kinds  # noqa: E402

VOCAB_SIZE = 1200
MIX_VOCAB_SIZE = 640
MIX_TEXTS = 3  # every third text is enough for a mix
LONG_LIST = 20


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def replace(pattern, content, kind="String"):
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def pre(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def normal(*steps):
    return {"type": "Sequence", "normalizers": [step if isinstance(step, dict) else {"type": step} for step in steps]}


def byte_level(add_prefix_space=False, use_regex=False):
    return {"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": use_regex}


def metaspace(scheme="always", split_too=True):
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": split_too}


def add_tokens(document, *tokens):
    """Each token is (content, flags that are set)."""
    largest = max([*document["model"]["vocab"].values(), *(token["id"] for token in document["added_tokens"])])
    vocab = document["model"]["vocab"]
    for content, *flags in tokens:
        largest += content not in vocab
        entry = {"id": vocab.get(content, largest), "content": content}
        for flag in ["single_word", "lstrip", "rstrip", "normalized", "special"]:
            entry[flag] = flag in flags
        document["added_tokens"].append(entry)


FLAGGED = [("<left>", "lstrip"), ("<right>", "rstrip", "special"), ("<both>", "lstrip", "rstrip"), ("word", "single_word"),
           ("Wörd", "single_word", "normalized"), ("<Norm É>", "normalized"), ("<norm", "normalized", "lstrip"),
           ("<", "special"), ("<<left>", "rstrip"), ("<s p>", "special", "normalized"), ("é", "special"), ("\n\n\n",),
           (" hi ", "lstrip"), ("12", "single_word", "rstrip")]

CL100K_PATTERN = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"
                  r"|\s*[\r\n]|\s+(?!\S)|\s")
CODE_PATTERN = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
                r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CLASSES_PATTERN = (r"(?<year>\b\d{4}\b)|[\w-]{2,5}|\h{,2}\p{Greek}+|\W\b|(?<=a)\s(?=b)|\u00e9+|\x{1F600}|\p{Han}{2}+"
                   r"|(?>\p{Lu}+)\p{^L}|[^\S\n]+|(?:ab)*+c|.\v")


def mixes(texts):
    """(name, document) of every mix."""
    def base(kind):
        return copy.deepcopy(bases.setdefault(kind, tokenizer_kinds.build(kind, texts, MIX_VOCAB_SIZE)))

    bases = {}

    def mix(kind, tokens=(), **changes):
        document = base(kind)
        add_tokens(document, *tokens)
        for key, value in changes.items():
            if key in ("unk_token", "fuse_unk", "byte_fallback", "ignore_merges"):
                document["model"][key] = value
            else:
                document[key] = value
        return document

    fallback = {"type": "ByteFallback"}
    yield "mix_flags", mix("qwen", FLAGGED)
    yield "mix_flags_lowercase", mix("llama3", FLAGGED, normalizer=normal("NFKC", "Lowercase"))
    # Decoding does not skip a special token there if normalization changes how it is spelled; we do.
    yield "mix_flags_prepend", mix("llama2", [token for token in FLAGGED if "special" not in token or "normalized" not in token])
    yield "mix_first", mix("mistral_metaspace", FLAGGED[:5], pre_tokenizer=metaspace("first", True))
    yield "mix_accents", mix("qwen", normalizer=normal("NFD", "StripAccents", "Lowercase",
                                                       {"type": "Strip", "strip_left": True, "strip_right": True},
                                                       replace(r"\s{2,}|x*$", "_", "Regex")))
    yield "mix_nfkd", mix("qwen", normalizer=normal("NFKD", {"type": "Strip", "strip_left": False, "strip_right": True},
                                                    {"type": "Prepend", "prepend": " #"}, replace("e\u0301", "é")))
    yield "mix_gpt2", mix("qwen", normalizer=None, pre_tokenizer=byte_level(True, True),
                          post_processor={"type": "RobertaProcessing", "sep": ["<|im_end|>", base("qwen")["added_tokens"][2]["id"]],
                                          "cls": ["<|im_start|>", base("qwen")["added_tokens"][1]["id"]],
                                          "trim_offsets": True, "add_prefix_space": True})
    yield "mix_cl100k", mix("qwen", pre_tokenizer=pre(split(CL100K_PATTERN), byte_level()))
    yield "mix_code", mix("glm", normalizer=normal(), pre_tokenizer=pre(
        split(r"\p{N}{1,3}"), split("[一-龥\u3040-ゟ゠-ヿ]+"), split(CODE_PATTERN), byte_level()))
    yield "mix_classes", mix("qwen", pre_tokenizer=pre(split(CLASSES_PATTERN, "Isolated"), byte_level()))
    yield "mix_digits", mix("qwen", pre_tokenizer=pre(
        {"type": "Digits", "individual_digits": True}, {"type": "Punctuation", "behavior": "Contiguous"},
        split(" ", "MergedWithNext", kind="String"), byte_level(False, True)))
    yield "mix_words", mix("qwen", pre_tokenizer=pre({"type": "Whitespace"}, {"type": "Digits", "individual_digits": False},
                                                     byte_level(True)))
    yield "mix_spaces", mix("qwen", normalizer=None, pre_tokenizer=pre(
        {"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": "MergedWithPrevious"}, byte_level()), decoder=None)
    yield "mix_split", mix("llama2", normalizer=None, pre_tokenizer=pre(
        split(r"\s+", "Removed"), split(r"\p{Lu}", "MergedWithNext"), split("e", "MergedWithPrevious", kind="String"),
        split(r"[a-m]", "Contiguous"), split(r"x*", "Isolated"), metaspace("first", False)))
    yield "mix_invert", mix("llama2", normalizer=None, pre_tokenizer=pre(
        split(r"[\p{L}\p{N}]+", "MergedWithPrevious", True), split(r"\d", "Removed", True), byte_level(), metaspace("never")),
        byte_fallback=False, fuse_unk=False)
    yield "mix_unknown", mix("llama2", byte_fallback=False, fuse_unk=True, ignore_merges=True,
                             decoder={"type": "Sequence", "decoders": [metaspace("never"), {"type": "Fuse"},
                                                                       replace(r"o+", "0", "Regex"), replace("a", "")]})
    yield "mix_no_unknown", mix("llama2", byte_fallback=False, unk_token=None, post_processor=None,
                                decoder={"type": "Sequence", "decoders": [fallback, {"type": "Strip", "content": "\u2581", "start": 2,
                                                                                     "stop": 0}, {"type": "Metaspace", "replacement": "\u2581",
                                                                                                  "add_prefix_space": False, "prepend_scheme": "never"}]})
    yield "mix_old_metaspace", mix("metaspace_decoder", pre_tokenizer={"type": "Metaspace", "replacement": "\u2581",
                                                                       "add_prefix_space": True},
                                   decoder={"type": "Metaspace", "replacement": "\u2581", "add_prefix_space": True})


def crc_of_ids(ids):
    return zlib.crc32(struct.pack(f"<{len(ids)}i", *ids))


def crc_unless(text, expected):
    return 0 if text == expected else zlib.crc32(text.encode())


def case(tokenizer, text):
    ids = tokenizer.encode(text).ids
    plain = tokenizer.encode(text, add_special_tokens=False).ids
    tokenizer.encode_special_tokens = True
    unparsed = tokenizer.encode(text, add_special_tokens=False).ids
    tokenizer.encode_special_tokens = False
    return [ids if len(ids) <= LONG_LIST else [-1, len(ids), crc_of_ids(ids)], crc_of_ids(plain), crc_of_ids(unparsed),
            crc_unless(tokenizer.decode(ids, skip_special_tokens=False), text),
            crc_unless(tokenizer.decode(ids, skip_special_tokens=True), text)]


def write_lines(path, head, entries):
    lines = ",\n".join(json.dumps(entry, ensure_ascii=True, separators=(",", ":")) for entry in entries)
    path.write_text(f"{head}[\n{lines}\n]" + ("}\n" if head else "\n"), encoding="utf-8")


def write(name, document, shared):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    compact = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(compact + "\n", encoding="utf-8")
    special = [entry["content"] for entry in document["added_tokens"]]
    own = hostile.own_texts(special)
    step = MIX_TEXTS if name.startswith("mix_") else 1
    used = shared[::step] + own
    tokenizer = tokenizer_kinds.to_tokenizer(document)
    cases = [case(tokenizer, hostile.expand(entry)) for entry in used]
    head = json.dumps({"every": step, "own_texts": own}, ensure_ascii=True, separators=(",", ":"))[:-1] + ',"cases":'
    write_lines(folder / "cases.json", head, cases)


def write_expected(path, folder, texts):
    expected = {}
    for kind in tokenizer_kinds.KINDS:
        tokenizer = tokenizer_kinds.to_tokenizer(json.loads((HERE / kind / "tokenizer.json").read_text(encoding="utf-8")))
        expected[kind] = {name: case(tokenizer, text) for name, text in texts.items()}
    Path(path).write_text(json.dumps(expected), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description="Makes the golden tokenizers.")
    parser.add_argument("corpus", help="folder of .txt files to learn from")
    parser.add_argument("--only", help="make this folder and no other")
    parser.add_argument("--expect", help="write the library's answers for the corpus here, and nothing else")
    arguments = parser.parse_args()
    files = {path.name: path.read_text(encoding="utf-8") for path in sorted(Path(arguments.corpus).glob("*.txt"))}
    if arguments.expect:
        write_expected(arguments.expect, HERE, files)
        return
    texts = [text[:300000] for text in files.values()]
    shared = hostile.shared_texts()
    write_lines(HERE / "texts.json", "", shared)
    for kind in tokenizer_kinds.KINDS:
        if arguments.only in (None, kind):
            write(kind, tokenizer_kinds.build(kind, texts, VOCAB_SIZE), shared)
    for name, document in mixes(texts):
        if arguments.only in (None, name):
            write(name, document, shared)


if __name__ == "__main__":
    main()

"""Hostile texts for tokenizers: every script, emoji, marks, runs, contractions, special tokens.

Everything is generated here, from seeds. An entry is a string, or [unit, count] for `unit` repeated
`count` times.
"""

import random
import unicodedata

CJK = [(0x3400, 0xA000), (0xAC00, 0xD800), (0x17000, 0x19000), (0x20000, 0x32000)]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\n\n", "\v", "\f", "\x85", "\xa0", "\u1680", "\u180e",
          "\u2000", "\u2009", "\u200a", "\u200b", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\ufeff"]
MARKS = ["\u0301", "\u0300", "\u0308", "\u0323", "\u0331", "\u034f", "\u0345", "\u05b4", "\u05bc", "\u064b", "\u0651",
         "\u093c", "\u094d", "\u0e38", "\u0f71", "\u0f72", "\u1ab0", "\u20dd", "\u3099", "\u302a", "\ufe20",
         "\U0001d165", "\U0001d167"]
WORDS = ["hello", "Hello", "HELLO", "camelCase", "XMLHttpRequest", "don't", "the", "of", "whale", "naïve", "Straße",
         "ΑΣ", "σς", "İstanbul", "ıI", "ﬁne", "ǅ", "Ǆ", "ǆ", "été", "e\u0301te\u0301", "Ångström", "한국어", "日本語",
         "中文字", "русский", "العربية", "עברית", "हिन्दी", "ไทย", "ქართული", "Ꭰ", "ꭰ", "𝔘𝔫𝔦", "①②", "²³", "½", "Ⅷ"]
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "🇩🇪🇫🇷", "🇩",
         "❤️", "❤", "1️⃣", "👨🏿‍🚀", "☕", "™", "©️", "\u200d", "\ufe0f", "🧑‍🤝‍🧑", "🫠"]
DIGITS = ["0", "12", "123", "1234", "1234567", "٠١٢٣", "०१२३४", "๑๒๓", "１２３４", "𝟘𝟙𝟚𝟛", "১২", "㊿", "⅔", "௧௨௩"]
PUNCTUATION = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") + ["...", "—", "“", "”", "‘", "’", "«", "»", "¿", "、", "。", "…",
                                                              "€", "₿", "×", "÷", "¬", "£", "\u2581", "\u0120", "->", "://", "//"]
ODD = ["\0", "\x01", "\x1f", "\x7f", "\x80", "\x9f", "\xad", "\ud7ff", "\ue000", "\uf8ff", "\ufffd", "\ufffe", "\uffff",
       "\U0001fffe", "\U000f0000", "\U0010ffff", "\u0378", "\u200c", "\u200d", "\u200e", "\u202e", "\u2060"]
# The letters of 's 't 're 've 'm 'll 'd, with those that fold to them: long s, Kelvin sign (no letter
# of theirs, but a classic), ligatures.
SUFFIXES = ["s", "t", "re", "ve", "m", "ll", "d", "S", "T", "RE", "Re", "rE", "VE", "M", "LL", "lL", "D", "ſ", "ſt", "K",
            "ﬆ", "ﬅ", "ß", "ŉ", "sa", "x", "rE5", "ll'd", "s's", "d'LL"]
APOSTROPHES = ["'", "’", "ʼ", "''", "`", "＇"]


def _assigned(code):
    return unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co")


def _blocks():
    """One text for every 128 code points that hold assigned characters (fewer of the large ones)."""
    rng = random.Random(1)
    for start in range(0, 0x110000, 0x80):
        if any(low <= start < high for low, high in CJK) and rng.random() > 0.04:
            continue
        codes = [code for code in range(start, start + 0x80) if _assigned(code)]
        if not codes:
            continue
        letters = "".join(chr(rng.choice(codes)) for _ in range(6))
        mixed = "".join(chr(rng.choice(codes)) + rng.choice(["", "", " ", "a", "1", "'s", "\u0301"]) for _ in range(5))
        yield letters + rng.choice([" ", "", "  "]) + mixed


def _pick(rng, pools):
    return rng.choice(rng.choice(pools))


def _mixtures(count, seed, *more):
    rng = random.Random(seed)
    pools = [SPACES, SPACES, MARKS, WORDS, WORDS, EMOJI, DIGITS, PUNCTUATION, ODD, *more]
    for _ in range(count):
        yield "".join(_pick(rng, pools) for _ in range(rng.randint(1, 9)))


def _marks(count):
    rng = random.Random(3)
    for _ in range(count):
        base = rng.choice(["a", "e", "o", "A", "ᾳ", "が", "각", "ᄀ", "ᄀ\u1161", "ا", "द", "", " ", "\n", "Å", "ﬁ", "ế"])
        yield base + "".join(rng.choice(MARKS) for _ in range(rng.randint(1, 6))) + rng.choice(["", "x", " b", base])


def _white_space(count):
    rng = random.Random(4)
    for _ in range(count):
        text = ""
        for _ in range(rng.randint(1, 4)):
            text += rng.choice(SPACES) * rng.randint(1, 5) + rng.choice(["", "", "a", "b c", "1", "!", "\n"])
        yield text


def _contractions():
    for i, suffix in enumerate(SUFFIXES):
        for j, apostrophe in enumerate(APOSTROPHES):
            before = ["I", "you ", "X", "", "5", "é", "WE", "\n"][(i + j) % 8]
            yield before + apostrophe + suffix + ["", " go", "'", "7", "\r\n"][(i * 3 + j) % 5]


def _special_tokens(special):
    rng = random.Random(5)
    for token in special:
        for _ in range(5):
            left, right = (rng.choice(["", " ", "  ", "\n", "a", "a ", " \t", "é", "1", "."]) for _ in range(2))
            yield left + token + right + rng.choice(["", token, " " + token, token[:-1], token.upper(), "x" + token])
        yield token[:-1]
        yield token[0] + token


def _long_runs():
    for unit in ["a", " ", "\n", "\u0301", "1", "!", "é", "\t ", "ab", "\u0301\u0323", "字", "😀", "\0", "A", "aB", " a", "\r\n",
                 "'s", "\u2581", "_", "<0x41>"]:
        yield [unit, 100]
        yield [unit, 5000]
    for unit in ["a", " ", "\u0301", "\n", "\u0323\u0301", "A"]:
        yield [unit, 100000 // len(unit)]


def shared_texts():
    everything = ["", *SPACES, *MARKS, *WORDS, *EMOJI, *DIGITS, *PUNCTUATION, *ODD]
    everything += [*_blocks(), *_mixtures(600, 2), *_marks(120), *_white_space(150), *_contractions()]
    return list(dict.fromkeys(everything)) + list(_long_runs())


def own_texts(special):
    """Texts with the spellings of a tokenizer's added tokens worked in."""
    return list(dict.fromkeys([*_special_tokens(special), *_mixtures(100, 6, special, special)]))


def expand(entry):
    return entry if isinstance(entry, str) else entry[0] * entry[1]

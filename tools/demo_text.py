"""An author's text as documents, with a part held back for validation."""

import re

BOILERPLATE = re.compile(r"End of Project Gutenberg.*?\*END THE SMALL PRINT![^\n]*\n", re.DOTALL)
BLOCK = 8000  # characters that are trained on, or held back, together
PERIOD = 20 * BLOCK  # of which one block is held back
SCENE = 4000  # characters of a document where the text has no headings


def documents(demo, text):
    """The text in documents, each to be followed by the end token."""
    text = BOILERPLATE.sub("", text.replace("\r\n", "\n"))
    if demo.name == "whitman":
        text = re.sub(r"\n {2,}(?=\S)", " ", text)  # a long line's turnover belongs to the line
    if not demo.heading:
        return _pieces(text, SCENE)
    heading = re.compile(rf"^(?:{demo.heading})$", re.MULTILINE)
    starts = [match.start() for match in heading.finditer(text)]
    borders = sorted({0, *starts, len(text)})
    parts = [text[a:b].strip() for a, b in zip(borders, borders[1:])]
    return [re.sub(r"^\}\s+", "", part) for part in parts if len(part) > 40]


def split(pieces):
    """(training, validation): lists of (text, whether a document ends with it)."""
    training, validation, seen = [], [], PERIOD // 2
    for document in pieces:
        blocks = _pieces(document, BLOCK)
        for i, block in enumerate(blocks):
            held_back = seen % PERIOD < BLOCK
            (validation if held_back else training).append((block, i + 1 == len(blocks)))
            seen += len(block)
    return training, validation


def _pieces(text, size):
    """The text cut at empty lines into pieces of about `size` characters."""
    pieces, piece = [], ""
    for paragraph in text.strip().split("\n\n"):
        piece = f"{piece}\n\n{paragraph}" if piece else paragraph
        if len(piece) >= size:
            pieces.append(piece)
            piece = ""
    return pieces + [piece] if piece else pieces

"""Lines of a drawn pack for tests: texts from top to bottom in, `TextLine`s with boxes out."""

from skincare.text_reading.pack_text import TextLine

HEIGHT = 0.05


def pack_lines(*texts, confidence=0.99):
    """Return lines below each other in one column; a text is a string, or a string and its relative print size."""
    lines, top = [], 0.02
    for one in texts:
        text, size = (one, 1.0) if isinstance(one, str) else one
        height = HEIGHT * size
        box = ((0.2, top), (0.8, top), (0.8, top + height), (0.2, top + height))
        lines.append(TextLine(text, confidence, box, height))
        top += 1.3 * height
    return lines

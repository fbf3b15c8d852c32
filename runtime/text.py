"""Text from outside, made fit to be shown."""


def printable(value: object) -> str:
    """A value's text on one line that any terminal, log or JSON encoder takes, and that steers none of them.

    Line breaks, control and format characters, and the surrogates that stand for bytes that are no UTF-8 become escapes
    such as ``\\n`` or ``\\udce9``; everything else stays as it is.
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)

"""Text for display: without control characters and without secrets."""

import re
from typing import Final

_SCHEME: Final = r"[a-z][a-z0-9+.-]*://"
_NEXT_ADDRESS: Final = rf"[\s'\"(<=]{_SCHEME}"
_USER_INFO: Final = re.compile(
    rf"({_SCHEME})([^@\n]*(?:@(?:(?!{_NEXT_ADDRESS})[^@\n])*(?=@))*)@",  # up to the last @: a password may contain some
    re.IGNORECASE,
)
_NO_SCHEME: Final = re.compile(rf"^(?!synthetic:|{_SCHEME})([^\s:@]*:)(?=\S).*@", re.IGNORECASE)
_NAME: Final = re.compile(r"(?<![\w.%-])[\w.%-]+\s*=")
_SECRET_NAME: Final = re.compile(
    r"pas|pwd|psw|pw|pword|psk|tok|key|auth|sig|secret|cred|session|jwt|bearer|ticket|otp|cookie|header|streamid"
    r"|\b(?:pin|code|sid|hash|hmac|md5)\b",
    re.IGNORECASE,
)
_VALUE: Final = re.compile(r'\*\*\*(?!\w)|"(?:\\.|[^"\\])*"|.*?(?=\s+[\w-]+\s*=|\s!\s|&[\w.%-]+=|$)', re.MULTILINE)
_QUERY_VALUE: Final = re.compile(
    r"\*\*\*(?!\w)|.*?(?=\s!\s|&[\w.%-]+=|$)", re.MULTILINE
)  # a blank does not end the value


def duration(seconds: float) -> str:
    """A duration for display, no more precise than an estimate."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def counted(number: int, noun: str) -> str:
    """A number and its noun, in the plural unless it is one: ``1 image``, ``2 images``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def decimal(value: float, form: str = ".2f") -> str:
    """A number that may be negative, with a true minus sign."""
    return format(value, form).replace("-", "−")


def percent(share: float) -> str:
    """A share of 1, in percent: ``3.4 %``."""
    return f"{share * 100:.1f} %"


def printable(value: object) -> str:
    """A value's text on one line, safe for any terminal, log or JSON encoder.

    Line breaks, control and format characters, and the surrogates that stand for bytes that are no UTF-8 become escapes
    such as ``\\n`` or ``\\udce9``; everything else stays as it is.
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def redacted(text: object) -> str:
    """The text with ``***`` for the passwords and tokens in the addresses that it is or contains.

    Knows ``user:password@`` in URLs of any scheme, and without one at the beginning of the text, also where the
    password holds characters that a URL would have to escape; values of parameters and GStreamer properties whose name
    suggests a secret (``?token=…``, ``user-pw=…``); and a lone ``token@``. Where an address can be read in two ways,
    more is hidden rather than less. Applying it twice changes nothing.

    Args:
        text: an address as it was typed, a pipeline, or a message of a library that may quote one.
    """
    text = str(text)
    if "@" in text:
        text = _USER_INFO.sub(_without_user_info, _NO_SCHEME.sub(r"\1***@", text))
    shown, at = "", 0
    for name in _NAME.finditer(text):
        if name.start() < at or not _SECRET_NAME.search(name[0]):
            continue
        in_query = name.start() > 0 and text[name.start() - 1] in "?&"
        if value := (_QUERY_VALUE if in_query else _VALUE).match(text, name.end()):
            shown, at = f"{shown}{text[at : name.end()]}***", value.end()
    return shown + text[at:]


def _without_user_info(found: re.Match[str]) -> str:
    scheme, before_at = found.groups()
    user, colon, _ = before_at.partition(":")
    if colon:
        return f"{scheme}{user}:***@"
    in_path = any(mark in before_at for mark in "/?#")  # as in http://host/picture@2x.jpg
    return found[0] if in_path else f"{scheme}***@"

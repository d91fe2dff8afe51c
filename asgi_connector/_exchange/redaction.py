"""Recognising the names of secrets, and removing the values of secrets from text. Pure functions.

A name is split into words, so that its case and its separators do not matter (``accessToken``, ``DD-API-KEY``,
``user[password]``), and so that ``monkey`` is not a ``key``.
"""

import re
from typing import Final
from urllib.parse import unquote_plus

REDACTED: Final = "[redacted]"
_REDACTED_IN_URL: Final = "%5Bredacted%5D"

_SECRETS: Final = frozenset(
    {
        "assertion",
        "auth",
        "authentication",
        "authorization",
        "bearer",
        "cookie",
        "cred",
        "credential",
        "csrf",
        "hmac",
        "jwt",
        "key",
        "mfa",
        "oauth",
        "otp",
        "pass",
        "passphrase",
        "passwd",
        "password",
        "pin",
        "pw",
        "pwd",
        "saml",
        "secret",
        "sess",
        "session",
        "sid",
        "sig",
        "signature",
        "token",
        "totp",
        "verifier",
        "xsrf",
    }
)
# Words that are written together with one of them: `apikey`, `jsessionid`, `clientsecret`.
_COMPANIONS: Final = frozenset(
    {
        "access",
        "account",
        "admin",
        "api",
        "app",
        "asp",
        "aws",
        "client",
        "code",
        "confirm",
        "consumer",
        "current",
        "db",
        "device",
        "hash",
        "id",
        "j",
        "login",
        "master",
        "my",
        "new",
        "old",
        "php",
        "private",
        "public",
        "refresh",
        "request",
        "reset",
        "response",
        "security",
        "service",
        "shared",
        "signing",
        "user",
        "value",
        "web",
        "x",
    }
)
_LONGEST: Final = max(map(len, _SECRETS | _COMPANIONS))
# A code is a secret (`code`, `auth_code`, `verification_code`) unless one of these words precedes it.
_PUBLIC_CODES: Final = frozenset(
    {
        "area",
        "bar",
        "color",
        "colour",
        "country",
        "currency",
        "error",
        "exit",
        "http",
        "lang",
        "language",
        "locale",
        "post",
        "postal",
        "product",
        "qr",
        "reason",
        "region",
        "response",
        "return",
        "state",
        "status",
        "zip",
    }
)

# Not secrets, although their names look so: a boolean, and what RFC 6455 (1.3) calls a nonce.
_PUBLIC_HEADERS: Final = frozenset({"access-control-allow-credentials", "sec-websocket-key"})

_PART: Final = re.compile(r"[A-Za-z]+|[0-9]+")
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def is_secret(name: str) -> bool:
    """Whether a header, cookie, parameter or form field of this name is to be redacted."""
    previous = ""
    for part in _PART.findall(name):
        # The whole part is checked too: `aPiKeY` does not split into its words.
        for word in dict.fromkeys([*map(str.lower, _WORD.findall(part)), part.lower()]):
            if _is_secret_word(word) or (word in ("code", "codes") and previous not in _PUBLIC_CODES):
                return True
            previous = word
    return False


def _is_secret_word(word: str) -> bool:
    singular = word[:-1] if word.endswith("s") and not word.endswith("ss") else word
    return _is_made_of_secrets(word) or (singular != word and _is_made_of_secrets(singular))


def _is_made_of_secrets(word: str) -> bool:
    """Whether *word* consists of secrets and their companions, with at least one secret."""
    # The positions in the word that can be reached without a secret, and with at least one.
    plain, secret = {0}, set[int]()
    for start in range(len(word)):
        if start not in plain and start not in secret:
            continue
        for end in range(start + 1, min(len(word), start + _LONGEST) + 1):
            piece = word[start:end]
            if piece in _SECRETS:
                secret.add(end)
            elif piece in _COMPANIONS:
                secret |= {end} if start in secret else set()
                plain |= {end} if start in plain else set()
    return len(word) in secret


# The delimiters of parameters, literal or percent-encoded. They may be encoded several times, because a URL may be a
# parameter of another URL. ``depth`` and ``encoded`` tell how often they are encoded.
_DELIMITER: Final = r"%(?P<depth>(?:25)*)(?:3f|26|3b|23)"
_NAME: Final = r"(?P<name>(?:(?!%(?:25)*(?:3f|26|3b|23|2f|3d))[^?&;#,/=\s<>\"'])+)"
_EQUALS: Final = r"(?:=|%(?P<encoded>(?:25)*)3d)"
_IN_URL: Final = re.compile(rf"(?P<before>^|[?&;#,]\s*|{_DELIMITER}){_NAME}{_EQUALS}", re.IGNORECASE)
# URLs in other text have parameters too. There, a comma, or a semicolon and a space, is punctuation.
_IN_TEXT: Final = re.compile(rf"(?P<before>[?&;#]|{_DELIMITER}){_NAME}{_EQUALS}", re.IGNORECASE)
_END_OF_VALUE: Final = re.compile("[&#]")
_END_OF_MATRIX_VALUE: Final = re.compile(r"[;/?&#\s]")
_ENCODED_AGAIN: Final = re.compile("%(?:25)+")
_MAX_LOOKBACK: Final = 8192  # characters

# These work on text, not on parsed URLs: a URL that cannot be parsed may contain a password too, and the rest of the
# text stays as it is.
_USER: Final = re.compile(r"((?:^|[:<=\s\"']|%(?:25)*3a)//)[^/?#\s]*@", re.IGNORECASE)
_ENCODED_USER: Final = re.compile(
    r"(%(?:25)*2f%(?:25)*2f)(?:(?!%(?:25)*(?:2f|3f|23))[^/?#&\s])*(?:@|%(?:25)*40)", re.IGNORECASE
)


def redact_url(text: str) -> str:
    """Return *text*, a URL or the value of a header, without users, passwords and the values of secret parameters.

    These are parameters of queries, fragments and headers, and matrix parameters (RFC 3986, 3.3). URLs inside *text*
    are redacted too, percent-encoded or not.
    """
    return _redact(text, _IN_URL)


def redact_text(text: str) -> str:
    """Return *text*, a sentence, without the secrets in its URLs."""
    return _redact(text, _IN_TEXT)


def redact_header(name: str, value: str) -> str:
    """Return the value of a header without secrets. If its name is that of a secret, all of it is redacted."""
    if is_secret(name) and name.lower() not in _PUBLIC_HEADERS:
        return REDACTED
    return redact_url(value)


def redact_form(text: str) -> str:
    """Return an ``application/x-www-form-urlencoded`` form with the same secrets redacted as in its fields."""
    return "&".join(map(_redact_pair, text.split("&")))


def _redact_pair(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    return f"{name}={_REDACTED_IN_URL}" if equals and is_secret(_decoded(name)) else redact_text(pair)


def _redact(text: str, parameter: re.Pattern[str]) -> str:
    text = _ENCODED_USER.sub(r"\1", _USER.sub(r"\1", text))
    shown: list[str] = []
    done = at = 0
    while (match := parameter.search(text, at)) is not None:
        at = match.end()
        if is_secret(_decoded(match["name"])):
            shown += text[done:at], _REDACTED_IN_URL
            done = at = _end_of_value(text, match)
    return "".join([*shown, text[done:]])


def _decoded(name: str) -> str:
    """Decode the name of a parameter, which may be percent-encoded several times."""
    return unquote_plus(_ENCODED_AGAIN.sub("%", name))


def _end_of_value(text: str, match: re.Match[str]) -> int:
    end = _END_OF_VALUE
    if match["encoded"] is not None:
        end = re.compile(f"[?&#]|%{match['encoded']}(?:26|23)")
    elif match["depth"] is not None:
        end = re.compile(f"[&#]|%{match['depth']}(?:26|23)")
    elif match["before"] == ";" and _is_in_path(text, match.start()):
        end = _END_OF_MATRIX_VALUE
    found = end.search(text, match.end())
    return len(text) if found is None else found.start()


def _is_in_path(text: str, at: int) -> bool:
    """Whether position *at* of *text* is in the path of a URL."""
    start = max(0, at - _MAX_LOOKBACK)
    before = re.split(r"[\s<\"']", text[start:at])[-1]
    return (before.startswith("/") or "://" in before) and not ("?" in before or "#" in before)

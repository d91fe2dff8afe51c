"""Which names are those of secrets, and text without the values of secrets. Pure functions.

A name is redacted for what it says: it is split into words, so that the case and the style of the separators do not
matter (``accessToken``, ``DD-API-KEY``, ``user[password]``), and ``monkey`` is not a ``key``.
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
# What is written together with one of them: `apikey`, `jsessionid`, `clientsecret`.
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
# A code is a secret (`code`, `auth_code`, `verification_code`) unless it is one of these.
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

# Their names say so, but they are not: a boolean, and what RFC 6455 (1.3) calls a nonce.
_PUBLIC_HEADERS: Final = frozenset({"access-control-allow-credentials", "sec-websocket-key"})

_PART: Final = re.compile(r"[A-Za-z]+|[0-9]+")
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def is_secret(name: str) -> bool:
    """Whether what has this name is to be redacted: a header, a cookie, a parameter, a field of a form."""
    previous = ""
    for part in _PART.findall(name):
        # The part as a whole too: `aPiKeY` has no words.
        for word in dict.fromkeys([*map(str.lower, _WORD.findall(part)), part.lower()]):
            if _is_secret_word(word) or (word in ("code", "codes") and previous not in _PUBLIC_CODES):
                return True
            previous = word
    return False


def _is_secret_word(word: str) -> bool:
    singular = word[:-1] if word.endswith("s") and not word.endswith("ss") else word
    return _is_made_of_secrets(word) or (singular != word and _is_made_of_secrets(singular))


def _is_made_of_secrets(word: str) -> bool:
    """Whether *word* is made of secrets and their companions, and of one secret at least."""
    # For each place in the word: whether it can be reached without a secret, and whether with one.
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


# The delimiters of parameters, as they are or percent-encoded, once or several times: a URL may be a parameter of
# another one. ``depth`` and ``encoded`` tell how often they are encoded.
_DELIMITER: Final = r"%(?P<depth>(?:25)*)(?:3f|26|3b|23)"
_NAME: Final = r"(?P<name>(?:(?!%(?:25)*(?:3f|26|3b|23|2f|3d))[^?&;#,/=\s<>\"'])+)"
_EQUALS: Final = r"(?:=|%(?P<encoded>(?:25)*)3d)"
_IN_URL: Final = re.compile(rf"(?P<before>^|[?&;#,]\s*|{_DELIMITER}){_NAME}{_EQUALS}", re.IGNORECASE)
# Other text has parameters in its URLs, but a comma, or a semicolon and a space, is punctuation.
_IN_TEXT: Final = re.compile(rf"(?P<before>[?&;#]|{_DELIMITER}){_NAME}{_EQUALS}", re.IGNORECASE)
_END_OF_VALUE: Final = re.compile("[&#]")
_END_OF_MATRIX_VALUE: Final = re.compile(r"[;/?&#\s]")
_ENCODED_AGAIN: Final = re.compile("%(?:25)+")
_LOOKED_BACK: Final = 8192  # characters

# Of URLs as they are written: one that cannot be parsed may have a password in it too, and the others stay as they are.
_USER: Final = re.compile(r"((?:^|[:<=\s\"']|%(?:25)*3a)//)[^/?#\s]*@", re.IGNORECASE)
_ENCODED_USER: Final = re.compile(
    r"(%(?:25)*2f%(?:25)*2f)(?:(?!%(?:25)*(?:2f|3f|23))[^/?#&\s])*(?:@|%(?:25)*40)", re.IGNORECASE
)


def redact_url(text: str) -> str:
    """*text*, a URL or the value of a header, without users, passwords and the values of secret parameters.

    These are parameters of queries, fragments and headers, and matrix parameters (RFC 3986, 3.3), also those of URLs
    that are inside of it, percent-encoded or not.
    """
    return _redact(text, _IN_URL)


def redact_text(text: str) -> str:
    """*text*, a sentence, without the secrets of the URLs in it."""
    return _redact(text, _IN_TEXT)


def redact_header(name: str, value: str) -> str:
    """The value of a header: without the secrets that it has, or nothing of it if its name says that it is one."""
    if is_secret(name) and name.lower() not in _PUBLIC_HEADERS:
        return REDACTED
    return redact_url(value)


def redact_form(text: str) -> str:
    """The text of an ``application/x-www-form-urlencoded`` form, with the same secrets redacted as its fields."""
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
    """The name of a parameter, which may be percent-encoded several times."""
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
    """Whether this place of *text* is in the path of a URL."""
    start = max(0, at - _LOOKED_BACK)
    before = re.split(r"[\s<\"']", text[start:at])[-1]
    return (before.startswith("/") or "://" in before) and not ("?" in before or "#" in before)

"""Which names mean a secret, and text without the values of secrets."""

from urllib.parse import quote, urlencode

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from asgi_connector._exchange.redaction import is_secret, redact_form, redact_header, redact_text, redact_url
from tests.support.effort import examples

SECRET = "sesame"
MARK = "%5Bredacted%5D"

SECRETS = [
    *("token", "Token", "TOKEN", "tokens", "access_token", "accessToken", "AccessToken", "ACCESS-TOKEN", "accesstoken"),
    *("authToken", "auth.token", "id_token", "X-Amz-Security-Token", "X-CSRF-Token", "csrfmiddlewaretoken_token"),
    *("secret", "client_secret", "clientSecret", "clientsecret", "AWS_SECRET_ACCESS_KEY", "secrets"),
    *("key", "Key", "apikey", "apiKey", "APIKey", "APIKEY", "aPiKeY", "api_keys", "DD-API-KEY", "X-Api-Key", "keyId"),
    *("password", "Password", "user[password]", "user.password", "user[0][password]", "password1", "newPassword"),
    *("passwd", "pwd", "pass", "passphrase", "passcode", "userpassword"),
    *("session", "sessionid", "session_id", "sessionId", "JSESSIONID", "jsessionid", "PHPSESSID", "connect.sid"),
    *("auth", "Authorization", "Proxy-Authorization", "oauth_verifier", "OAuthToken", "X-Auth"),
    *("credential", "credentials", "X-Amz-Credential", "cred"),
    *("otp", "otp_code", "OTPCode", "totp", "mfa_code", "pin"),
    *("assertion", "client_assertion", "SAMLResponse", "jwt", "Set-Cookie", "Cookie", "xsrf"),
    *("sig", "signature", "X-Goog-Signature", "hmac"),
    *("code", "auth_code", "code_verifier", "verification_code", "user-code"),
]

NO_SECRETS = [
    *("monkey", "donkey", "keyboard", "keyword", "keynote", "turkey", "author", "authors", "authored", "authority"),
    *("tokenizer", "tokenize", "secretary", "compass", "bypass", "passenger", "passive", "obsession", "possession"),
    *("sign", "signal", "assign", "design", "sidebar", "inside", "pinned", "spin", "credit", "accredited", "codec"),
    *("status_code", "statusCode", "country-code", "zip_code", "zipcode", "unicode", "encoding", "bar[code]"),
    *("q", "page", "state", "user", "name", "id", "X-Amz-Date", "Content-Type", "WWW-Authenticate", "", "=", "\u00e9"),
]


@pytest.mark.parametrize("name", SECRETS)
def test_a_name_that_says_so_is_that_of_a_secret(name: str) -> None:
    assert is_secret(name)
    assert is_secret(name.upper())
    assert is_secret(f"x-{name}")


@pytest.mark.parametrize("name", NO_SECRETS)
def test_a_name_in_which_only_the_letters_are_the_same_is_not(name: str) -> None:
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("http://h/?accessToken=sesame&a=1", f"http://h/?accessToken={MARK}&a=1"),
        ("http://h/?user[password]=sesame", f"http://h/?user[password]={MARK}"),
        ("http://h/?user%5Bpassword%5D=sesame&a", f"http://h/?user%5Bpassword%5D={MARK}&a"),
        ("http://h/?a=1&tok%2565n=sesame", f"http://h/?a=1&tok%2565n={MARK}"),
        # Matrix parameters end with their segment. Text in a query that looks like one does not.
        ("http://h/a;jsessionid=sesame/b?x=1", f"http://h/a;jsessionid={MARK}/b?x=1"),
        ("http://h/a;JSESSIONID=sesame?x=1;y", f"http://h/a;JSESSIONID={MARK}?x=1;y"),
        ("/a;token=sesame;b=c/d;key=sesame", f"/a;token={MARK};b=c/d;key={MARK}"),
        ("/a?b;token=sesame/sesame", f"/a?b;token={MARK}"),
        ("text/plain; token=sesame/sesame", f"text/plain; token={MARK}"),
        ("<http://h/a;sid=sesame/b>; rel=next", f"<http://h/a;sid={MARK}/b>; rel=next"),
        # URLs in URLs.
        ("/?redirect_uri=http%3A%2F%2Fh%2F%3Ftoken%3Dsesame%26b%3D1&c=2", None),
        ("/?next=/cb?token=sesame&c=2", f"/?next=/cb?token={MARK}&c=2"),
        ("/?r=%2Fcb%3Ftoken=sesame%26a=1&c=2", f"/?r=%2Fcb%3Ftoken={MARK}%26a=1&c=2"),
        ("/?r=http%3A%2F%2Fu%3Asesame%40h%2Fx", "/?r=http%3A%2F%2Fh%2Fx"),
        ("/?r=http%3A//u:sesame@h/x", "/?r=http%3A//h/x"),
        ("/go/http%3A%2F%2Fh%2F%23id_token%3Dsesame?a=1", f"/go/http%3A%2F%2Fh%2F%23id_token%3D{MARK}?a=1"),
        ("/?x=%2Fa%3Bjsessionid%3Dsesame&c=2", f"/?x=%2Fa%3Bjsessionid%3D{MARK}&c=2"),
        # Parameters of headers.
        ("token=sesame", f"token={MARK}"),
        ('a="b", token="sesame"', f'a="b", token={MARK}'),
        ("0; url=/?key=sesame", f"0; url=/?key={MARK}"),
        # Text that is not redacted.
        ("/?monkey=1&author=2&tokenizer=3#keyboard=4", "/?monkey=1&author=2&tokenizer=3#keyboard=4"),
        ("token", "token"),
        ("/token/a", "/token/a"),
        ("", ""),
    ],
)
def test_a_url_has_no_secrets(text: str, redacted: str | None) -> None:
    if redacted is None:
        redacted = text.replace("sesame", MARK)
    assert redact_url(text) == redacted
    assert redact_url(redacted) == redacted


@pytest.mark.parametrize("times", range(1, 7))
@pytest.mark.parametrize("name", ["token", "user[password]"])
def test_a_url_may_be_a_parameter_of_a_parameter(times: int, name: str) -> None:
    text = f"http://u:sesame@h/cb?{urlencode({name: SECRET, 'b': '1'})}"
    for _ in range(times):
        text = f"http://h/?redirect_uri={quote(text, safe='')}&a=1"
    assert SECRET not in redact_url(text)
    assert redact_url(text).endswith("&a=1")
    assert MARK in redact_url(text)


def test_a_sentence_has_no_parameters_but_in_its_urls() -> None:
    text = "no row with a=1, key=5; token=6: /?a=1 and http://u:sesame@h/?key=sesame"
    assert redact_text(text) == f"no row with a=1, key=5; token=6: /?a=1 and http://h/?key={MARK}"


@pytest.mark.parametrize(
    ("name", "value", "redacted"),
    [
        ("DD-API-KEY", "sesame", "[redacted]"),
        ("x-accesstoken", "sesame", "[redacted]"),
        ("X-Forwarded-Uri", "/?token=sesame", f"/?token={MARK}"),
        ("Monkey", "sesame", "sesame"),
        ("Access-Control-Allow-Credentials", "true", "true"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Content-Type", "multipart/form-data; boundary=x", "multipart/form-data; boundary=x"),
    ],
)
def test_a_header_is_redacted_by_its_name_and_by_its_parameters(name: str, value: str, redacted: str) -> None:
    assert redact_header(name, value) == redacted


def test_the_values_of_a_form_end_at_an_ampersand() -> None:
    text = "a=1&password=ses#me;x&b&user%5Bpin%5D=1&url=%2F%3Fkey%3Dsesame&password&=2"
    expected = f"a=1&password={MARK}&b&user%5Bpin%5D={MARK}&url=%2F%3Fkey%3D{MARK}&password&=2"
    assert redact_form(text) == expected


ODD = st.sampled_from(
    ["?", "#", "&", ";", "=", "/", "//", "%", "%25", "%3F", "%253d", "@", ":", "http://", " ", ",", "a"]
)
TEXT = st.lists(ODD | st.text(max_size=3), max_size=8).map("".join)


@settings(max_examples=examples(300), deadline=None, database=None)
@given(before=TEXT, after=TEXT, name=st.sampled_from(["token", "user[password]", "%74oken"]), again=st.integers(0, 2))
@example(before="", after="", name="token", again=0)
@example(before="", after="%26", name="token", again=1)
def test_a_secret_is_found_whatever_stands_around_it(before: str, after: str, name: str, again: int) -> None:
    inner = f"?{name}={SECRET}"
    for _ in range(again):
        inner = quote(inner, safe="")
    text = f"{before}&x={inner}{after}"
    assert SECRET not in redact_url(text)
    assert SECRET not in redact_text(text)


@settings(max_examples=examples(200), deadline=None, database=None)
@given(query=st.dictionaries(st.sampled_from(["a", "monkey", "b[c]", "page"]), st.text(max_size=10), max_size=4))
def test_a_url_without_secrets_stays_as_it_is(query: dict[str, str]) -> None:
    plain = {name: value.translate({ord(each): "" for each in "&#;,?/=@:"}) for name, value in query.items()}
    url = str(URL("http://h/a/b").with_query(plain))
    assert redact_url(url) == url


@pytest.mark.parametrize(
    "text",
    [
        *(
            ";" * 100_000,
            ";token=a" * 10_000,
            "/;token=a" * 10_000,
            f"%{'25' * 100_000}",
            "%3f" * 50_000,
            "; " * 50_000,
        ),
        *(f";{' ' * 100_000}", "a" * 500_000, "%2f%2f" * 50_000, "//" * 50_000, ",key" * 50_000, "://" * 50_000),
        *(f"?{'s' * 100_000}=x", f"?{'key' * 30_000}=x", "&%2574oken%253D" * 5_000),
    ],
    ids=lambda text: text[:8],
)
@pytest.mark.timeout(20)  # each takes less than a third of a second; a quadratic one would take minutes
def test_long_text_takes_no_longer_than_its_length(text: str) -> None:
    redact_url(text)
    redact_text(text)
    redact_form(text)

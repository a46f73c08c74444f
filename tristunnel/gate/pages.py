"""
What visitors see when they are asked to sign in: a page for browsers, a line for
programs.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from urllib.parse import urlencode, urlsplit

from tristunnel.errors import TunnelError
from tristunnel.gate.visit import GateVisit
from tristunnel.names.gate import Answer
from tristunnel.names.pages import FORMS
from tristunnel.names.public import PublicNames
from tristunnel.wire.http_answer import HTML, htmlPage, wholeResponse

__all__ = ["LOGIN_FIELDS", "PIN_FIELD", "SECURITY", "GatePages"]

_STYLE = """\
form { margin: 1.5em 0 }
label { display: block; margin: .8em 0 }
input { display: block; box-sizing: border-box; width: 100%; font: inherit;
  padding: .4em .6em; color: inherit; background: transparent;
  border: 1px solid #888; border-radius: .3em }
button, .button { font: inherit; padding: .5em 1.2em; color: #fff;
  background: #1a5fb4; border: 0; border-radius: .3em; cursor: pointer;
  text-decoration: none }
.told { font-weight: bold }
"""

SECURITY = {
    b"Content-Security-Policy": b"default-src 'none'; style-src 'unsafe-inline';"
    b" img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    b"X-Frame-Options": b"DENY",
    b"Referrer-Policy": b"same-origin",
}
"""No other site may show one of these pages in a frame, and none of them needs a
script."""

_SECURITY = b"".join(b"%b: %b\r\n" % each for each in SECURITY.items())

_ASKS = {
    "pin": "a PIN",
    "login": "a name and a password",
    "oidc": "an account at {issuer}",
    "link": "a link",
}


class GatePages:
    """
    Writes answers.

    @param names: Has the operator's own.
    """

    def __init__(self, names: PublicNames) -> None:
        self._names = names

    def asks(self, visit: GateVisit, status: int = 401, told: str = "") -> Answer:
        """
        Ask a visitor to sign in.

        @param status: C{401}, or why there is nothing else.
        @param told: What was wrong with the last attempt.
        """
        ways = [_ASKS[each].format(issuer=issuerOf(visit)) for each in visit.rules.ways]
        if told and status != 401:
            text = told
        else:
            text = f"{told} {visit.place} asks visitors for {' or '.join(ways)}."
        challenge = b""
        if status == 401 and not visit.isBrowser and self._takesHeader(visit):
            # A browser would ask by itself, and not show the page.
            challenge = b'WWW-Authenticate: Basic realm="%b", charset="UTF-8"\r\n' % (
                visit.host.encode("ascii")
            )
        return self.page(visit, status, text.strip(), _forms(visit), told, challenge)

    @staticmethod
    def _takesHeader(visit: GateVisit) -> bool:
        return bool(visit.rules.pin or visit.rules.login)

    def page(
        self,
        visit: GateVisit,
        status: int,
        text: str,
        forms: Sequence[str] = (),
        told: str = "",
        headers: bytes = b"",
        title: str = "",
    ) -> Answer:
        """
        Answer with a page, or with a line.

        @param text: What is the matter, in sentences.
        @param forms: In HTML.
        @param told: What stands above the forms; by default, all of C{text}.
        @param headers: Lines to be added.
        """
        headers += _SECURITY
        withBody = visit.head.method != b"HEAD"
        if visit.wantsPage:
            said = told or ("" if forms else text)
            shown = title or f"Sign in to {visit.place}"
            page = self.written(shown, said, forms)
            data = wholeResponse(status, page, headers, HTML, withBody)
        else:
            body = f"{text}\n".encode()
            data = wholeResponse(status, body, headers, withBody=withBody)
        return Answer(status, data)

    def written(self, title: str, told: str, forms: Sequence[str]) -> bytes:
        """
        Write a page.

        @param told: What stands above the forms; may be empty.
        @param forms: In HTML.
        """
        parts = [f'<p class="told">{html.escape(told)}</p>'] if told else []
        inner = "\n".join((*parts, *forms))
        own = self._names.pages.signIn
        if own:
            return own.replace(FORMS, inner.encode(), 1)
        return htmlPage(title, inner, _STYLE, width=22)

    def refused(self, visit: GateVisit, refusal: TunnelError) -> Answer:
        """Answer that something cannot be done now."""
        headers = b""
        if refusal.retryAfter is not None:
            headers = b"Retry-After: %d\r\n" % max(1, round(refusal.retryAfter))
        text = refusal.message[:1].upper() + refusal.message[1:]
        return self.page(visit, 429, f"{text}.", headers=headers)

    def redirect(self, where: str, headers: bytes = b"") -> Answer:
        """Redirect a visitor, who asks for the new page with a GET."""
        lines = b"Location: %b\r\n" % where.encode("ascii")
        return Answer(303, wholeResponse(303, b"", lines + headers + _SECURITY))


def issuerOf(visit: GateVisit) -> str:
    """The name of a provider on a page."""
    provider = visit.rules.oidc
    return "" if provider is None else urlsplit(provider.issuer).netloc


def form(
    visit: GateVisit, page: str, fields: str, button: str, method: str = "post"
) -> str:
    """
    Write a form.

    @param page: Which of the gate's pages takes it.
    @param fields: In HTML.
    @param button: What the button says.
    """
    return (
        f'<form method="post" action="{visit.base}/{page}">\n{fields}\n'
        f"<button>{html.escape(button)}</button>\n</form>"
    )


def hidden(name: str, value: str) -> str:
    """Write a hidden field."""
    return f'<input type="hidden" name="{name}" value="{html.escape(value)}">'


PIN_FIELD = (
    '<label>PIN <input name="pin" type="password" autocomplete="off" required'
    " autofocus></label>"
)
LOGIN_FIELDS = (
    '<label>Name <input name="user" autocomplete="username" required></label>\n'
    '<label>Password <input name="password" type="password"'
    ' autocomplete="current-password" required></label>'
)


def _forms(visit: GateVisit) -> list[str]:
    found, rules, where = [], visit.rules, hidden("next", visit.target)
    if rules.pin:
        found.append(form(visit, "sign-in", f"{where}\n{PIN_FIELD}", "Continue"))
    if rules.login:
        found.append(form(visit, "sign-in", f"{where}\n{LOGIN_FIELDS}", "Sign in"))
    if rules.oidc is not None:
        # A link: our policy lets forms post to this site only.
        url = html.escape(f"{visit.base}/begin?{urlencode({'next': visit.target})}")
        words = html.escape(f"Sign in with {issuerOf(visit)}")
        found.append(f'<p><a class="button" href="{url}">{words}</a></p>')
    if not found:
        found.append("<p>Open the link that you were given.</p>")
    return found

"""
Whether a client offers our extension in its handshake.

It does so by a key among the credentials, which a W3P server's connection filter
sees. A filter that compares the credentials as a whole refuses the client for a key
that it did not expect, and W3P refuses by closing the connection.
"""

from __future__ import annotations

__all__ = ["ALWAYS", "AUTO", "GREETINGS", "NEVER", "Greeting"]

AUTO, ALWAYS, NEVER = GREETINGS = ("auto", "always", "never")


class Greeting:
    """
    How a client greets its server, and what it has learned from the answers.

    The key is left out once, and never at a server that has answered with the
    extension: ours closes without an answer only under overload, and anyone able to cut
    connections could otherwise make the client do without leases and limits.

    @param kind: One of L{GREETINGS}.

    @ivar extended: Whether the next handshake has the key.
    @ivar tried: Whether a handshake went without it because the server did not answer.
    """

    def __init__(self, kind: str = AUTO) -> None:
        self.extended = kind != NEVER
        self.tried = False
        self._mayTry = kind == AUTO
        self._trying = False

    def answered(self, extended: bool) -> None:
        """
        The server has answered a handshake.

        @param extended: Whether it did so with the extension.
        """
        self._trying = False
        self._mayTry = self._mayTry and not extended

    def unanswered(self) -> bool:
        """
        The server has closed the connection instead of answering.

        @return: Whether the next handshake goes without the key for this reason.
        """
        if self._trying:
            self._trying, self.extended = False, True
        if not self._mayTry:
            return False
        self._mayTry = self.extended = False
        self._trying = self.tried = True
        return True

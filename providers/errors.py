"""What can go wrong with a vendor, in few words.

ProviderError              anything; carries the wire code that the agent sees and whether a retry may help
├── KeyRequired            no key for that vendor: PROVIDER_KEY_REQUIRED
├── Refused                the vendor said no (bad key, bad option, unknown voice or model): never retried
├── RateLimited            the vendor said later (429, concurrency); `retry_after` in seconds when told
├── Unavailable            no connection, 5xx, connection lost
├── TimedOut               a deadline of ours passed: connect, first audio, first token, silence
└── Garbled                the vendor sent what its own documentation does not allow
"""

from __future__ import annotations


class ProviderError(Exception):
    """A vendor failed. `code` is a wire code (protocol §1.8); the text is safe to log and to send to the agent."""

    retryable = False

    def __init__(self, message: str, *, vendor: str, code: str) -> None:
        super().__init__(message)
        self.vendor = vendor
        self.code = code


class KeyRequired(ProviderError):
    """The operator has no key for this vendor and the local fallback is off."""

    def __init__(self, vendor: str, message: str | None = None) -> None:
        super().__init__(message or f"No API key for {vendor}", vendor=vendor, code="PROVIDER_KEY_REQUIRED")


class Refused(ProviderError):
    """The vendor refused the request; asking again the same way cannot help."""


class RateLimited(ProviderError):
    """The vendor asks for patience."""

    retryable = True

    def __init__(self, message: str, *, vendor: str, code: str, retry_after: float | None = None) -> None:
        super().__init__(message, vendor=vendor, code=code)
        self.retry_after = retry_after


class Unavailable(ProviderError):
    """No connection, an internal error of the vendor, or a connection that broke."""

    retryable = True


class TimedOut(ProviderError):
    """One of our deadlines on the vendor passed."""

    retryable = True


class Garbled(ProviderError):
    """An answer that cannot be read."""

    retryable = True

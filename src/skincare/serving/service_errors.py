"""The errors that a client gets: HTTP status, a reason for programs, a sentence for people."""


class ServiceError(Exception):
    """An answer other than 200; `detail` contains no path of the machine."""

    def __init__(self, status: int, reason: str, detail: str = "", *, retry_after_s: int | None = None) -> None:
        super().__init__(status, reason, detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of the response."""
        # What is left of a body that was not received must not be read as the next request.
        headers = {"Connection": "close"} if self.status in (400, 408, 413) else {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        return headers

"""HTTP to a server: where it is, the token, and its problems raised as errors.

The only module that opens a connection; workers and people speak through it.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
from pydantic import BaseModel

from studies.errors import (
    InvalidInput,
    LmtuneError,
    ServerFailed,
    ServerUnreachable,
    Unauthorized,
    Unavailable,
    from_problem,
)
from studies.files import home

DEFAULT_URL: Final = "http://127.0.0.1:8080"
_AGAIN: Final = (429, 502, 503, 504)  # a proxy says 502 and 504 while its server is away
ModelT = TypeVar("ModelT", bound=BaseModel)


def find_token() -> str:
    """Returns LMTUNE_TOKEN, or what LMTUNE_TOKEN_FILE or LMTUNE_HOME/token holds; else raises."""
    if token := os.environ.get("LMTUNE_TOKEN"):
        return token.strip()
    path = Path(os.environ.get("LMTUNE_TOKEN_FILE") or home() / "token").expanduser()
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise Unauthorized(
            "no token: set LMTUNE_TOKEN, LMTUNE_TOKEN_FILE, or LMTUNE_HOME to the server's folder "
            f"({path} cannot be read); where no server is yet, lmtune-server starts one"
        ) from None


def find_url() -> str:
    """Returns LMTUNE_URL, or the address the server wrote into LMTUNE_HOME, or the default."""
    if url := os.environ.get("LMTUNE_URL"):
        return url
    try:
        return (home() / "url").read_text(encoding="utf-8").strip()
    except OSError:
        return DEFAULT_URL


class Http:
    """One connection to a server: the seam below which httpx and its transports lie."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = (url or find_url()).rstrip("/")
        headers = {"Authorization": f"Bearer {token or find_token()}"}
        base = self.url + "/api/v1"
        try:
            self._http = httpx.Client(
                base_url=base, headers=headers, timeout=timeout, transport=transport
            )
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            remedy = f"as LMTUNE_URL={DEFAULT_URL}"
            raise InvalidInput.of("url or token", str(error), remedy) from None

    @property
    def ready(self) -> bool:
        """True when a server answers here and says that it can work."""
        try:
            return self._http.get(f"{self.url}/readyz", timeout=2.0).is_success
        except httpx.TransportError:
            return False

    def close(self) -> None:
        """Closes the connection."""
        self._http.close()

    def request(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """Returns a successful response; raises the error that a failed one stands for.

        `timeout` [s] bounds each wait for the other side: to connect, to send, for an answer.
        """
        try:
            response = self._http.request(method, path, **kwargs)
        except httpx.RequestError as error:
            raise ServerUnreachable(f"no answer from {self.url}: {error}") from error
        self.raise_for(response)
        return response

    def stream_to(self, path: str, target: Path) -> str:
        """Downloads into a new file; returns the content's sha256."""
        digest = hashlib.sha256()
        try:
            with self._http.stream("GET", path) as response, target.open("wb") as file:
                if response.is_error:
                    response.read()
                self.raise_for(response)
                for chunk in response.iter_bytes():
                    digest.update(chunk)
                    file.write(chunk)
        except httpx.RequestError as error:
            raise ServerUnreachable(f"no answer from {self.url}: {error}") from error
        return digest.hexdigest()

    @staticmethod
    def raise_for(response: httpx.Response) -> None:
        """Raises the error a problem+json answer stands for."""
        if response.is_success:
            return
        try:
            problem = response.json()
        except (json.JSONDecodeError, UnicodeDecodeError):
            problem = {}
        problem = problem if isinstance(problem, dict) else {}
        problem.setdefault("detail", f"HTTP {response.status_code} from {response.url}")
        if response.status_code in _AGAIN:
            error = Unavailable(str(problem["detail"]))
            error.retry_after = retry_after(response)
            raise error
        if problem.get("code") in (None, LmtuneError.code):
            raise ServerFailed(str(problem["detail"]))
        raise from_problem(problem)

    def get(self, path: str, model: type[ModelT], **params: Any) -> ModelT:
        """Returns the body of a GET."""
        said = {name: value for name, value in params.items() if value is not None}
        return model.model_validate(self.request("GET", path, params=said).json())

    def post(self, path: str, body: Any = None, **kwargs: Any) -> httpx.Response:
        """Sends JSON; returns the answer."""
        content = (
            body.model_dump(mode="json", by_alias=True) if isinstance(body, BaseModel) else body
        )
        return self.request("POST", path, json=content, **kwargs)


def read(response: httpx.Response, model: type[ModelT]) -> ModelT:
    """Returns the body of a successful answer; raises ServerFailed where it is another's."""
    try:
        return model.model_validate_json(response.content)
    except ValueError as error:
        raise ServerFailed(f"what answers at {response.url} is no lmtune server") from error


def retry_after(response: httpx.Response) -> float:
    """Returns the least wait that an answer asks for [s]; 0 where it says none, or a date."""
    said = response.headers.get("Retry-After", "")
    return float(said) if said.isdecimal() else 0.0

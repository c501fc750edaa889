"""Errors become one shape, problem+json (RFC 9457), mapped here and nowhere else."""

from __future__ import annotations

import logging
import secrets
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from studies import errors
from studies.spec import field_errors

logger = logging.getLogger(__name__)
MEDIA_TYPE: Final = "application/problem+json"
RETRY_SECONDS: Final = 1  # said with every 503; clients add jitter

_STATUS: Final[dict[type[errors.LmtuneError], int]] = {
    errors.InvalidInput: 422,
    errors.NotFound: 404,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.TooLarge: 413,
    errors.TooSlow: 408,
    errors.StorageFull: 507,
    errors.Conflict: 409,
    errors.Unavailable: 503,
}


class ProblemField(BaseModel):
    """One wrong field."""

    field: str
    message: str
    remedy: str = ""


class Problem(BaseModel):
    """The body of every error."""

    type: str = Field(
        description="urn:lmtune:problem:CODE", examples=["urn:lmtune:problem:invalid"]
    )
    title: str
    status: int
    code: str = Field(description="docs/http-api.md lists them", examples=["invalid"])
    detail: str
    errors: list[ProblemField] = Field([], description="with `invalid`: one per wrong field")


def status_of(error: errors.LmtuneError) -> int:
    """Returns the HTTP status of an error: that of the nearest class in the tree."""
    return next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)


def answer(error: errors.LmtuneError) -> JSONResponse:
    """Returns the response that stands for an error."""
    status = status_of(error)
    body = Problem(
        type=f"urn:lmtune:problem:{error.code}",
        title=error.code.replace("_", " "),
        status=status,
        code=error.code,
        detail=str(error),
        errors=[ProblemField(**vars(e)) for e in getattr(error, "errors", ())],
    )
    headers = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body.model_dump(), status, headers, MEDIA_TYPE)


def refuse(request: Request, error: errors.LmtuneError) -> Response:
    """Returns the answer to a request that failed; who asked for a page signs in first."""
    a_page = request.method == "GET" and "text/html" in request.headers.get("accept", "")
    if isinstance(error, errors.Unauthorized) and a_page:
        return RedirectResponse("/login", status_code=303)
    return answer(error)


def unforeseen(request: Request, error: Exception) -> JSONResponse:
    """Returns the answer that stands for a defect of ours; the log has the rest."""
    number = secrets.token_hex(4)
    logger.error("error %s in %s %s", number, request.method, request.url.path, exc_info=error)
    return answer(errors.LmtuneError(f"internal error {number}; the server's log has more"))


def install(app: FastAPI) -> None:
    """Makes the app answer every error as a problem."""

    @app.exception_handler(errors.LmtuneError)
    async def ours(request: Request, error: errors.LmtuneError) -> Response:
        return refuse(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        said = error.errors()
        if said[0]["type"] == "json_invalid":
            reason = f"{said[0]['ctx']['error']} at character {said[0]['loc'][-1]}"
            return answer(errors.InvalidInput.of("body", f"is not JSON: {reason}"))
        return answer(errors.InvalidInput(field_errors(said)))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            return refuse(request, errors.NotFound(f"there is nothing at {request.url.path}"))
        if error.status_code == 400:
            return refuse(request, errors.InvalidInput.of("body", str(error.detail)))
        return _plain(error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def any_other(request: Request, error: Exception) -> JSONResponse:
        return unforeseen(request, error)


def _plain(status: int, detail: str, headers: dict[str, Any]) -> JSONResponse:
    """Returns a problem that HTTP itself names: 405 is method_not_allowed."""
    title = HTTPStatus(status).phrase.lower()
    code = title.replace(" ", "_")
    body = Problem(
        type=f"urn:lmtune:problem:{code}", title=title, status=status, code=code, detail=detail
    )
    return JSONResponse(body.model_dump(), status, headers, MEDIA_TYPE)

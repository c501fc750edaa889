"""Signing a browser in: a link that works once, or the token pasted into a form."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from service import auth
from service.routes.parts import Lmtune, Parts
from service.routes.templating import TEMPLATES
from service.store import tokens
from service.store.database import Tx
from studies import wire

# A page of ours that a link may lead to, and nothing else: a link must not lead to another site.
_PAGE: Final = re.compile(r"/studies/[A-Za-z0-9][A-Za-z0-9._-]*(/trials/[0-9]+)?")

router = APIRouter(tags=["login"])


@router.post("/api/v1/login-links", status_code=201)
def create_login_link(request: Request, lmtune: Lmtune) -> wire.LoginLink:
    """Returns a link that signs one browser in, once, within a day."""
    return make_link(lmtune, str(request.base_url).rstrip("/"))


def make_link(lmtune: Parts, base_url: str) -> wire.LoginLink:
    """Returns a new login link; its code is stored as a hash."""
    code = auth.new_token("once")

    def add(tx: Tx) -> float:
        expires = tx.now + auth.LOGIN_SECONDS
        tokens.add(tx, auth.hashed(code), "login", expires)
        return expires

    expires = datetime.fromtimestamp(lmtune.write(add), UTC)
    return wire.LoginLink(url=f"{base_url}/login?code={code}", expires_at=expires)


@router.get("/login", include_in_schema=False)
def login_page(
    request: Request, lmtune: Lmtune, code: str | None = None, next: str = "/"
) -> Response:
    """Signs the browser in by a link's code and goes on to a page, or shows the form."""
    if code is None:
        return _form(request)
    if not lmtune.write(lambda tx: tokens.take(tx, auth.hashed(code), "login")):
        return _form(request, "This link was used or is too old; `lmtune login` prints a new one.")
    return _signed_in(request, lmtune, next if _PAGE.fullmatch(next) else "/")


@router.post("/login", include_in_schema=False)
def login(request: Request, lmtune: Lmtune, token: Annotated[str, Form()] = "") -> Response:
    """Signs the browser in by a pasted token."""
    key, now = auth.hashed(token.strip()), datetime.now(UTC).timestamp()
    row = lmtune.ctx.database.read(lambda conn: tokens.get(conn, key, now))
    if row is None or row.kind != "token":
        return _form(request, "That is not a token of this server; it is in LMTUNE_HOME/token.")
    return _signed_in(request, lmtune)


@router.post("/logout", include_in_schema=False)
def logout(request: Request, lmtune: Lmtune) -> Response:
    """Ends the browser's session."""
    session = request.cookies.get(auth.COOKIE, "")
    lmtune.write(lambda tx: tokens.take(tx, auth.hashed(session), "session"))
    request.app.state.gate.forget(session)
    response = RedirectResponse("/login", status_code=303)
    response.delete_cookie(auth.COOKIE)
    return response


def _signed_in(request: Request, lmtune: Parts, page: str = "/") -> Response:
    session = auth.new_token("session")

    def add(tx: Tx) -> None:
        expires = tx.now + auth.SESSION_SECONDS
        tokens.add(tx, auth.hashed(session), "session", expires)

    lmtune.write(add)
    response = RedirectResponse(page, status_code=303)
    response.set_cookie(
        auth.COOKIE,
        session,
        max_age=auth.SESSION_SECONDS,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return response


def _form(request: Request, error: str = "") -> Response:
    status = 401 if error else 200
    return TEMPLATES.TemplateResponse(request, "login.html", {"error": error}, status_code=status)

"""Studies from other tools, brought in whole."""

from __future__ import annotations

from fastapi import APIRouter, Response

from service.dispatch import imports
from service.routes.parts import Lmtune
from studies import wire
from studies.imports import PATH, ImportBody

router = APIRouter(tags=["studies"])


@router.post(PATH, status_code=201)
def import_study(body: ImportBody, lmtune: Lmtune, response: Response) -> wire.StudyView:
    """Creates a study whose trials are over, ENDED at once; all of it, or nothing."""
    whole = imports.checked(body)
    lmtune.write(lambda tx: imports.add(tx, lmtune.ctx, whole))
    response.headers["Location"] = f"/api/v1/studies/{body.study.name}"
    return lmtune.reading.study(body.study.name)

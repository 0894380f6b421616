"""Scripts, styles and the icon: our own, and plotly's from the installed package. No other host is asked."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse

from app.errors import not_found

router = APIRouter(include_in_schema=False)

_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@cache
def _served() -> dict[str, Path]:
    own = (path for path in (Path(__file__).parent / "static").iterdir() if path.suffix in _MEDIA_TYPES)
    return {path.name: path for path in own} | {
        "plotly.min.js": Path(str(files("plotly") / "package_data" / "plotly.min.js"))
    }


@router.get("/static/{name}")
def static_file(name: str) -> FileResponse:
    """A file of the pages; browsers ask again whether it has changed, by its ETag."""
    path = _served().get(name)
    if path is None:
        raise not_found("static file", name)
    return FileResponse(path, media_type=_MEDIA_TYPES[path.suffix], headers={"Cache-Control": "no-cache"})


@router.get("/favicon.ico")
def favicon() -> FileResponse:
    """The icon that browsers ask for unasked."""
    return static_file("icon.svg")

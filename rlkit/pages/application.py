"""The live server as an ASGI application: addresses, and how what they show is answered."""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from rlkit.errors import UserError
from rlkit.pages.guard import NOTHING, POLICY, App, Guard
from rlkit.pages.site import AbsentError, OutsideError, Site

HTML, SCRIPT, JSON = "text/html", "text/javascript", "application/json"
OWN_POLICY = re.compile(r'http-equiv="Content-Security-Policy" content="([^"]+)"')
RETRY = {"refresh": "3"}
"""A page that cannot be made yet is asked for again after 3 seconds."""


def application(site: Site, token: str) -> App:
    """`/<token>/` and what is below it; see `Guard` for what is refused."""

    async def overview(request: Request) -> Response:
        folders = await run_in_threadpool(site.folders)
        if len(folders) == 1:
            return RedirectResponse(f"{site.numbers[folders[0]]}/report.html")
        return await shown(site.overview, HTML)

    async def run(request: Request) -> Response:
        number: int = request.path_params["number"]
        return await shown(lambda: site.run(number), HTML)

    async def part(request: Request) -> Response:
        number, name = request.path_params["number"], request.path_params["name"]
        return await shown(lambda: site.part(number, name), SCRIPT)

    async def state(request: Request) -> Response:
        number: int | None = request.path_params.get("number")
        return await shown(lambda: site.state(number), JSON)

    routes = [
        Route("/", overview),
        Route("/state.json", state),
        Route("/{number:int}/report.html", run),
        Route("/{number:int}/report/{name}.js", part),
        Route("/{number:int}/state.json", state),
    ]
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False
    return Guard(app, token)


async def shown(make: Callable[[], str], kind: str) -> Response:
    """What `make` gives, computed beside the other answers."""
    try:
        content = await run_in_threadpool(make)
    except AbsentError:
        raise HTTPException(404) from None
    except OutsideError as error:
        return PlainTextResponse(f"{error}\n", 403)
    except UserError as error:
        return PlainTextResponse(f"{error}\n", 503, RETRY)
    policy = OWN_POLICY.search(content) if kind == HTML else None
    headers = {POLICY: f"{policy[1]}; frame-ancestors 'none'" if policy else NOTHING}
    return Response(content, media_type=kind, headers=headers)

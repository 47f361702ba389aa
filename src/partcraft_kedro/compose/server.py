"""The page's server: it hands what the page asks for to palette, studio and history, and back as JSON.

gradio queues what draws, tells each session its place and lets it cancel; its server mode leaves the page to us.
"""

import logging
import os
import queue
import secrets
import tempfile
import threading
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio
import numpy as np
from fastapi import Body, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from PIL import Image, ImageOps
from pydantic import BaseModel, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware

from partcraft_kedro.compose.history import History, grid_of_bytes
from partcraft_kedro.compose.palette import Variant
from partcraft_kedro.compose.studio import Made, Studio
from partcraft_kedro.errors import UserError
from partcraft_kedro.figure_style import part_colours
from partcraft_kedro.generation.recipes import MOST_GUIDANCE, MOST_STEPS, Recipe, parse_recipe, read_recipe
from partcraft_kedro.images.decoding import open_picture
from partcraft_kedro.options import SamplingOptions, Scheduler
from partcraft_kedro.prompts import join_prompt, split_prompt

_logger = logging.getLogger(__name__)
_PAGE = Path(__file__).parent / "page"
_CROP, _SHOWN = 112, 512  # pixels of a variant's crop, and of a picture of the dataset
_LARGEST = 64 * 2**20  # bytes of an upload
_MOST_AT_ONCE = 4
_LARGEST_SEED = 2**53  # whole numbers beyond it JavaScript rounds
_QUEUE = tuple(f"/gradio_api/{route}" for route in ("queue/join", "queue/data", "cancel", "startup-events"))
# Nothing on the page comes from elsewhere, and nothing may.
_POLICY = "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; frame-ancestors 'none'; base-uri 'none'"


class Words(BaseModel):
    """A prompt by its pieces."""

    before: str = Field("", max_length=500)
    code: list[int | None] = Field(max_length=64)
    after: str = Field("", max_length=500)


class Wish(Words):
    """What the page asks to be drawn."""

    board: str
    negative: str = Field("", max_length=500)
    seed: int = Field(ge=0, lt=_LARGEST_SEED)
    noises: list[Annotated[str, Field(max_length=200)]] = Field(min_length=1, max_length=_MOST_AT_ONCE)
    steps: int = Field(ge=1, le=MOST_STEPS)
    guidance_scale: float = Field(ge=1, le=MOST_GUIDANCE)
    guidance_rescale: float | None = Field(None, ge=0, le=1)
    scheduler: Scheduler | None = None
    parent: str | None = None

    def sampling(self, otherwise: SamplingOptions) -> SamplingOptions:
        """How it is to be sampled; what the page does not ask about is as it was, or as otherwise."""
        asked = {"steps": self.steps, "guidance_scale": self.guidance_scale, "negative_prompt": self.negative}
        asked |= {"guidance_rescale": self.guidance_rescale, "scheduler": self.scheduler}
        return otherwise.model_copy(update={name: value for name, value in asked.items() if value is not None})


class Shuffle(BaseModel):
    """A code, and the parts of it that stay."""

    code: list[int | None]
    locked: set[int]


class _Cancelled(Exception):
    """The page no longer wants what is being drawn."""


def serve(
    studio: Studio, boards: Path, *, title: str, env: str | None, host: str, port: int, open_browser: bool
) -> str:
    """Start the page in threads of its own; returns its address.

    boards: the folder of what is made; title: of the page; env: of the run, as in `--env`; host: 127.0.0.1, unless
    other machines are to reach it.
    Raises UserError if the port is taken.
    """
    server = build_server(studio, boards, title=title, env=env, host=host)
    try:
        _, address, _ = server.launch(
            server_name=host,
            server_port=port,
            inbrowser=open_browser,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            ssr_mode=False,
            _frontend=False,
        )
    except OSError as error:
        raise UserError(f"Port {port} of {host} cannot be used ({error}): give another with --port.") from error
    if studio.adapter is not None:
        threading.Thread(target=_load, args=(studio,), daemon=True).start()  # or the first picture would wait for it
    return str(address)


def _load(studio: Studio) -> None:
    """What cannot be mended here is told again with the first picture."""
    try:
        studio.model  # noqa: B018
    except UserError as error:
        _logger.warning("Nothing can be drawn: %s", error)


def build_server(studio: Studio, boards: Path, *, title: str, env: str | None, host: str) -> gradio.Server:
    """All routes. What a user may mend comes back as JSON, `{"sentence": …}`, with status 400."""
    server = gradio.Server(docs_url=None, redoc_url=None, openapi_url=None)
    hosts = ["*"] if host in ("0.0.0.0", "::") else ["127.0.0.1", "localhost", host]
    server.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)  # no other site's name may lead here
    server.middleware("http")(_only_ours)
    server.exception_handler(UserError)(lambda _, error: JSONResponse({"sentence": str(error)}, 400))
    server.exception_handler(RequestValidationError)(
        lambda _, error: JSONResponse({"sentence": f"This cannot be done: {_told(error)}."}, 400)
    )
    server.mount("/page", StaticFiles(directory=_PAGE))
    _add_palettes(server, studio)
    _add_recipes(server, studio, env)
    _add_boards(server, studio, boards)
    _add_making(server, studio, boards)

    @server.get("/")
    def page() -> Response:
        return FileResponse(_PAGE / "index.html", headers={"Content-Security-Policy": _POLICY})

    @server.get("/studio")
    def about() -> dict[str, Any]:
        sampling = studio.sampling
        return {
            "title": title,
            "parts_version": boards.name,  # of what stands behind the crops' addresses
            "adapter": None if studio.adapter is None else studio.version,
            "missing": None if studio.adapter else "Nothing can be drawn yet: run `kedro run --pipelines=train` first.",
            "parts": [
                {"name": name, "colour": colour, "variants": [_about(variant) for variant in variants]}
                for name, colour, variants in zip(
                    studio.palette.names, part_colours(len(studio.palette.names)), studio.palette.variants, strict=True
                )
            ],
            "sampling": {
                "steps": sampling.steps,
                "guidance_scale": sampling.guidance_scale,
                "negative": sampling.negative_prompt,
            },
            "most_steps": MOST_STEPS,
        }

    return server


async def _only_ours(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
    """Of gradio's own routes the page needs its queue alone; others read files, fetch addresses, or write."""
    path = request.url.path
    is_gradio = path.startswith(("/gradio_api", "/config", "/theme", "/static", "/login", "/monitoring", "/svelte"))
    if is_gradio and not path.startswith(_QUEUE):
        return JSONResponse({"sentence": "There is nothing here."}, 404)
    return await go_on(request)


def _about(variant: Variant) -> dict[str, Any]:
    return {"number": variant.number, "count": variant.count, "classes": variant.classes, "id": variant.typical}


def _add_palettes(server: gradio.Server, studio: Studio) -> None:
    palette = studio.palette

    @lru_cache(maxsize=4096)  # some 4 KB each
    def crop(part: int, variant: int) -> bytes:
        return _as_jpeg(palette.crop(part, variant, _CROP))

    @server.get("/crops/{part}/{variant}.jpg")
    def show_crop(part: int, variant: int) -> Response:
        return Response(crop(part, variant), media_type="image/jpeg", headers={"Cache-Control": "max-age=86400"})

    @server.get("/like/{part}/{variant}")
    def like(part: int, variant: int) -> list[int]:
        return palette.like(part, variant)

    @server.get("/dataset/{id}.jpg")
    def show_picture(id: str) -> Response:
        return Response(_as_jpeg(palette.picture(id, _SHOWN)), media_type="image/jpeg")

    @server.get("/dataset/{id}/code")
    def code(id: str) -> list[int | None]:
        return palette.code_of(id)

    @server.post("/shuffle")
    def shuffle(asked: Shuffle) -> list[int | None]:
        if len(asked.code) != len(palette.names):
            raise UserError("This code is of other parts.")
        return palette.shuffle(asked.code, asked.locked, np.random.default_rng(secrets.randbits(64)))


def _add_recipes(server: gradio.Server, studio: Studio, env: str | None) -> None:
    def restored(recipe: Recipe) -> dict[str, Any]:
        if recipe.seed >= _LARGEST_SEED:
            raise UserError(f"This recipe's seed {recipe.seed} is too large for a page.")
        before, code, after = split_prompt(studio.check(recipe).prompt, len(studio.palette.names))
        exact = join_prompt(before, code, after) == recipe.prompt  # else its tokens stand in another order
        return {"recipe": recipe.to_json(), "before": before, "code": code, "after": after, "exact": exact}

    @server.post("/prompt")
    def prompt(words: Words) -> str:
        return join_prompt(words.before, words.code, words.after)

    @server.post("/recipe")
    async def recipe_of_link(request: Request) -> dict[str, Any]:
        text = (await _body(request, 10_000)).decode(errors="replace")
        return await run_in_threadpool(lambda: restored(parse_recipe(text)))

    @server.post("/python")
    def python(recipe: Recipe) -> str:
        return as_python(recipe, env, studio.version)

    @server.post("/picture")
    async def picture(request: Request) -> dict[str, Any]:
        """Of a picture with a recipe what to restore; of any other its parts."""
        content = await _body(request, _LARGEST)
        return await run_in_threadpool(read, content)

    def read(content: bytes) -> dict[str, Any]:
        if recipe := read_recipe(BytesIO(content)):
            return restored(recipe)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "upload"
            path.write_bytes(content)
            try:
                opened = open_picture(path)
            except UserError as error:
                raise UserError("This file cannot be read as a picture: give a JPEG, PNG or WebP.") from error
        seen = studio.look_at(opened)
        opened = ImageOps.fit(opened, (_SHOWN, _SHOWN))
        shown = "data:image/jpeg;base64," + b64encode(_as_jpeg(opened)).decode()
        return {"code": seen.code, "cosine": seen.cosine, "label_map": grid_of_bytes(seen.label_map), "shown": shown}


def as_python(recipe: Recipe, env: str | None, version: str | None) -> str:
    """Lines that make the picture again in a notebook. env: of the run; version: the adapter's."""
    sampling = ", ".join(f"{name}={value!r}" for name, value in recipe.to_json()["sampling"].items())
    return f"""\
from partcraft_kedro.opening import open_catalog, open_studio
from partcraft_kedro.options import SamplingOptions

studio = open_studio(open_catalog({env!r}), {version!r})
sampling = SamplingOptions({sampling})
[made] = studio.make({recipe.prompt!r}, seed={recipe.seed}, noises=[{recipe.noise!r}], sampling=sampling)
made.picture.save("made.png")
"""


def _add_boards(server: gradio.Server, studio: Studio, boards: Path) -> None:
    def board_of(name: str) -> History:
        return History(boards, name, studio.palette.names)

    def with_origin(making: dict[str, Any]) -> dict[str, Any]:
        """`foreign`: made with another adapter, so that nothing goes on from it."""
        ours = None if studio.adapter is None else studio.fingerprint
        return making | {"foreign": making["pictures"][0]["recipe"]["adapter"] != ours}

    @server.get("/boards/{board}")
    def makings(board: str) -> list[dict[str, Any]]:
        return [with_origin(making) for making in board_of(board).makings()]

    @server.get("/boards/{board}/{making}/{number}.png")
    def picture(board: str, making: str, number: int) -> Response:
        return FileResponse(board_of(board).picture(making, number), headers={"Cache-Control": "max-age=86400"})

    @server.put("/boards/{board}/{making}/{number}/star")
    def star(board: str, making: str, number: int, starred: Annotated[bool, Body(embed=True)]) -> dict[str, Any]:
        return with_origin(board_of(board).star(making, number, starred))

    @server.delete("/boards/{board}/{making}")
    def delete(board: str, making: str) -> None:
        board_of(board).delete(making)


def _add_making(server: gradio.Server, studio: Studio, boards: Path) -> None:
    def make(wish: dict) -> Iterator[dict[str, Any]]:
        """Yields `{"step", "of"}` after each step, and at last the making."""
        try:
            asked = Wish.model_validate(wish)
            history = History(boards, asked.board, studio.palette.names)
            for told in _steps_of(studio, asked):
                if isinstance(told, tuple):
                    yield {"step": told[0], "of": told[1]}
                else:
                    yield history.add(told, asked.parent) | {"foreign": False}
        except ValidationError as error:
            raise gradio.Error(f"This cannot be drawn: {_told(error)}.", print_exception=False) from error
        except UserError as error:
            raise gradio.Error(str(error), print_exception=False) from error

    server.api(make, name="make", concurrency_limit=1)


def _steps_of(studio: Studio, wish: Wish) -> Iterator[tuple[int, int] | list[Made]]:
    """Draws in a thread of its own; yields the steps done and their number, and at last what was made."""
    told: queue.Queue[tuple[int, int] | list[Made] | Exception] = queue.Queue()
    unwanted = threading.Event()

    def on_step(done: int, count: int) -> None:
        if unwanted.is_set():
            raise _Cancelled
        told.put((done, count))

    def draw() -> None:
        try:
            prompt = join_prompt(wish.before, wish.code, wish.after)
            sampling = wish.sampling(studio.sampling)
            told.put(studio.make(prompt, seed=wish.seed, noises=wish.noises, sampling=sampling, on_step=on_step))
        except Exception as error:  # whatever it is, it is raised where the page waits
            told.put(error)

    threading.Thread(target=draw, daemon=True).start()
    try:
        while True:
            news = told.get()
            if isinstance(news, Exception):
                raise news
            yield news
            if isinstance(news, list):
                return
    finally:
        unwanted.set()  # gradio closes the generator when the page cancels, or is gone


def _told(error: ValidationError | RequestValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg'][0].lower()}{first['msg'][1:]}"


async def _body(request: Request, most: int) -> bytes:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > most:
            raise UserError(f"This file is larger than {most / 2**20:.0f} MiB.")
    return bytes(content)


def _as_jpeg(picture: Image.Image) -> bytes:
    file = BytesIO()
    picture.save(file, "JPEG", quality=88)
    return file.getvalue()

"""The page: its tabs, what they share, and the server that shows it to whom it may."""

import os
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr
from gradio import processing_utils
from PIL import EpsImagePlugin
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse

from durian_jax.animation.animator import Animator
from durian_jax.app import words
from durian_jax.app.access import Access, kind_of
from durian_jax.app.animate import Animate
from durian_jax.app.compare import Compare
from durian_jax.app.data import Data
from durian_jax.app.interpolate import Interpolate
from durian_jax.app.line import Line
from durian_jax.app.visits import MOST_MEGABYTES, Visits
from input_pipeline.errors import InputError

# Gradio opens whatever is handed in for a painted mask; nothing of it may run a program.
EpsImagePlugin.gs_binary = False


async def _fetch_nothing(url: str, cache_dir: str) -> str:
    raise InputError(f"{url}: other machines are not asked: upload a file")


# Gradio would fetch whatever address stands in the place of an uploaded file.
processing_utils.async_ssrf_protected_download = _fetch_nothing
# The browser itself keeps to this machine, whatever the scripts of the page should ask for.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self' data: blob:; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'self'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_THEME = gr.themes.Default(
    font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
).set(block_info_text_color="*neutral_600", block_label_text_color="*neutral_700")


class Guard:
    """Keeps the page to itself: answers none that a page of another origin sends, and tells the
    browser where it may ask."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send):
        given = dict(scope.get("headers", ()))
        origin = given.get(b"origin")
        if origin and origin.partition(b"//")[2] != given.get(b"host"):
            return await PlainTextResponse("another origin", 403)(scope, receive, send)

        async def told(message):
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        return await self._app(scope, receive, told)


def build(
    animator: Animator,
    visits: Visits,
    line: Line,
    given: dict[str, str],
    folders: Sequence[Path] = (),
) -> gr.Blocks:
    """The page, not yet served; see `serve`."""
    datasets = [folder for folder in folders if kind_of(folder) == "dataset"]
    compared = [folder for folder in folders if folder not in datasets]
    checkpoint = words.without_folders(given.get("checkpoint", ""))
    wears = " and wears attributes of other people" if animator.takes_attributes else ""
    with gr.Blocks(title="Durian", analytics_enabled=False) as page:
        gr.Markdown(
            f"# Durian\nA portrait moves like the driver{wears}. "
            f"Model: {checkpoint or 'the small one of the package, demonstration quality'}, "
            f"{animator.size} px. Animate only people who agreed to it."
        )
        for studio in (Animate, Interpolate) if animator.takes_attributes else (Animate,):
            with gr.Tab(studio.verb):
                studio(animator, visits, line, given)
        if compared:
            with gr.Tab("Compare") as tab:
                Compare(tab, visits, _named(compared))
        if datasets:
            with gr.Tab("Data") as tab:
                Data(tab, visits, _named(datasets))

        def close(request: gr.Request) -> None:
            line.stop(visits.of(request))
            visits.close(request)

        page.unload(close)
    return page


def _named(folders: list[Path]) -> dict[str, Path]:
    """Folders by their last name, numbered where that is not enough."""
    names = [folder.resolve().name for folder in folders]
    return {
        f"{name} ({i + 1})" if names.count(name) > 1 else name: folder
        for i, (name, folder) in enumerate(zip(names, folders))
    }


def serve(
    animator: Animator, access: Access, given: dict[str, str], folders: Sequence[Path] = ()
) -> None:
    """Serves the page until it is interrupted.

    Args:
      given: checkpoint, masks and so on where they are not the defaults, for the line to copy.
      folders: reports, case folders and data sets to show.

    Raises:
      InputError: a folder that is none of these, or a port that is taken.
    """
    with tempfile.TemporaryDirectory(prefix="durian-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build(animator, Visits(Path(folder)), line := Line(), given, folders)
        page.queue(max_size=64, api_open=False)
        middleware = [
            Middleware(TrustedHostMiddleware, allowed_hosts=access.hosts), Middleware(Guard)
        ]  # fmt: skip
        try:
            page.launch(
                server_name=access.host, server_port=access.port, auth=access.admits, quiet=True,
                share=False, prevent_thread_lock=True, footer_links=[], run_history=False,
                enable_monitoring=False, max_file_size=f"{max(MOST_MEGABYTES.values())}mb",
                theme=_THEME, css=words.CSS, js=words.SCRIPT,
                _frontend=False,  # else it gives up on a machine too busy to answer it in 3 s
                app_kwargs={"middleware": middleware, "docs_url": None, "redoc_url": None},
            )  # fmt: skip
        except OSError:
            raise InputError(
                f"{access.port}: is taken, or {access.listen} is no address of this machine: "
                "choose another",
                option="port",
            ) from None
        print(f"http://{access.host}:{access.port}  (Ctrl-C ends it)", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # files go then, too
        try:
            page.block_thread()
        finally:
            line.stop()

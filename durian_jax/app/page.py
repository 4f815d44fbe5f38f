"""The page: its tabs, what they share, and the server that shows it to whom it may."""

import os
import signal
import tempfile
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse

from durian_jax.animation.animator import Animator
from durian_jax.app import visits, words
from durian_jax.app.access import KINDS_SHOWN, Access, kind_of
from durian_jax.app.animate import Animate
from durian_jax.app.compare import Compare
from durian_jax.app.data import Data
from durian_jax.app.interpolate import Interpolate
from durian_jax.app.line import Line, Task
from durian_jax.app.studio import EXAMPLES
from input_pipeline.errors import InputError

# The browser itself keeps to this machine, whatever the scripts of the page should ask for.
_POLICY = "; ".join(
    (
        "default-src 'self' data: blob:",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "frame-ancestors 'none'",
        "form-action 'self'",
        "base-uri 'self'",
    )
)
_THEME = gr.themes.Default(
    font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
)


class Desk:
    """What the tabs of the page share: the model, the line of jobs, the browsers' visits."""

    def __init__(self, animator: Animator, root: Path, checkpoint: str | None = None):
        self.animator, self.checkpoint = animator, checkpoint
        self.visits, self.line = visits.Visits(root), Line()

    def follow(self, visit: visits.Visit, work):
        """Does the work in its turn and returns what comes of it; yields what is going on."""
        visit.tasks.append(task := Task())
        try:
            for text, found in self.line.follow(task, work):
                if text is None:
                    return found
                yield words.now(text, found)
        finally:
            visit.tasks.remove(task)

    def stop(self, request: gr.Request) -> None:
        """Ends the jobs of the browser tab that asks."""
        self.visits.of(request).stop()


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
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", _POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        return await self._app(scope, receive, told)


def build(desk: Desk, folders: list[Path]) -> gr.Blocks:
    """The page, not yet served. folders: to be shown, see `access.kind_of`."""
    shown = {kind: [one for one in folders if kind_of(one) == kind] for kind in KINDS_SHOWN}
    with gr.Blocks(title="Durian", analytics_enabled=False) as page:
        gr.Markdown(
            f"# Durian\nA portrait moves like the driver and wears attributes of other people. "
            f"Model: {desk.checkpoint or 'the small one of the package, demonstration quality'}, "
            f"{desk.animator.size} px. Animate only people who agreed to it."
        )
        with gr.Tab("Animate"):
            Animate(desk)
        if desk.animator.takes_attributes:
            with gr.Tab("Interpolate"):
                Interpolate(desk)
        if shown["report"]:
            with gr.Tab("Compare"):
                Compare(page, _named(shown["report"]), [*shown["cases"], EXAMPLES])
        if shown["dataset"]:
            with gr.Tab("Data"):
                Data(page, _named(shown["dataset"]))

        def close(request: gr.Request) -> None:
            desk.visits.close(request)

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
    animator: Animator, access: Access, checkpoint: str | None = None, folders: list[Path] = ()
) -> None:
    """Serves the page until it is interrupted.

    Args:
      checkpoint: as it was given, for the line to copy.
      folders: reports, case folders and data sets to show.

    Raises:
      InputError: a folder that is none of these, or a port that is taken.
    """
    with tempfile.TemporaryDirectory(prefix="durian-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        desk = Desk(animator, Path(folder), checkpoint)
        page = build(desk, list(folders))
        page.queue(max_size=64, api_open=False)
        try:
            page.launch(
                server_name=access.host, server_port=access.port, auth=access.admits, quiet=True,
                share=False, show_error=False, prevent_thread_lock=True, footer_links=[],
                run_history=False, enable_monitoring=False, ssr_mode=False, mcp_server=False,
                pwa=False, max_file_size=f"{max(visits.MOST_MEGABYTES.values())}mb", theme=_THEME,
                css=words.CSS,
                app_kwargs={
                    "middleware": [
                        Middleware(TrustedHostMiddleware, allowed_hosts=access.hosts),
                        Middleware(Guard),
                    ],
                    "docs_url": None, "redoc_url": None,
                },
            )  # fmt: skip
        except OSError:
            raise InputError(f"{access.port}: is taken: choose another", option="port") from None
        print(f"http://{access.host}:{access.port}  (Ctrl-C ends it)", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # files go then, too
        try:
            page.block_thread()
        finally:
            desk.visits.stop()

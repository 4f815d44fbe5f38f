"""The page: its tabs, what they share, and the server that shows it to whom it may."""

import os
import tempfile
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from durian_jax.animation.animator import Animator
from durian_jax.app import visits, words
from durian_jax.app.access import Access
from durian_jax.app.animate import Animate
from durian_jax.app.line import Line, Task

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

    def follow(self, visit: visits.Visit, work, lines: int, rest: int):
        """Does the work in its turn and returns what comes of it; yields what is going on, and
        `lines` and `rest` outputs: nothing is wrong, and the rest stays as it is."""
        visit.tasks.append(task := Task())
        try:
            for text, found in self.line.follow(task, work):
                if text is None:
                    return found
                yield (words.now(text, found), *[""] * lines, *[gr.skip()] * rest)
        finally:
            visit.tasks.remove(task)

    def stop(self, request: gr.Request) -> None:
        """Ends the jobs of the browser tab that asks."""
        self.visits.of(request).stop()


class _Headers:
    """Adds the headers that keep the page to itself."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send):
        async def told(message):
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", _POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        await self._app(scope, receive, told)


def build(desk: Desk) -> gr.Blocks:
    """The page, not yet served."""
    with gr.Blocks(title="Durian", analytics_enabled=False) as page:
        gr.Markdown(
            f"# Durian\nA portrait moves like the driver and wears attributes of other people. "
            f"Model: {desk.checkpoint or 'the small one of the package, demonstration quality'}, "
            f"{desk.animator.size} px. Animate only people who agreed to it."
        )
        with gr.Tab("Animate"):
            Animate(desk)

        def close(request: gr.Request) -> None:
            desk.visits.close(request)

        page.unload(close)
    return page


def serve(animator: Animator, access: Access, checkpoint: str | None = None) -> None:
    """Serves the page until it is interrupted.

    checkpoint: as it was given, for the line to copy.
    """
    with tempfile.TemporaryDirectory(prefix="durian-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build(Desk(animator, Path(folder), checkpoint))
        page.queue(max_size=64, api_open=False)
        page.launch(
            server_name=access.host, server_port=access.port, auth=access.admits, quiet=True,
            share=False, show_error=False, prevent_thread_lock=True, footer_links=[],
            run_history=False, enable_monitoring=False, ssr_mode=False, mcp_server=False, pwa=False,
            max_file_size=f"{max(visits.MOST_MEGABYTES.values())}mb", theme=_THEME, css=words.CSS,
            app_kwargs={
                "middleware": [
                    Middleware(TrustedHostMiddleware, allowed_hosts=access.hosts),
                    Middleware(_Headers),
                ],
                "docs_url": None, "redoc_url": None,
            },
        )  # fmt: skip
        print(f"http://{access.host}:{access.port}  (Ctrl-C ends it)", flush=True)
        page.block_thread()

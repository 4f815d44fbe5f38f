"""The page has what its model can do, and keeps to itself."""

import asyncio
import os
from types import SimpleNamespace

import gradio as gr
import pytest
from gradio import processing_utils
from PIL import Image

from durian_jax.app.line import Line
from durian_jax.app.page import Guard, build
from durian_jax.app.visits import Visits
from durian_jax.diffusion.solvers import Sampling
from input_pipeline.errors import InputError


def _labels(tmp_path, takes_attributes):
    animator = SimpleNamespace(size=64, sampling=Sampling(), takes_attributes=takes_attributes)
    page = build(animator, Visits(tmp_path), Line(), {"checkpoint": "/home/me/runs/2"})
    texts = [getattr(one, "label", None) or one.value for one in page.blocks.values()
             if hasattr(one, "label") or hasattr(one, "value")]  # fmt: skip
    return [text for text in texts if isinstance(text, str)]


def test_a_model_without_attributes_has_no_fields_for_them(tmp_path):
    labels = _labels(tmp_path, False)
    assert {"2. Animate", "steps", "Example"} <= {*labels}
    assert not [text for text in labels if "ttribute photo" in text or text == "Interpolate"]


def test_a_model_with_attributes_takes_eight(tmp_path):
    labels = _labels(tmp_path, True)
    assert [f"Attribute photo {i}" in labels for i in range(1, 10)] == [True] * 8 + [False]
    assert "Interpolate" in labels and "Example: hair" in labels
    assert [text for text in labels if "Model: 2, 64 px" in text]
    assert not [text for text in labels if "/home" in text]


@pytest.mark.parametrize("url", ["http://203.0.113.7/her.png", "https://example.com/her.png"])
def test_an_address_in_the_place_of_an_upload_is_not_fetched(tmp_path, url):
    photo = gr.Image(type="filepath")
    given = {"path": url, "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(InputError, match="other machines are not asked"):
        asyncio.run(
            processing_utils.async_move_files_to_cache(given, photo, check_in_upload_folder=True)
        )


@pytest.mark.parametrize(
    ("origin", "status"),
    [(None, 200), ("http://127.0.0.1:7860", 200), ("https://evil.example", 403), ("null", 403)],
)
def test_a_page_of_another_origin_gets_no_answer(origin, status):
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"127.0.0.1:7860")]
    headers += [(b"origin", origin.encode())] if origin else []
    scope = {"type": "http", "method": "POST", "headers": headers}
    asyncio.run(Guard(app)(scope, None, send))
    assert sent[0]["status"] == status
    if status == 200:
        told = dict(sent[0]["headers"])[b"content-security-policy"]
        assert b"default-src 'self' data: blob:" in told and b"http" not in told


def test_postscript_runs_no_program(tmp_path, monkeypatch):
    (tmp_path / "layer.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    )
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with Image.open(tmp_path / "layer.png") as picture, pytest.raises(OSError):
        picture.load()
    assert not (tmp_path / "ran").exists()

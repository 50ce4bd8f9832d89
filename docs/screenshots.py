"""Makes the pictures of the viewer in docs/images: python docs/screenshots.py

Needs chromium, chromedriver, selenium and pillow; with tensorrt-rtx, the pictures have segments.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import attrs
from PIL import Image

import rewright
from rewright.viewer.data import collect
from rewright.viewer.page_html import page

IMAGES = Path(__file__).with_name("images")
SIZE = (1280, 800)
MOST_BYTES = 300 * 1024


@attrs.frozen
class Picture:
    """One picture: of which page, in which state, in which colours, after which script."""

    name: str
    page: str
    state: str
    scheme: str = "light"
    script: str = ""


PICTURES = (
    Picture("view-overview", "bert", "tab=overview&pass=2"),
    Picture("view-diff", "bert", "tab=diff&pass=2&rule=torch-attention"),
    Picture("view-ir", "bert", "tab=ir&pass=2&value=%25scaled_dot_product_attention", "dark"),
    Picture("view-graph", "bert", "tab=graph&pass=LAST"),
    Picture("view-graph-dark", "bert", "tab=graph&pass=2&value=%25linear_3", "dark"),
    Picture("view-partition", "bert", "tab=partition&pass=LAST", "dark"),
    Picture("view-large", "llama", "tab=graph&pass=0&side=before"),
    Picture(
        "view-large-open", "llama", "tab=graph&pass=2", "dark", "rewright.drawing.setAll(true);"
    ),
    Picture("view-large-near", "llama", "tab=graph&pass=0&side=before&value=%25mul_40&near=true"),
)


def dump_bert(folder: Path) -> None:
    """A small BERT, through the whole pipeline; its embeddings are asked to stay in Torch."""
    from rewright.demo_models import MODELS

    bert = MODELS["bert"]
    settings: dict[str, Any] = {}
    if importlib.util.find_spec("tensorrt_rtx"):
        settings = {"target": "rtx", "torch_executed_modules": ("embeddings",)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # engines do not run without a GPU, and need not here
        rewright.compile(
            bert.build(), bert.inputs(), dynamic_shapes=bert.dynamic_shapes,
            dump_ir=f"changed:{folder}", **settings,
        )  # fmt: skip


def dump_llama(folder: Path) -> None:
    """A narrow Llama of 96 layers: more than 5,000 nodes as exported."""
    import torch

    transformers = importlib.import_module("transformers")
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=96, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=16, max_position_embeddings=64, use_cache=False,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    tokens = torch.randint(0, 64, (1, 8))
    rewright.compile(model, (tokens,), dump_ir=f"changed:{folder}")


DUMPS = {"bert": dump_bert, "llama": dump_llama}


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """A headless browser."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (binary and driver):
        sys.exit("chromium and chromedriver are needed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
        "disable-background-networking", "disable-component-update", "disable-sync",
        "disable-dev-shm-usage", "hide-scrollbars", f"user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    browser = webdriver.Chrome(options=options, service=Service(driver))
    width, height = SIZE
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        yield browser
    finally:
        browser.quit()


def take(browser: Any, picture: Picture, file: Path, passes: list[dict[str, Any]]) -> None:
    """Shows the page as the picture says, and keeps what is seen."""
    media = {"features": [{"name": "prefers-color-scheme", "value": picture.scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    last = max(at for at, entry in enumerate(passes) if entry["changed"])
    browser.get("about:blank")
    browser.get(f"{file.as_uri()}#{picture.state.replace('LAST', str(last))}")
    if picture.script:
        browser.execute_script(picture.script)
    time.sleep(1)
    target = IMAGES / f"{picture.name}.png"
    few = (
        Image.open(BytesIO(browser.get_screenshot_as_png())).convert("RGB").quantize(256, dither=0)
    )
    few.save(target, optimize=True)  # a third of the bytes, and nothing that the eye would miss
    size = target.stat().st_size
    sys.stdout.write(f"{target.relative_to(IMAGES.parents[1])}: {size / 1024:.0f} KiB\n")
    if size > MOST_BYTES:
        sys.exit(f"{target} is too large for the repository")


def main() -> None:
    """Makes them all."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shown, files = {}, {}
        for which, make in DUMPS.items():
            dump = folder / which
            make(dump)
            data = collect(dump)
            shown[which] = data["graphs"][0]["passes"]
            files[which] = folder / f"{which}.html"
            files[which].write_text(page(data), encoding="utf-8")
            sys.stdout.write(f"{which}: {shown[which][0]['nodes_before']} nodes at first\n")
        with chromium(folder / "profile") as browser:
            for picture in PICTURES:
                take(browser, picture, files[picture.page], shown[picture.page])


if __name__ == "__main__":
    main()

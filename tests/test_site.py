"""The site builds without a warning, needs nothing from elsewhere, and works in a real browser, from disk."""

from __future__ import annotations

import functools
import http.server
import re
import subprocess
import sys
import threading
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import sources
from playwright.sync_api import Page
from sources import ROOT

BUILD = ROOT / "docs" / "site" / "build.py"
WIDE = {"width": 1400, "height": 900}
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site") / "site"
    result = subprocess.run([sys.executable, BUILD, "--out", out], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr
    return out


@pytest.fixture
def opened(browser, site):
    """Open pages of the site; when the test ends, nothing was asked of the network and nothing complained."""
    requests: list[str] = []
    trouble: list[str] = []
    contexts = []

    def open_page(name: str, viewport=WIDE, scheme: str = "light") -> Page:
        context = browser.new_context(viewport=viewport, color_scheme=scheme, offline=True, reduced_motion="reduce")
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
        page.goto((site / name).as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert all(url.startswith(("file:", "data:")) for url in requests)
    assert not trouble


def test_nothing_comes_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:link|script|img|iframe)[^>]*(?:src|href)="(?:https?:)?//[^"]*"', text), page
    for style in site.rglob("*.css"):
        assert not re.findall(r"(?:@import|url\()\s*['\"]?(?:https?:)?//", style.read_text(encoding="utf-8")), style


TAG = re.compile(r'<[a-zA-Z](?:[^<>"]|"[^"]*")*>')


def links_of(page: Path) -> tuple[list[str], set[str]]:
    """The addresses that a page's tags name, and the places in it that others may name."""
    text = re.sub(r"(<(script|style)\b[^>]*>).*?(?=</\2>)", r"\1", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    named = [one for tag in TAG.findall(text) for one in re.findall(r'\s(href|id)="([^"]*)"', tag)]
    targets, anchors = ([unescape(value) for name, value in named if name == kind] for kind in ("href", "id"))
    return targets, set(anchors)


def test_links_between_pages_lead_somewhere(site):
    pages = {page: links_of(page) for page in site.rglob("*.html")}
    assert sum(len(targets) for targets, _ in pages.values()) > 10_000
    for page, (targets, _) in pages.items():
        for address in targets:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert path.exists(), f"{page.name}: {address}"
            anchor = unquote(parts.fragment)
            assert not anchor or path not in pages or anchor in pages[path][1], f"{page.name}: {address}"


def test_what_is_broken_ends_the_build(tmp_path):
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "index.md").write_text("# Page\n\n[gone](nowhere.md)\n\n$$\n\\nosuchcommand x\n$$\n")
    script = "import sys; from pathlib import Path; from build import build; sys.exit(build(*map(Path, sys.argv[1:])))"
    command = [sys.executable, "-c", script, tmp_path / "pages", tmp_path / "site"]
    result = subprocess.run(command, cwd=BUILD.parent, capture_output=True, text=True)
    assert result.returncode != 0
    assert "nowhere.md" in result.stderr
    assert "nosuchcommand" in result.stderr


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    result = subprocess.run([sys.executable, BUILD, "--out", tmp_path], capture_output=True, text=True)
    assert result.returncode != 0
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.browser
def test_a_reader_gets_from_the_first_page_to_a_recipe(opened):
    page = opened("index.html")
    assert page.locator("h1").inner_text().startswith("Resolute")
    page.locator(".sidebar-tree").get_by_text("How to test and harden a checkpoint").click()
    assert "checkpoint" in page.title()
    assert page.locator("article pre").first.inner_text().startswith("resolute ")
    page.locator("article").get_by_role("link", name="training", exact=True).first.click()
    assert "Training" in page.title()


@pytest.mark.browser
def test_search_finds_a_method_and_asks_nobody_else(browser, site):
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, browser.new_context() as context:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        home = f"http://127.0.0.1:{server.server_port}/"
        page = context.new_page()
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{home}index.html")
        page.locator("input[name=q]").first.fill("clever")
        page.keyboard.press("Enter")
        page.wait_for_selector("ul.search li p.context")  # the words around what was found
        assert any("clever" in text.lower() for text in page.locator("ul.search li a").all_inner_texts())
        assert all(url.startswith(home) for url in requests)
        server.shutdown()


@pytest.mark.browser
def test_search_works_from_disk(browser, site):
    with browser.new_context(offline=True) as context:
        page = context.new_page()
        page.goto((site / "index.html").as_uri())
        page.locator("input[name=q]").first.fill("clever")
        page.keyboard.press("Enter")
        page.wait_for_selector("ul.search li a")
        assert any("clever" in text.lower() for text in page.locator("ul.search li a").all_inner_texts())


@pytest.mark.browser
def test_the_menu_is_in_the_order_of_the_three_people(opened):
    captions = opened("index.html").locator(".sidebar-tree .caption").all_text_contents()
    people = [caption for caption in captions if caption.startswith("You ")]
    assert people == ["You ship a model", "You run a quality benchmark", "You do research"]
    assert captions[1:4] == people


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A web server that does not report."""

    def log_message(self, format, *args):
        pass


@pytest.mark.browser
def test_a_formula_is_drawn_and_leads_to_its_line(opened):
    page = opened("maths.html")
    section = page.locator("section#eq-9-positive-matrices")
    box = section.locator("math").first.bounding_box()
    assert box is not None
    assert box["height"] > 10
    assert section.locator("math").first.locator("msub").count() == 2
    section.locator("a.line").first.click()
    _, line = sources.place_of("resolute.defences.entropy.ChannelDensity.logits", "F.softplus(matrix)")
    assert page.url.endswith(f"#L-{line}")
    assert "F.softplus(matrix)" in page.locator(f"#L-{line}").inner_text()
    assert page.locator(f"#L-{line}").evaluate("e => getComputedStyle(e).backgroundColor") != "rgba(0, 0, 0, 0)"


@pytest.mark.browser
def test_a_public_name_leads_to_its_source(opened):
    page = opened("api/index.html")
    page.locator("article").get_by_role("link", name="IFGSM", exact=True).click()
    target = page.locator("dt[id='resolute.attacks.IFGSM']")
    target.wait_for(state="visible")
    target.get_by_text("[source]").click()
    assert "source/resolute/attacks/gradient.html#L-" in page.url


@pytest.mark.browser
@pytest.mark.parametrize("name", ["index", "maths", "maths-certified", "cli/certify", "findings", "howto/ship"])
def test_a_phone_shows_a_page_without_scrolling_sideways(opened, name):
    page = opened(f"{name}.html", PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.browser
def test_dark_is_dark_on_pages_and_in_the_source(opened):
    for name in ("maths.html", "source/resolute/attacks/ball.html"):
        colour = opened(name, scheme="dark").evaluate("getComputedStyle(document.body).backgroundColor")
        assert max(map(int, re.findall(r"\d+", colour)[:3])) < 60, name

import dataclasses
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small import grid, judge_by_few_steps, network, tiny
from watched import Watched

from resolute.attacks.registry import AttackTable
from resolute.engine.running import Machine, run
from resolute.errors import ModelWarning
from resolute.images import sample_image, write_png
from resolute.report import write_hardening, write_report
from resolute.training.hardening import harden
from resolute.training.recipe import read_recipe

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    run(grid(folder), folder / "run", Machine())
    return write_report([folder / "run"], folder / "report.html")


# What a reader types or chooses is put back after each test: to draw the page takes seconds, and is done once.
KEEP = "() => document.querySelectorAll('select, input').forEach(box => { box.first = box.value; })"
BACK = """() => document.querySelectorAll('select, input').forEach(box => {
  if (box.first === undefined || box.value === box.first) return;
  box.value = box.first;
  for (const event of ['input', 'change']) box.dispatchEvent(new Event(event, {bubbles: true}));
})"""


@pytest.fixture(scope="module")
def opened(browser, report) -> Iterator[Watched]:
    page = Watched(browser, report)
    page.page.evaluate(KEEP)
    yield page
    page.context.close()


@pytest.fixture
def watched(opened) -> Iterator[Watched]:
    """The page of the report as it was opened, on a desk."""
    yield opened
    opened.page.set_viewport_size({"width": 1280, "height": 900})
    opened.page.emulate_media(color_scheme="light")
    opened.page.evaluate(BACK)


def test_it_opens_from_disk_without_a_network_and_without_an_error(watched, report):
    watched.page.wait_for_load_state("networkidle")
    assert watched.trouble == []
    assert watched.requests == [report.as_uri()]
    for chart in ("#overview-0", "#budget-0", "#budget-1", "#trade-off-0", "#trade-off-1", "#strip .chart"):
        assert watched.page.locator(f"{chart} svg.main-svg").first.is_visible()
    broken = "() => [...document.images].filter(image => !image.complete || !image.naturalWidth || !image.alt).length"
    watched.page.wait_for_function("() => [...document.images].every(image => image.complete)")
    assert watched.page.evaluate(broken) == 0


def test_the_slider_moves_by_mouse(watched):
    assert watched.clip() == "inset(0px 0px 0px 50%)"
    watched.page.locator("#stage").scroll_into_view_if_needed()
    box = watched.page.locator("#stage").bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    watched.page.mouse.move(box["x"] + box["width"] / 2, middle)
    watched.page.mouse.down()
    watched.page.mouse.move(box["x"] + box["width"] / 4, middle, steps=4)
    watched.page.mouse.up()
    assert watched.clip() == "inset(0px 0px 0px 25%)"
    divide = watched.page.locator(".divide").bounding_box()
    assert divide is not None
    assert divide["x"] == pytest.approx(box["x"] + box["width"] / 4, abs=3)


def test_the_slider_moves_by_keyboard(watched):
    slider = watched.page.get_by_role("slider")
    slider.focus()
    slider.press("ArrowRight")
    assert watched.clip() == "inset(0px 0px 0px 51%)"
    slider.press("Home")
    assert watched.clip() == "inset(0px 0px 0px 0%)"
    slider.press("End")
    assert watched.clip() == "inset(0px 0px 0px 100%)"


def test_a_click_on_the_legend_hides_a_curve_with_its_band(watched):
    curves = watched.page.locator("#budget-0 .scatterlayer .trace")
    before = curves.count()
    own = "document.getElementById('budget-0').data.filter(trace => trace.legendgroup === 'tiny')"
    assert watched.page.evaluate(f"() => {own}.map(trace => trace.fill ?? '')") == ["toself", ""]
    watched.page.locator("#budget-0 .legendtoggle").first.click()
    watched.page.wait_for_function(f"() => {own}.every(trace => trace.visible === 'legendonly')")
    assert curves.count() == before - 2
    watched.page.locator("#budget-0 .legendtoggle").first.click()
    watched.page.wait_for_function(f"() => {own}.every(trace => trace.visible === true)")
    assert curves.count() == before


def test_another_case_changes_pictures_and_features(watched):
    sides = ("#left", "#right", "#strip .row:nth-child(2) figure:first-child img")
    for box in ("pick-image", "pick-attack", "pick-budget"):
        seen = [watched.source(selector) for selector in sides]
        maps = watched.source("#strip .row:nth-child(4) figure:nth-child(2) img")
        facts = watched.page.locator("#facts").inner_text()
        watched.page.locator(f"#{box}").select_option(index=1)
        now = [watched.source(selector) for selector in sides]
        assert all(before != after for before, after in zip(seen, now, strict=True)), box
        assert watched.source("#strip .row:nth-child(4) figure:nth-child(2) img") != maps
        assert watched.page.locator("#facts").inner_text() != facts
        chosen = watched.page.locator(f"#{box} option:checked").inner_text()
        assert chosen in watched.page.locator("#shown").inner_text()
        assert chosen in str(watched.page.locator("#left").get_attribute("alt"))
    assert watched.trouble == []


def test_both_sides_can_show_any_view(watched):
    sides = watched.page.locator("#pick-left option").all_inner_texts()
    assert len(sides) == 16
    assert watched.page.locator("#tag-left").inner_text() == "tiny: attacked output"
    assert watched.page.locator("#tag-right").inner_text() == "tiny-entropy: attacked output"
    watched.page.locator("#pick-left").select_option(label="clean input")
    assert watched.page.locator("#tag-left").inner_text() == "clean input"
    rendering = "element => getComputedStyle(element).imageRendering"
    assert watched.page.locator("#left").evaluate(rendering) == "pixelated"
    assert watched.page.locator("#right").evaluate(rendering) == "auto"
    watched.page.locator("#pick-image").select_option(index=1)
    assert watched.page.locator("#tag-left").inner_text() == "clean input"


def test_a_phone_needs_no_sideways_scrolling(browser, report):
    opened = Watched(browser, report, width=390)
    table = opened.page.locator(".scroll").first
    for width in (390, 320):
        opened.page.set_viewport_size({"width": width, "height": 900})
        opened.page.wait_for_function("width => document.documentElement.scrollWidth <= width", arg=width)
        assert table.evaluate("element => element.scrollWidth > element.clientWidth")
        assert "sideways" in table.evaluate("element => getComputedStyle(element, '::before').content")
    opened.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_on_a_desk(watched, scheme):
    watched.page.set_viewport_size({"width": 1400, "height": 900})
    watched.page.emulate_media(color_scheme=scheme)
    watched.page.wait_for_function("() => document.documentElement.scrollWidth <= 1400")
    for box in watched.page.locator(".scroll").all():
        cut = box.evaluate("element => element.scrollWidth - element.clientWidth")
        assert cut <= 1, box.get_attribute("aria-label")


def test_charts_are_drawn_in_the_font_of_the_page(watched):
    watched.page.wait_for_function("() => document.getElementById('budget-0').layout.font?.family")
    font = watched.page.evaluate("() => getComputedStyle(document.body).fontFamily")
    for text in ("#budget-0 .xtick text", "#budget-0 .legendtext", "#budget-0 .xtitle"):
        assert watched.page.locator(text).first.evaluate("element => getComputedStyle(element).fontFamily") == font


def test_charts_follow_the_page_into_the_dark(watched):
    colour = "() => getComputedStyle(document.querySelector('#budget-0 .xtick text')).fill"
    watched.page.wait_for_function("() => document.getElementById('budget-0').layout.font?.color")
    light = watched.page.evaluate(colour)
    watched.page.emulate_media(color_scheme="dark")
    watched.page.wait_for_function(f"before => ({colour})() !== before", arg=light)
    assert watched.page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"
    assert watched.trouble == []


def test_the_leaderboard_sorts_by_keyboard_and_chooses_rows(watched):
    page = watched.page
    board = page.locator("#table-0")
    form = page.locator("form.filters").first
    rows = board.locator("tbody tr:visible")

    def column(number):
        return [text.split("\n")[0] for text in rows.locator(f"td:nth-child({number})").all_inner_texts()]

    assert rows.count() == 3
    assert set(column(6)) == {"worst on each image"}
    assert set(column(7)) == {"4/255"}
    figures = list(map(float, column(3)))
    assert figures == sorted(figures, reverse=True)
    heads = board.locator("thead th")
    assert heads.nth(2).get_attribute("aria-sort") == "descending"
    button = heads.nth(2).get_by_role("button")
    button.focus()
    button.press("Enter")
    assert heads.nth(2).get_attribute("aria-sort") == "ascending"
    assert list(map(float, column(3))) == sorted(figures)
    heads.nth(0).get_by_role("button").click()
    assert heads.nth(2).get_attribute("aria-sort") == "none"
    names = rows.locator("th").all_inner_texts()
    assert names == sorted(names)
    form.get_by_label("Attack").select_option("FDA")
    form.get_by_label("Budget").select_option("16/255")
    assert set(column(6)) == {"FDA"}
    assert set(column(7)) == {"16/255"}
    form.get_by_label("Attack").select_option("")
    form.get_by_label("Budget").select_option("")
    assert form.locator("output").inner_text() == "18 of 18 rows"
    form.get_by_label("Find").fill("ENTROpy")
    assert set(rows.locator("th").all_inner_texts()) == {"tiny-entropy"}
    assert form.locator("output").inner_text() == "6 of 18 rows"
    assert watched.trouble == []


def test_cases_are_gone_through_from_the_worst_on(watched):
    page = watched.page
    labels = page.locator("#pick-case option").all_inner_texts()
    kept = [float(label.rpartition(": ")[2].removesuffix(" dB")) for label in labels]
    assert kept == sorted(kept)
    assert len(kept) == 8
    assert labels[0].startswith("1. ")
    assert page.locator("#previous").is_disabled()

    def case():
        return page.locator("#pick-case option:checked").inner_text()

    for go, wanted in (
        (lambda: page.locator("#next").click(), 1),
        (lambda: page.locator("#slider").press("ArrowDown"), 2),
        (lambda: page.locator("#slider").press("ArrowUp"), 1),
        (lambda: page.locator("#previous").click(), 0),
        (lambda: page.locator("#pick-case").select_option(index=len(labels) - 1), -1),
    ):
        go()
        assert case() == labels[wanted]
        title = case().partition(". ")[2]
        image = title.partition(", ")[0]
        assert page.locator("#shown").inner_text() == title
        assert page.locator("#pick-image option:checked").inner_text() == image
    assert page.locator("#next").is_disabled()
    assert watched.clip() == "inset(0px 0px 0px 50%)"
    assert watched.trouble == []


def test_the_difference_is_amplified_by_the_factor_that_it_says(watched):
    page = watched.page
    page.locator("#stage").scroll_into_view_if_needed()

    def brightness():
        """The mean of what is seen in the picture, away from the labels."""
        box = page.locator("#stage").bounding_box()
        half = {
            "x": box["x"],
            "y": box["y"] + box["height"] / 2,
            "width": box["width"],
            "height": box["height"] / 2 - 2,
        }
        return float(np.asarray(Image.open(io.BytesIO(page.screenshot(clip=half))).convert("RGB")).mean())

    page.locator("#pick-left").select_option(label="clean input")
    page.locator("#pick-right").select_option(label="clean input")
    assert brightness() > 20
    page.locator("#pick-mode").select_option("16")
    assert brightness() == 0
    page.locator("#pick-right").select_option(label="tiny: attacked input")
    page.locator("#pick-mode").select_option("1")
    once = brightness()
    page.locator("#pick-mode").select_option("4")
    # Of an attack at 16/255 nothing is cut off by then.
    assert brightness() == pytest.approx(4 * once, rel=0.05)
    assert page.locator("#tag-left").inner_text() == "clean input \u2212 tiny: attacked input, \u00d74"
    assert page.locator("#slider").is_hidden()
    page.locator("#pick-mode").select_option("0")
    assert page.locator("#slider").is_visible()
    assert watched.trouble == []


def test_tables_are_whole_without_javascript(browser, report):
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator("#table-0 tbody tr").count() == 18
    assert page.locator("#table-0 tbody tr").last.is_visible()
    context.close()


def test_hostile_names_do_nothing(browser, tmp_path):
    bait = "<img src=x onerror=alert(1)>\"'"
    name = f"{bait}</script><script>alert(2)</script>"
    study = grid(tmp_path)
    for number, path in enumerate(study.models[:2]):
        tiny(Path(path), f"{name}{'-entropy' * number}", number)
    (tmp_path / "photos" / "coffee.png").rename(tmp_path / "photos" / f"{bait}.png")
    attacks = tuple(AttackTable(table.kind, label=name + table.kind, steps=2) for table in study.attacks)
    run(dataclasses.replace(study, attacks=attacks, name=bait), tmp_path / "run", Machine())
    opened = Watched(browser, write_report([tmp_path / "run"], tmp_path / "report.html"))
    opened.page.wait_for_load_state("networkidle")
    assert opened.trouble == []
    assert len(opened.requests) == 1
    for box in ("pick-attack", "pick-left"):
        assert name in opened.page.locator(f"#{box} option").all_inner_texts()[-1]
    opened.page.locator("#pick-image").select_option(label=bait)
    assert bait in str(opened.page.locator("#left").get_attribute("alt"))
    assert name == opened.page.locator("#budget-0 .legendtext").first.text_content()
    assert opened.page.locator("h1").inner_text() == f"Attacks on {name}, {name}-entropy"
    assert opened.page.locator(".kicker").text_content() == f"Resolute: {bait}"
    opened.context.close()


def test_the_page_of_a_hardening(browser, tmp_path, monkeypatch):
    judge_by_few_steps(monkeypatch)
    torch.save(network().state_dict(), tmp_path / "<b>mine.pth")
    for name in ("astronaut", "coffee", "rocket"):
        write_png(tmp_path / "photos" / f"{name}.png", sample_image(name)[:, 100:180, 150:250])
    recipe = read_recipe("harden")
    data = dataclasses.replace(recipe.data, patch=12, batch=4, validation=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ModelWarning)
        recipe = dataclasses.replace(recipe, data=data)
        made = harden(tmp_path / "<b>mine.pth", tmp_path / "photos", tmp_path / "out", recipe=recipe, steps=2)
    for width, scheme in ((1280, "light"), (420, "dark")):
        watched = Watched(browser, write_hardening(made.weights.parent), width, scheme, ready="#stage")
        before = watched.clip()
        watched.page.locator("#slider").focus()
        watched.page.keyboard.press("ArrowRight")
        assert watched.clip() != before
        assert "<b>mine, hardened" in watched.page.locator("h1").inner_text()
        overflow = watched.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0
        assert not watched.trouble
        assert watched.requests == [watched.page.url]
        watched.context.close()

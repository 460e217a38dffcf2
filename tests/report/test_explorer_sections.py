import base64
import hashlib
import html
import json
import re

from tests.report.test_explorer import small_explorer
from tests.report.test_html import HOSTILE, Page

from flyweight.report.explorer import Layer
from flyweight.report.explorer_sections import explorer_values, price, short_name
from flyweight.report.html import to_html


def test_a_price_is_a_sum_of_products():
    shown = small_explorer(products=(((100,), (0, 1)), ((7,), ())))
    assert price(shown, 0, [4]) == 100 * 3 * 4 + 7
    assert price(shown, 0, [1]) == 100 * 3 + 7


def test_costs_are_shown_in_the_scale_of_the_dense_network():
    shown = explorer_values(small_explorer(products=(((10**6,), (0, 1)),)))
    cost = {"key": "macs", "label": "MACs", "divisor": 1e6, "symbol": "MMACs"}
    assert shown["costs"] == [cost]
    assert [mode["key"] for mode in shown["modes"]] == ["max_drop", "macs"]
    assert shown["layers"] == [{"name": "a.weight", "short": "a", "channels": 4}]


def test_names_lose_what_nearly_all_of_them_end_in():
    assert short_name("a.weights") == "a"
    assert short_name("weight") == "weight"


def test_the_page_runs_its_own_script_and_no_other(report, run_folder):
    text = to_html(report.model_copy(update={"explorer": small_explorer()}), run_folder)
    page = Page(text)
    assert page.open == []
    assert [s.get("type") for s in page.named("script")] == ["application/json", None]
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(m["content"] for m in page.named("meta") if "http-equiv" in m)
    assert f"script-src 'sha256-{digest}'" in policy
    assert "unsafe-inline" not in policy.split("script-src")[1]
    sections = [section["id"] for section in page.named("section")]
    assert sections[5:7] == ["explorer", "sensitivity"]
    assert re.findall(r"https?:|@import|url\(|fetch\(|XMLHttp", text.split("base64,")[0]) == []
    for control in page.named("input"):
        assert control["type"] == "radio" or control["aria-label"]


def test_a_scan_alone_needs_neither_cards_nor_a_table(report, run_folder):
    alone = {"explorer": small_explorer(), "rows": report.rows[:1]}
    page = Page(to_html(report.model_copy(update=alone), run_folder))
    sections = [section["id"] for section in page.named("section")]
    assert not {"glance", "numbers"} & set(sections)


def test_hostile_names_stay_text(report, run_folder):
    shown = small_explorer()
    layer = shown.layers[0].model_copy(update={"name": HOSTILE})
    hostile = shown.model_copy(
        update={"metric": HOSTILE, "layers": (layer,), "command": HOSTILE, "notes": (HOSTILE,)}
    )
    text = to_html(report.model_copy(update={"explorer": hostile}), run_folder)
    page = Page(text)
    assert page.open == []
    assert len(page.named("script")) == 2
    assert len(page.named("img")) == 2
    data = re.search(r'id="explorer-data">(.*?)</script>', text, re.DOTALL)[1]
    assert html.unescape(data) == data
    assert Layer.model_validate(json.loads(data)["layers"][0]).name == HOSTILE

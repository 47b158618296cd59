"""A page in a browser, for the tests of pages."""

from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Page, Request


class Watched:
    """A page, and all that it said and asked for."""

    def __init__(
        self,
        browser: Browser,
        path: Path,
        width: int = 1280,
        scheme: str = "light",
        ready: str = "#budget-0 .legendtoggle",
    ) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
            offline=True,
        )
        self.page: Page = self.context.new_page()
        # Of a machine with other work, the browser too gets a share alone.
        self.page.set_default_timeout(120_000)
        self.trouble: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.trouble.append(dialog.message), dialog.dismiss()))
        self.page.on("request", self._on_request)
        self.page.goto(path.as_uri())
        self.page.wait_for_selector(ready, state="attached")

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.trouble.append(message.text)

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith("data:"):
            self.requests.append(request.url)

    def clip(self) -> str:
        return self.page.locator("#right").evaluate("element => getComputedStyle(element).clipPath")

    def source(self, selector: str) -> str:
        return str(self.page.locator(selector).get_attribute("src"))

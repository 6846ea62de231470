"""A page that is watched: every dialog, every request to elsewhere, and everything on it that should be text only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from playwright.sync_api import Locator, Page, expect

CANARY = """
window.__called = [];
window.xss = (...said) => window.__called.push(said);
// Gradio's own page has scripts in it that the policy stops, before anything of ours is on it.
document.addEventListener("DOMContentLoaded", () => {
  document.addEventListener("securitypolicyviolation", (event) => window.__called.push(event.blockedURI));
});
"""
# Everything on the page that a payload could have made, in words. Text is not: it may say what it likes.
ALIVE = """
(within) => {
  const found = [], links = ["src", "srcset", "href", "xlink:href", "action", "formaction", "data", "poster",
    "background", "ping", "cite", "srcdoc", "style", "content"];
  const looks = (root) => {
    for (const each of root.querySelectorAll("*")) {
      const say = (what) => found.push(`${what}: ${each.outerHTML.slice(0, 200)}`);
      if (/pwned/.test(`${each.id} ${each.getAttribute("name")} ${each.getAttribute("class")}`)) say("made");
      for (const { name, value } of each.attributes) {
        if (/^on/.test(name) && /xss/.test(value)) say("handler");
        const link = links.includes(name) && /evil\\.example|xss|^\\s*(javascript|vbscript|data:text)/i.test(value);
        // A link that Markdown has made, and that a person may press, leads to a page and nowhere else.
        const written = name === "href" && each.matches(".md a") && /^(https?|mailto):/.test(each.href);
        if (link && !written) say("link");
      }
      if (["IFRAME", "OBJECT", "EMBED", "MARQUEE"].includes(each.tagName)) say("element");
      if (["SCRIPT", "STYLE"].includes(each.tagName) && /xss\\(|evil\\.example/.test(each.textContent)) say("code");
      if (each.closest(".md") && each.matches("img, script, svg:not(.md-link-icon, button svg), style, form, .mermaid"))
        say("drawn");
      if (each.shadowRoot) looks(each.shadowRoot);
    }
  };
  looks(within || document);
  return [...new Set(found)];
}
"""
# Looks at once at everything that changes within an element, and once more when it has been drawn; `saw` is told the
# number of tokens that the note under the reply says.
LOOKS_ON = f"""
(selector) => {{
  const alive = {ALIVE.strip()};
  const within = document.querySelector(selector);
  let last = -1;
  const look = () => window.__alive.push(...alive(within));
  window.__alive = [];
  new MutationObserver(() => {{
    look();
    const said = /(\\d+) tokens/.exec(within.querySelector(".bot.message")?.textContent);
    const number = said ? Number(said[1]) : last;
    if (number === last) return;
    last = number;
    requestAnimationFrame(() => requestAnimationFrame(() => (look(), window.__saw(number))));
  }}).observe(within, {{ subtree: true, childList: true, attributes: true, characterData: true }});
}}
"""
# What a person might touch: handlers and links that were made would answer.
TOUCH = """
() => {
  for (const each of document.querySelectorAll(".nb-slot *, .md *, [role=option] *")) {
    for (const kind of ["mouseover", "mousemove", "focus", "pointerenter"])
      each.dispatchEvent(new MouseEvent(kind, { bubbles: true, clientX: 5, clientY: 5 }));
  }
  document.querySelectorAll("details").forEach((each) => (each.open = true));
}
"""


@dataclass
class Watched:
    """A page, and what it did that it should not have."""

    page: Page
    home: str
    faults: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """From now on every dialog, every error and every request to elsewhere is remembered."""
        self.page.on("dialog", lambda dialog: (self.faults.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.on("popup", lambda popup: self.faults.append(f"popup {popup.url}"))
        self.page.on("pageerror", lambda error: self.faults.append(f"script error {error}"))
        self.page.context.on("request", lambda request: self._asked(request.url))

    def _asked(self, url: str) -> None:
        if not url.startswith((self.home, "data:image", "blob:")):
            self.faults.append(f"request {url[:200]}")

    def look(self, where: str, seen: str = "pwned") -> None:
        """Touch everything, and note what is alive; `seen` must be there as text, or nothing was shown."""
        expect(self.page.locator("body")).to_contain_text(seen)
        self.page.evaluate(TOUCH)
        self.faults += [f"{where}: {alive}" for alive in self.page.evaluate(ALIVE)]
        self.faults += [f"{where}: {alive}" for alive in self.page.evaluate("(window.__alive || []).splice(0)")]
        self.faults += [f"{where}: xss({said})" for said in self.page.evaluate("window.__called.splice(0)")]

    def look_on(self, selector: str, saw: Callable[[int], None]) -> None:
        """From now on look at every change within `selector`; `saw` hears how far the reply there is shown."""
        self.page.expose_function("__saw", saw)
        self.page.evaluate(LOOKS_ON, selector)

    def done(self) -> None:
        """Close the page. Nothing may have been noted."""
        self.page.context.close()
        assert not self.faults, "\n".join(dict.fromkeys(self.faults))

    def open(self, tab: str) -> Locator:
        """Open a tab; returns what is in sight."""
        self.page.get_by_role("tab", name=tab, exact=True).click()
        return self.page.locator("[role=tabpanel]").locator("visible=true")

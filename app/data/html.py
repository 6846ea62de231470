"""What was found in a dataset, as HTML: how it reads, its figures, its findings, its lengths. All of it escaped."""

from typing import Any

from app.data.findings_html import AT_WORK, count_rows, error_in_words, findings, words
from app.data.lengths_chart import lengths_chart
from app.ui.form import WORDS
from app.ui.html import duration, figure, number, progress_bar, text
from core.data.samples import samples
from core.sizes import MIB, show_size

State = dict[str, Any]
FILES_NAMED = 30
ENCODINGS_NAMED = 20
_BY_HAND = (
    '<p class="nb-offers nb-left"><button type="button" class="nb-button" data-act="by hand" data-value="">'
    "Map columns</button></p>"
)

# For gr.HTML: what carries data-act is a button; a finding that was open stays open when the list is drawn anew.
ACT = """
element.addEventListener("click", (event) => {
  const pressed = event.target.closest("[data-act]");
  if (!pressed) return;
  if (pressed.dataset.act === "upload") return document.querySelector(".nb-data input[type=file]")?.click();
  trigger("click", { act: pressed.dataset.act, value: pressed.dataset.value });
  if (pressed.dataset.act === "row") document.querySelector(".nb-row-place")?.scrollIntoView({ block: "nearest" });
});
const open = new Set();
element.addEventListener("toggle", (event) => {
  const code = event.target.dataset.code;
  if (code) event.target.open ? open.add(code) : open.delete(code);
}, true);
new MutationObserver(() => {
  for (const code of open) {
    const found = element.querySelector(`details[data-code="${CSS.escape(code)}"]`);
    if (found && !found.open) found.open = true;
  }
}).observe(element, { childList: true, subtree: true });
"""


def parts(state: State, more: dict[str, list[int]]) -> dict[str, str]:
    """The tab's parts by name: evidence, encoding, template, head, findings, lengths."""
    if state["stage"] == "idle":
        return {"evidence": "", "encoding": "", "template": "", "head": empty(), "findings": "", "lengths": ""}
    return {
        "evidence": evidence(state),
        "encoding": encoding(state),
        "template": template(state),
        "head": head(state),
        "findings": findings(state, more),
        "lengths": lengths(state),
    }


def empty() -> str:
    """Before there is a dataset: what will be here, and the buttons that fill it."""
    offers = "".join(
        f'<button type="button" class="nb-button" data-act="sample" data-value="{text(sample.name)}">'
        f"{text(sample.title)}</button>"
        for sample in samples()
    )
    own = '<button type="button" class="nb-button nb-first" data-act="upload">Choose your own files</button>'
    return (
        '<div class="nb-empty"><b>No dataset yet</b><p>Here you will see the format of your data, problems in it, '
        "every row as the model sees it, and how long the rows are. Start with your own file or with a sample."
        f'</p><div class="nb-offers">{own}{offers}</div></div>'
    )


def at_work(state: State) -> str:
    """What is being done, with how far it is."""
    share = f"{state['progress']:.0%}".replace("%", " %")
    return {
        "starting": "Starting…",
        "reading": f"Reading… {share}",
        "tokens": f"Counting tokens… {share}",
    }[state["stage"]]


def head(state: State) -> str:
    """Whether this dataset can be used, and its metrics."""
    if state["stage"] == "failed":
        return error_in_words(state["error"]) + (_BY_HAND if state.get("columns") else "")
    name = text(state.get("name") or "")
    if "usable" not in state:
        return (
            f'<section class="nb-card nb-hold"><header><div><h3>{name}</h3></div>{_progress(state)}</header></section>'
        )
    size = f" · {_size(state['bytes'])}" if state.get("bytes") else ""
    renewed = " nb-stale" if state.get("renewed") else ""
    return (
        f'<section class="nb-card{renewed}"><header>{_badge(state)}<div><h3>{name}</h3>'
        f"<small>{count_rows(state['rows'])}{size}</small></div>{_progress(state)}</header>"
        f'<div class="nb-figures nb-wide-figures">{"".join(_figures(state))}</div></section>'
    )


def _progress(state: State) -> str:
    if state["stage"] not in AT_WORK:
        return ""
    bar = progress_bar(state["progress"], moving=state["stage"] == "starting")
    return f'<div class="nb-work"><p role="status">{at_work(state)}</p>{bar}</div>'


def _size(count: int) -> str:
    return show_size(count) if count >= MIB else f"{max(1, round(count / 1024)):,} KiB"


def _badge(state: State) -> str:
    worst = {warning["severity"] for warning in state.get("warnings", ())}
    if state["usable"] == 0 or "error" in worst:
        return '<span class="nb-state nb-failed">Fix first</span>'
    if "warning" in worst:
        return '<span class="nb-state nb-stopped">Usable, check the findings</span>'
    if state["stage"] != "done":
        return '<span class="nb-state nb-preparing">Checking</span>'
    return '<span class="nb-state nb-finished">Ready to train</span>'


def _figures(state: State) -> list[str]:
    left_out = state["rows"] - state["usable"]
    shown = [figure("usable", f"{number(state['usable'])} of {number(state['rows'])}", "rows")]
    if left_out:
        shown.append(figure("left out", number(left_out), f"{'row' if left_out == 1 else 'rows'}; reasons below"))
    if state.get("tokens"):
        shown += _token_figures(state)
    return shown


def _token_figures(state: State) -> list[str]:
    tokens = state["tokens"]
    guessed = "" if tokens.get("exact", True) else "about "
    share = f"{100 * tokens['trained'] / tokens['total']:.0f} % of all" if tokens["total"] else ""
    shown = [
        figure("tokens in total", guessed + number(tokens["total"]), _interval(tokens, "total")),
        figure("trained on", guessed + number(tokens["trained"]), share),
        figure("median length", f"{number(tokens['p50'])}", "tokens long"),
        figure("95th percentile", f"{number(tokens['p95'])}", "tokens long"),
        figure("longest", f"{number(tokens['max'])}", "tokens long"),
    ]
    cut = state.get("truncated", 0)
    shown.append(figure("cut", number(cut), f"longer than {number(state['max_length'])} tokens"))
    padding = state.get("padding")
    if padding:
        unpacked = f"packed; {100 * padding['padded']:.0f} % without packing"
        shown.append(figure("padding", f"{100 * padding['packed']:.1f} %", unpacked))
    if state.get("steps_per_epoch"):
        steps = state["steps_per_epoch"]
        shown.append(figure("an epoch", f"{number(steps)} {'step' if steps == 1 else 'steps'}", _time(state)))
    return shown


def _time(state: State) -> str:
    if state.get("seconds_per_epoch") is None:
        return state.get("seconds_basis") or "no finished run to estimate the time from"
    basis = f", {state['seconds_basis']}" if state.get("seconds_basis") else ""
    return f"about {duration(state['seconds_per_epoch'])}{basis}"


def _interval(tokens: dict[str, Any], key: str) -> str:
    if tokens.get("exact", True):
        return "counted exactly"
    low, high = (tokens.get("interval") or {}).get(key, (None, None))
    sample = f"from a sample of {number(tokens['sample'])} rows" if tokens.get("sample") else "estimated from a sample"
    return f"{sample}, ± {number((high - low) / 2)}" if low is not None else sample


def evidence(state: State) -> str:
    """How the rows were recognised, and what else they could be."""
    if not state.get("format"):
        return ""
    named = WORDS["data.format"].get(state["format"], state["format"])
    others = "".join(
        f'<li><button type="button" class="nb-button" data-act="format" data-value="{text(other["format"])}">'
        f"{text(WORDS['data.format'].get(other['format'], other['format']))}</button> "
        f"<small>{words(other['evidence'])}</small></li>"
        for other in state.get("alternatives", ())
    )
    instead = f"<details><summary>Other possible formats</summary><ul>{others}</ul></details>" if others else ""
    return f'<div class="nb-evidence"><b>{text(named)}</b><p>{words(state.get("evidence", ""))}</p>{instead}</div>'


def encoding(state: State) -> str:
    """How each file's letters were read and why so, and how they would read in other encodings."""
    files = state.get("files") or []
    if not files:
        return _encodings(state)
    lines = "".join(
        f"<li><b>{text(file['name'])}</b> <small>{text(_file(file))}</small></li>" for file in files[:FILES_NAMED]
    )
    rest = f"<li>and {number(len(files) - FILES_NAMED)} more files</li>" if len(files) > FILES_NAMED else ""
    return f'<ul class="nb-files">{lines}{rest}</ul>{_encodings(state)}'


def _encodings(state: State) -> str:
    """The encodings that the data may be in, each with words as they would read in it: a button takes it."""
    in_use, named = {file.get("encoding") for file in state.get("files") or ()}, WORDS["data.encoding"]
    offered = [each for each in state.get("encodings") or () if {named[each["encoding"]]} != in_use][:ENCODINGS_NAMED]
    if not offered:
        return ""
    items = "".join(
        f'<li><button type="button" class="nb-button" data-act="encoding" data-value="{text(each["encoding"])}">'
        f"{text(named[each['encoding']])}</button> <small>{text(' · '.join(each['words']))}</small></li>"
        for each in offered
    )
    unsure = state["stage"] == "failed" and not state.get("files")
    title = "Choose the encoding in which the words read correctly" if unsure else "The same words in other encodings"
    return (
        f'<div class="nb-evidence"><details{" open" if unsure else ""}><summary>{title}</summary><ul>{items}</ul>'
        "</details></div>"
    )


def template(state: State) -> str:
    """Which chat template it came to."""
    message = state.get("template")
    return f'<div class="nb-evidence"><p>Written with {words(message)}.</p></div>' if message else ""


def _file(file: dict[str, Any]) -> str:
    read_as = WORDS["data.encoding"].get(file.get("encoding") or "", file.get("encoding") or "")
    because = f" ({file['evidence']})" if file.get("evidence") else ""
    rows = f"{count_rows(file['rows'])}, " if file.get("rows") is not None else ""
    return f"{rows}{file.get('kind', '')}{', read as ' + read_as if read_as else ''}{because}"


def lengths(state: State) -> str:
    """The histogram with its limit, what limit would do, and how the rows are parted."""
    drawn = state.get("lengths")
    if not drawn:
        return ""
    chart = lengths_chart(drawn["edges"], drawn["counts"], state["max_length"], state["tokens"]["max"])
    if not chart:
        return ""
    offers = "".join(_suggestion(each, state["max_length"]) for each in state.get("suggestions", ()))
    advice = f'<ul class="nb-advice">{offers}</ul>' if offers else ""
    return (
        '<section class="nb-card"><header><div><h3>Conversation lengths</h3>'
        f"<small>in this model's tokens</small></div></header>{chart}{advice}{_split(state)}</section>"
    )


def _suggestion(found: dict[str, Any], limit: int) -> str:
    length = found["max_length"]
    if length == limit:
        return f"<li><b>{number(length)} is set</b> <span>{text(found['because'])}</span></li>"
    return (
        f'<li><button type="button" class="nb-button" data-act="limit" data-value="{int(length)}">'
        f"Use {number(length)}</button> <span>{text(found['because'])}</span></li>"
    )


def _split(state: State) -> str:
    split, named = state.get("split"), state.get("splits")
    if not split:
        return ""
    shown = [
        figure("to train on", number(split["train"]), "rows"),
        figure("held out", number(split["held_out"]), "rows, for evaluation"),
    ]
    if named:
        shown.append(figure("not used", number(named["left_alone"]), "test rows, left for you"))
    together = split.get("duplicates_kept_together")
    if together and not (named and named["held_out"]):
        shown.append(figure("duplicates", number(together), "each kept in one split"))
    by = "<p>Using the splits named in the data.</p>" if named else ""
    return f'<h4 class="nb-group">Split</h4>{by}<div class="nb-figures">{"".join(shown)}</div>'

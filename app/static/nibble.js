// What the page does by itself: hides the key in the address, names the fields for screen readers, switches light and
// dark, shows a chart's values or a token's id under the pointer, keeps up with the server's feed, says in its title how
// the run is, and tells when it has ended. Runs once, on load.
() => {
  const here = new URL(window.location.href);
  if (here.searchParams.has("token")) {
    here.searchParams.delete("token");
    window.history.replaceState(null, "", here);
  }

  const chosen = window.localStorage.getItem("nibble-look");
  if (chosen) document.body.classList.toggle("dark", chosen === "dark");
  document.addEventListener("click", (event) => {
    if (!event.target.closest(".nb-look")) return;
    const dark = document.body.classList.toggle("dark");
    window.localStorage.setItem("nibble-look", dark ? "dark" : "light");
  });

  // Gradio puts the help text inside the label: a field's name would be a paragraph.
  const nameFields = () => {
    for (const field of document.querySelectorAll("input, textarea")) {
      if (field.hasAttribute("data-named")) continue;
      const title = field.closest(".block")?.querySelector('[data-testid="block-info"]');
      if (!title || field.closest("fieldset")) continue;
      field.setAttribute("data-named", "");
      if (field.type !== "range") field.setAttribute("aria-label", title.textContent.trim());
    }
  };
  let waiting = 0;
  new MutationObserver(() => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(nameFields);
  }).observe(document.body, { childList: true, subtree: true });
  nameFields();

  const tip = document.createElement("div");
  tip.className = "nb-tip";
  (document.querySelector(".gradio-container") ?? document.body).append(tip);
  const show = (value) => (Math.abs(value) >= 1000 ? value.toFixed(0) : value.toPrecision(4));
  const time = (value) =>
    value < 60 ? `${value.toFixed(1)} s` : `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;

  const follow = (event) => {
    tip.style.left = `${Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${event.clientY + 14}px`;
  };

  const nearest = (path, x) => {
    let best = null;
    for (const pair of path.getAttribute("d").slice(1).split("L")) {
      const [px, py] = pair.split(" ").map(Number);
      if (best === null || Math.abs(px - x) < Math.abs(best[0] - x)) best = [px, py];
    }
    return best;
  };

  const point = (svg, event) => {
    const box = svg.getBoundingClientRect();
    const view = svg.viewBox.baseVal;
    const x = ((event.clientX - box.left) / box.width) * view.width;
    const [left, top, right, bottom] = svg.dataset.plot.split(",").map(Number);
    const [x0, x1, y0, y1] = svg.dataset.range.split(",").map(Number);
    if (x < left || x > right) return false;
    const rows = [...svg.querySelectorAll("path[data-name]")].map((path) => {
      const [px, py] = nearest(path, x);
      return { name: path.dataset.name, x: px, value: y0 + ((bottom - py) / (bottom - top)) * (y1 - y0) };
    }).filter((row) => Math.abs(row.x - x) < 12 && !/^(budget|predicted)/.test(row.name));
    if (!rows.length) return false;
    const at = x0 + ((rows[0].x - left) / (right - left)) * (x1 - x0);
    tip.replaceChildren();
    const head = document.createElement("b");
    const whole = Math.round(at).toLocaleString("en");
    head.textContent = { time: time(at), tokens: `${whole} tokens` }[svg.dataset.kind] ?? `step ${whole}`;
    tip.append(head, ...rows.map((row) => {
      const line = document.createElement("div");
      line.textContent = `${row.name}: ${show(row.value)}`;
      return line;
    }));
    follow(event);
    return true;
  };
  // A token says its id and its text, a bar what it counts. The browser's own slow hint is taken away.
  const spell = { " ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍" };
  const say = (event) => {
    const said = event.target.closest?.(".nb-tokens span, [data-said]");
    if (!said) return false;
    if (said.title) {
      const kind = said.classList.contains("nb-t") ? "trained on" : "context only";
      said.dataset.said = `${said.title} · “${said.textContent.replace(/[ \n\t\r]/g, (blank) => spell[blank])}” · ${kind}`;
      said.removeAttribute("title");
    }
    tip.textContent = said.dataset.said;
    follow(event);
    return true;
  };
  document.addEventListener("mousemove", (event) => {
    const svg = event.target.closest?.("svg[data-plot]");
    tip.classList.toggle("nb-on", svg ? point(svg, event) : say(event));
  });

  // Which runs this tab has seen at work: kept over a reload, so that an end in between is not missed.
  const seen = new Set(JSON.parse(window.sessionStorage.getItem("nibble-seen") ?? "[]"));
  const keepSeen = () => window.sessionStorage.setItem("nibble-seen", JSON.stringify([...seen].slice(-20)));
  const tell = (title, said, about) => {
    if (!("Notification" in window) || Notification.permission !== "granted") return;
    try {
      // Two tabs tell the same under one tag: it is shown once.
      const told = new Notification(title, { body: said, tag: `nibble-${about}`, icon: "/pwa_icon" });
      told.onclick = () => window.focus();
    } catch {
      // Android's browsers only let a service worker do it.
    }
  };
  const followRuns = () => {
    const strip = document.querySelector(".nb-strip");
    if (!strip?.dataset.title) return;
    const { title, run, ended, end, said } = strip.dataset;
    let shown = title;
    if (run && !seen.has(run)) {
      seen.add(run);
      keepSeen();
    }
    if (ended && ended !== run && seen.has(ended)) {
      if (!seen.has(`${ended} told`)) {
        seen.add(`${ended} told`);
        keepSeen();
        tell(end, said, ended);
      }
      if (!run) shown = `${end} · Nibble`;
    }
    if (run && seen.delete(`${run} told`)) keepSeen(); // it was resumed: its next end is news
    if (document.title !== shown) document.title = shown;
  };
  // Not by requestAnimationFrame, which rests while the tab is in the background: then it is needed most.
  new MutationObserver(followRuns).observe(document.body, { childList: true, subtree: true });
  followRuns();

  // The browser is asked for its permission once, and only on a press.
  const mayAsk = () => {
    const open = "Notification" in window && window.isSecureContext && Notification.permission === "default";
    document.body.classList.toggle("nb-can-ask", open && !window.localStorage.getItem("nibble-asked"));
  };
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.(".nb-bell")) return;
    window.localStorage.setItem("nibble-asked", "yes");
    Notification.requestPermission().then((answer) => {
      mayAsk();
      if (answer === "granted") tell("Nibble", "You will be notified here when the run ends.", "asked");
    });
  });
  mayAsk();

  // What all pages show alike comes from the server's feed (app/server/feed.py), part by part; of the rest it names the tabs
  // that have something new, and a page that has one of them in sight asks for it.
  const parts = new Map();
  const latest = new Map();
  const showPart = ([name, props]) => {
    parts.set(name, props);
    if (latest.has(name)) props.value = latest.get(name);
  };
  (window.nibbleParts ?? []).forEach(showPart);
  window.nibbleParts = { push: showPart };

  const TABS = '.nb-tabs button[role="tab"][aria-selected="true"]';
  const inSight = () => document.querySelector(TABS)?.textContent.trim().toLowerCase() ?? "";
  let asking = 0;
  const ask = (withinSeconds) => {
    asking ||= setTimeout(() => {
      asking = 0;
      if (!document.hidden) window.nibbleTick?.(inSight());
    }, Math.random() * withinSeconds * 1000);
  };
  let behind = false; // something may have been missed
  const take = ({ parts: fresh = {}, rings = [], within = 0, server }) => {
    for (const [name, html] of Object.entries(fresh)) {
      latest.set(name, html);
      const props = parts.get(name);
      if (props) props.value = html;
    }
    if ("strip" in fresh) queueMicrotask(followRuns); // drawn by then
    if (rings.includes(inSight())) ask(within);
    if (server && behind && !document.hidden) {
      behind = false;
      ask(within);
    }
  };

  // A browser has six connections for all its pages of one server, and the feed holds one. So a page in the background
  // lets go of it and asks now and then for its title, but for one that stays to tell at once when a run has ended.
  const FEED = "/nibble/live";
  const lost = document.createElement("div");
  lost.className = "nb-lost";
  lost.setAttribute("role", "status");
  (document.querySelector(".gradio-container") ?? document.body).append(lost);
  let source = null;
  let heard = 0;
  let tries = 0;
  let next = 0;
  let endWatch = null;
  const listen = (address) => {
    heard = Date.now();
    source = new EventSource(address);
    source.onmessage = (event) => {
      heard = Date.now();
      tries = 0;
      lost.textContent = "";
      take(JSON.parse(event.data));
    };
    source.onerror = () => {
      behind = true;
      tries += 1;
      if (tries > 1) lost.textContent = "Nibble is not responding. This page may be out of date; trying again…";
      rest();
      next = setTimeout(keepUp, Math.min(10, 2 ** tries / 2) * (500 + 500 * Math.random()));
    };
  };
  const rest = () => {
    clearTimeout(next);
    source?.close();
    source = null;
  };
  const glance = () => {
    fetch(`${FEED}?once`).then((answer) => answer.json()).then(take).catch(() => {});
    next = setTimeout(keepUp, 10_000);
    const told = "Notification" in window && Notification.permission === "granted";
    if (told) navigator.locks?.request("nibble-watch", { ifAvailable: true }, keepWatch);
  };
  const keepUp = () => {
    rest();
    if (!document.hidden) listen(FEED);
    else if (endWatch) listen(`${FEED}?strip`);
    else glance();
  };
  const keepWatch = (lock) => {
    if (!lock || !document.hidden) return null;
    return new Promise((end) => {
      endWatch = end;
      keepUp();
    });
  };
  const goToBack = () => {
    behind = true;
    keepUp();
  };
  document.addEventListener("visibilitychange", () => {
    clearTimeout(next);
    if (document.hidden) {
      next = setTimeout(goToBack, 5_000);
      return;
    }
    endWatch?.();
    endWatch = null;
    if (behind || !source) keepUp();
  });
  setInterval(() => {
    if (source && Date.now() - heard > 30_000) source.onerror(); // cut off without a word: the machine slept
  }, 5_000);
  keepUp();
}

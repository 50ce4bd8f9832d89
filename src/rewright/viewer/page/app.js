"use strict";
/* The page: which graph, pass, view and value are shown, kept in the address so that the browser's
   back button and bookmarks work, and what clicks and keys change of it. */
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = id => document.getElementById(id);
  const view = $("view"), tools = $("tools"), inspector = $("inspector");
  const TABS = [["overview", "Overview"], ["diff", "Diff"], ["ir", "IR"], ["graph", "Graph"], ["partition", "Partition"], ["precision", "Precision"]];
  const KEYS = [["j k  or  ↑ ↓ in the list", "next and previous pass"], ["1 – 6", "the views"], ["n p", "next and previous change"], ["u", "diff unified or side by side"], ["b", "IR and graph before or after the pass"], ["/", "search"], ["f", "graph: only what is near the selected value"], ["0 + −", "graph: fit, zoom"], ["← ↑ ↓ →", "graph: follow values"], ["Enter", "graph: open or close the group"], ["Esc", "nothing selected"], ["t", "light or dark"]];
  const state = {graph: 0, pass: 0, tab: "", side: "after", value: "", line: -1, rule: "", near: false};
  const store = {get: key => { try { return localStorage.getItem(`rewright.${key}`); } catch { return null; } }, set: (key, value) => { try { localStorage.setItem(`rewright.${key}`, value); } catch { /* a page from a file may have no storage */ } }};
  const models = new Map(), opened = new Map();
  let rows = null, drawing = null, changes = [], diffRows = [], shown = "", unified = store.get("unified") !== "no", folds = new Set();

  const graph = () => data.graphs[state.graph];
  const pass = () => graph().passes[state.pass] || null;
  const report = name => (graph().reports || {})[name] || null;
  const textOf = side => { const p = pass(); return p ? p[side] : graph().texts.length ? 0 : null; };

  function model(number) {
    const key = `${state.graph}:${number}`;
    if (!models.has(key)) models.set(key, IR.read(IR.lines(graph(), number)));
    return models.get(key);
  }
  const current = () => { const number = textOf(state.tab === "diff" ? "after" : state.side); return number === null ? null : model(number); };
  const selected = () => { const m = current(); return m && state.value ? IR.lookup(m, state.value, state.line) : null; };

  // -- the state, in the address

  function go(change, replace) {
    const before = JSON.stringify(state);
    Object.assign(state, change);
    if (JSON.stringify(state) === before) { render(); return; }
    const hash = "#" + new URLSearchParams(Object.entries(state).filter(([, v]) => v !== "" && v !== false && v !== -1)).toString();
    history[replace ? "replaceState" : "pushState"](null, "", hash);
    render();
  }
  function read() {
    const given = new URLSearchParams(location.hash.slice(1));
    for (const [key, start] of Object.entries({graph: 0, pass: -1, tab: "", side: "after", value: "", line: -1, rule: "", near: false})) {
      const text = given.get(key);
      state[key] = text === null ? start : typeof start === "number" ? +text : typeof start === "boolean" ? text === "true" : text;
    }
    state.graph = Math.min(Math.max(state.graph, 0), data.graphs.length - 1);
    const passes = graph().passes;
    if (!passes[state.pass]) state.pass = Math.max(0, passes.findIndex(p => p.changed));
    if (!tabs().some(([id]) => id === state.tab)) state.tab = tabs()[0][0];
  }
  const tabs = () => TABS.filter(([id]) => id === "ir" || id === "graph" || (id === "partition" || id === "precision" ? report(id) : graph().passes.length));

  // -- rendering

  function render() {
    renderTop(); renderPasses(); renderInspector(); renderView();
  }

  function renderTop() {
    const g = graph(), p = g.passes;
    $("graphs").hidden = data.graphs.length < 2; $("graphs").value = state.graph;
    $("facts").textContent = [data.title, p.length ? `@${g.graph} · ${p.length} passes · ${Inspector.time(g.seconds ?? p.reduce((s, e) => s + e.seconds, 0))}` : `@${g.graph}`].join("  ·  ");
    $("passes").hidden = document.querySelector('[data-side="left"]').hidden = !p.length;
    $("tabs").innerHTML = tabs().map(([id, name], at) => `<button role="tab" id="tab-${id}" aria-selected="${id === state.tab}" tabindex="${id === state.tab ? 0 : -1}" data-tab="${id}">${name}<kbd>${at + 1}</kbd></button>`).join("");
  }

  function renderPasses() {
    const only = $("changed").checked; let groups = "";
    const html = graph().passes.map((p, at) => {
      if (only && !p.changed && !p.failure && at !== state.pass) return "";
      const hits = Object.values(p.rules).reduce((s, n) => s + n, 0), d = p.nodes - p.nodes_before, inside = p.groups.join(" › ");
      const head = inside !== groups && inside ? `<div class="group">${IR.escape(inside)}</div>` : ""; groups = inside;
      return `${head}<div role="option" id="pass-${at}" class="pass${p.changed ? "" : " dim"}${p.failure ? " failed" : ""}" aria-selected="${at === state.pass}" data-pass="${at}"><span class="no">${p.number}</span><span class="name">${IR.escape(p.name)}</span><span class="delta ${d > 0 ? "more" : d < 0 ? "less" : ""}">${p.changed ? Inspector.delta(p) : ""}</span><span class="ms">${Inspector.time(p.seconds)}</span>${hits ? `<span class="hits">${hits} rewrite${hits === 1 ? "" : "s"}</span>` : ""}</div>`;
    }).join("");
    $("passlist").innerHTML = html;
    $("passlist").setAttribute("aria-activedescendant", `pass-${state.pass}`);
    const chosen = $(`pass-${state.pass}`);
    if (chosen) chosen.scrollIntoView({block: "nearest"});
  }

  function renderInspector() {
    const value = selected(), p = pass();
    if (value) inspector.innerHTML = Inspector.valueHtml(value, historyOf(value.name), makerOf(value.name));
    else if (state.rule) inspector.innerHTML = Inspector.ruleHtml(state.rule, graph().passes);
    else if (state.value) inspector.innerHTML = `<h2 class="t-value">${IR.escape(state.value)}</h2><p class="soft">is not in the graph ${state.side} this pass</p><dl><dt>in passes</dt><dd>${historyOf(state.value)}</dd></dl>`;
    else if (p) inspector.innerHTML = Inspector.passHtml(p);
    else inspector.innerHTML = '<p class="soft">Click a value to see its definition, its uses, its type and where it comes from.</p>';
  }

  /** The passes after which there is a value of this name, as ranges. */
  function historyOf(name) {
    const key = new RegExp(`(?:^|[^\\w@%.])${name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}(?![\\w.])`);
    const has = new Map(), g = graph(), lines = g.code.map(code => key.test(code));
    const inText = number => { if (number === null) return null; if (!has.has(number)) { const runs = g.texts[number]; let found = false; for (let i = 0; i < runs.length && !found; i += 2) for (let k = runs[i]; k < runs[i] + runs[i + 1] && !found; k++) found = lines[k]; has.set(number, found); } return has.get(number); };
    const out = [];
    g.passes.forEach((p, at) => { if (!inText(p.after)) return; const last = out[out.length - 1]; if (last && last[1] === at - 1) last[1] = at; else out.push([at, at]); });
    const button = at => `<button class="link" data-pass="${at}">${g.passes[at].number} ${IR.escape(g.passes[at].name)}</button>`;
    return out.map(([a, b]) => a === b ? button(a) : `${button(a)} – ${button(b)}`).join(", ");
  }
  function makerOf(name) {
    const passes = graph().passes;
    for (let index = state.pass; index >= 0; index--) {
      const done = (passes[index] ? passes[index].rewrites : []).find(r => r.by.includes(name));
      if (done) return {index, number: passes[index].number, name: passes[index].name, replaced: done.replaced};
    }
    return null;
  }

  function renderView() {
    const what = JSON.stringify([state.graph, state.tab, state.tab === "overview" || state.tab === "partition" || state.tab === "precision" ? "" : [state.pass, state.tab === "diff" ? unified : state.side, state.near && state.tab === "graph" ? [state.value, state.line] : 0]]);
    if (what === shown) { follow(); return; }
    shown = what;
    if (rows) rows.close(); if (drawing) drawing.close();
    rows = drawing = null; changes = []; view.innerHTML = ""; tools.innerHTML = "";
    view.className = state.tab; view.setAttribute("aria-labelledby", `tab-${state.tab}`);
    ({overview: () => { view.innerHTML = Panels.overview(graph()); }, diff: showDiff, ir: showText, graph: showGraph, partition: () => { view.innerHTML = Panels.partition(report("partition")); }, precision: () => { view.innerHTML = Panels.precision(report("precision")); }})[state.tab]();
    follow();
  }

  /** Whether a row of the diff shows a node that the chosen rule made. */
  const byRule = row => Boolean(state.rule) && row.b !== undefined && row.kind !== "del" && IR.place(model(pass().after).rows[row.b].place).rules.includes(state.rule);
  const widest = lines => Math.min(400, lines.reduce((most, line) => Math.max(most, line.code.length + (line.place ? line.place.split("/").pop().length + 4 : 0)), 0));
  const missing = () => { view.innerHTML = '<p class="pad soft">The dump holds no text of this pass. Dump with <code>changed:DIR</code> or <code>all:DIR</code>.</p>'; };
  const sides = () => pass() ? `<div class="switch" role="group" aria-label="before or after the pass"><button data-side="before" aria-pressed="${state.side === "before"}">before</button><button data-side="after" aria-pressed="${state.side === "after"}">after</button></div>` : "";
  const picked = code => state.value && code.includes(state.value) && new RegExp(`${state.value.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}(?![\\w.])`).test(code);

  function showText() {
    const number = textOf(state.side);
    tools.innerHTML = sides();
    if (number === null) { missing(); return; }
    const m = model(number);
    rows = new Rows(view, m.rows.length, (i, here) => `<div class="row${here ? " here" : ""}${picked(m.rows[i].code) ? " uses" : ""}" data-at="${i}">${Lines.number(i)}<code>${IR.html(m.rows[i].code)}</code>${Lines.place(m.rows[i].place)}</div>`, widest(m.rows));
    rows.paint(true);
  }

  function showDiff() {
    const p = pass();
    if (p.before === null || p.after === null) { missing(); return; }
    tools.innerHTML = `<button id="previous" title="previous change (p)">↑</button><button id="next" title="next change (n)">↓</button><span id="changecount" class="soft"></span><div class="switch" role="group" aria-label="how the diff is shown"><button data-unified="yes" aria-pressed="${unified}">unified</button><button data-unified="no" aria-pressed="${!unified}">side by side</button></div>`;
    const left = model(p.before).rows, right = model(p.after).rows;
    const side = !unified;
    const build = () => {
      const made = Lines.rows(Lines.plan(left, right, folds), side);
      diffRows = made.rows; changes = made.changes;
    };
    build();
    $("changecount").textContent = changes.length ? `${changes.length} change${changes.length === 1 ? "" : "s"}` : "";
    if (!changes.length) { view.innerHTML = '<p class="pad soft">This pass changed nothing.</p>'; return; }
    const words = item => {
      const [a, b] = item.kind === "del" ? [item.a, item.other] : item.kind === "add" ? [item.other, item.b] : [item.a, item.b];
      return a === undefined || b === undefined ? [[], []] : Diff.words(left[a].code, right[b].code);
    };
    const cell = (line, ranges, kind, at, which) => `<span class="cell ${line ? kind : "none"}" ${line ? `data-at="${at}" data-text="${which}"` : ""}>${line ? `${Lines.number(at)}<code>${Lines.marked(line.code, ranges)}</code>` : ""}</span>`;
    const html = (i, here) => {
      const item = diffRows[i], cls = `row${here ? " here" : ""}${item.kind !== "fold" && byRule(item) ? " uses" : ""}`;
      if (item.kind === "fold") return `<button class="row fold" data-fold="${item.key}">⋯ ${item.count} lines that are the same</button>`;
      if (side) {
        const same = item.kind === "same", [wa, wb] = same ? [[], []] : words(item);
        return `<div class="${cls} pair">${cell(left[item.a], wa, same ? "" : "del", item.a, "before")}${cell(right[item.b], wb, same ? "" : "add", item.b, "after")}</div>`;
      }
      const line = item.kind === "del" ? left[item.a] : right[item.b];
      const ranges = item.kind === "same" ? [] : words(item)[item.kind === "del" ? 0 : 1];
      return `<div class="${cls} ${item.kind}" data-at="${item.kind === "del" ? item.a : item.b}" data-text="${item.kind === "del" ? "before" : "after"}">${Lines.number(item.a)}${Lines.number(item.b)}<span class="sign">${{del: "−", add: "+"}[item.kind] || " "}</span><code>${Lines.marked(line.code, ranges)}</code>${Lines.place(line.place)}</div>`;
    };
    const show = () => {
      const top = rows ? rows.box.scrollTop : 0;
      if (rows) rows.close();
      rows = new Rows(view, diffRows.length, html, side ? 0 : widest([...left, ...right]));
      rows.box.classList.toggle("side", side);
      rows.box.addEventListener("wheel", event => { if (side && (event.deltaX || event.shiftKey)) { const by = (parseFloat(rows.box.style.getPropertyValue("--shift")) || 0) + (event.deltaX || event.deltaY); rows.box.style.setProperty("--shift", `${Math.max(0, by)}px`); event.preventDefault(); } }, {passive: false});
      rows.box.scrollTop = top; rows.paint(true);
    };
    rows && rows.close(); rows = null; show();
    view.onfold = key => { folds.add(key); build(); show(); };
    if (!state.value) jump(0, true);
  }

  function showGraph() {
    const number = textOf(state.side);
    tools.innerHTML = `${sides()}<button id="nearby" aria-pressed="${state.near}" title="only what is near the selected value (f)">near</button><button id="openall" title="open all groups" aria-label="open all groups">⊞</button><button id="closeall" title="close all groups" aria-label="close all groups">⊟</button><button id="fit" title="fit all into the window" aria-label="fit all into the window">⤢</button>`;
    if (number === null) { missing(); return; }
    const m = model(number);
    let near = null;
    if (state.near) {
      const value = selected();
      near = value && nearby(m, value, 3);
    }
    const made = Grouping.tree(m, near);
    const key = `${state.graph}`;
    if (!near) { // what was opened stays open from pass to pass
      const known = opened.get(key);
      if (known) for (const group of Grouping.groups(made.root)) if (group.parent && known.has(group.key)) group.open = known.get(group.key);
    }
    view.innerHTML = '<div class="canvas"></div><div class="legend"></div>';
    drawing = new Drawing(view.firstChild, {onSelect: leaf => choose(leaf, m), colors: palette, onPaint: () => {
      if (near) return;
      const known = new Map(); for (const group of Grouping.groups(made.root)) known.set(group.key, group.open);
      opened.set(key, known);
    }});
    drawing.resize();
    if (made.root.items.length) drawing.show(made); else view.innerHTML = '<p class="pad soft">There is nothing to draw.</p>';
    const backends = [...new Set([...Grouping.groups(made.root)].map(g => g.backend).filter(Boolean))];
    const families = [...new Set([...made.leaves.values()].filter(l => l.node).map(l => IR.family(l.node.op)))].sort();
    const color = palette();
    view.querySelector(".legend").innerHTML = [...backends.map(b => `<span><i style="border:2px solid ${color.backend(b)}"></i>${IR.escape(b)}</span>`), ...families.map(f => `<span><i style="background:${color.family(f)}"></i>${f}</span>`), `<span class="made" hidden><i style="border:2px solid ${color.made}"></i>made by <b></b></span>`].join("");
    window.rewright = {drawing, made, model: m};   // for the console, and for tests
  }

  function nearby(m, value, hops) {
    const near = new Set(); let edge = value.node ? [value.node] : value.uses.map(u => u.node).filter(Boolean);
    for (let hop = 0; hop <= hops && near.size < 120; hop++) {
      const next = [];
      for (const node of edge) {
        if (near.has(node)) continue;
        near.add(node);
        for (const o of node.operands) if (o.node && !o.node.prepare) next.push(o.node);
        for (const r of node.results) for (const u of r.uses.slice(0, 20)) if (u.node && !u.node.prepare) next.push(u.node);
      }
      edge = next;
    }
    return near;
  }

  function choose(leaf, m) {
    if (!leaf) { go({value: "", rule: ""}); return; }
    const value = leaf.value || leaf.node.results[0];
    if (value) go({value: value.name, line: leaf.node ? leaf.node.line : value.line});
  }

  const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const tones = new Map();
  function palette() {
    const theme = document.documentElement.dataset.theme;
    if (!tones.has(theme)) {
      const plain = Object.fromEntries(["ink", "soft", "line", "card", "group", "edge", "accent", "input", "output", "made"].map(n => [n, css(`--${n}`)]));
      const backends = new Map();
      const number = b => { if (!backends.has(b)) backends.set(b, b === "torch" ? "torch" : `backend-${[...backends.keys()].filter(k => k !== "torch").length % 4}`); return backends.get(b); };
      tones.set(theme, {...plain, backend: b => css(`--${number(b)}`), family: f => css(`--f-${f}`)});
    }
    return tones.get(theme);
  }

  /** Brings what is selected into sight, and marks it. */
  function follow() {
    if (drawing && drawing.made) {
      const made = drawing.made, marks = new Set();
      const p = pass(), rewrites = p ? p.rewrites.filter(r => !state.rule || r.rule === state.rule) : [];
      const names = new Set(rewrites.flatMap(r => r.by));
      for (const [node, leaf] of made.leaves) if (leaf.node && state.side === "after" && (node.names.some(n => names.has(n)) || (state.rule && node.place.rules.includes(state.rule)))) marks.add(leaf);
      drawing.mark(marks);
      const key = view.querySelector(".legend .made");
      if (key) { key.hidden = !marks.size; key.querySelector("b").textContent = state.rule || (p ? p.name : ""); }
      const value = selected(), leaf = value && (made.leaves.get(value.node) || made.leaves.get(value));
      if (leaf !== drawing.selected) drawing.select(leaf || null, Boolean(leaf));
      return;
    }
    if (!rows) return;
    const value = selected();
    if (!value) {
      const at = state.rule && state.tab === "diff" ? diffRows.findIndex(r => r.kind !== "same" && byRule(r)) : -1;
      if (at >= 0) rows.go(at, true); else rows.paint(true);
      return;
    }
    const line = state.line >= 0 && value.uses.some(u => u.line === state.line) ? state.line : value.line;
    if (state.tab === "ir") rows.go(line, true);
    else if (state.tab === "diff") { const at = diffRows.findIndex(r => r.b === line && r.kind !== "del"); if (at >= 0) rows.go(at, true); else rows.paint(true); }
  }

  let change = -1;
  function jump(by, quiet) {
    if (!changes.length || !rows) return;
    change = quiet ? 0 : (change + by + changes.length) % changes.length;
    rows.go(changes[change]);
    if (!quiet) $("changecount").textContent = `${change + 1} of ${changes.length}`;
  }

  // -- clicks

  document.addEventListener("click", event => {
    const hit = event.target.closest("[data-tab],[data-pass],[data-rule],[data-value],[data-goto],[data-name],[data-fold],[data-side],[data-unified],[data-segment]");
    if (!hit || hit.closest("#found")) return;
    const d = hit.dataset;
    if (d.tab) go({tab: d.tab});
    else if (d.unified) { unified = d.unified === "yes"; store.set("unified", unified ? "yes" : "no"); render(); }
    else if (d.side) { if (hit.tagName === "BUTTON") go({side: d.side}); }
    else if (d.fold) view.onfold(+d.fold);
    else if (d.segment) { go({tab: "graph", value: "", side: "after", pass: graph().passes.length ? graph().passes.length - 1 : 0}); showSegment(d.segment); }
    else if (d.name) { const row = hit.closest("[data-at]"); go({value: d.name, line: row ? +row.dataset.at : -1, rule: ""}); }
    else if (d.value) goValue(d);
    else if (d.goto) go({tab: "ir", line: +d.goto});
    else if (d.rule) go({rule: d.rule, value: "", ...(d.pass ? {pass: +d.pass, tab: "diff"} : {})});
    else if (d.pass) { folds = new Set(); change = -1; go({pass: +d.pass, rule: "", value: hit.closest("#inspector") ? state.value : "", tab: state.tab === "overview" || state.tab === "partition" || state.tab === "precision" ? "diff" : state.tab}); }
  });

  function goValue(d) {
    const next = {value: d.value, line: d.line === undefined ? -1 : +d.line, side: d.pass ? "after" : state.side};
    if (d.pass) next.pass = +d.pass;
    if (state.tab === "partition") { next.tab = "graph"; next.side = "after"; if (graph().passes.length) next.pass = graph().passes.length - 1; }
    else if (state.tab === "overview") next.tab = "ir";
    go(next);
  }

  function showSegment(name) {
    if (!drawing || !drawing.made) return;
    const group = [...Grouping.groups(drawing.made.root)].find(g => g.kind === "region" && g.name === name);
    if (!group) return;
    for (let at = group; at; at = at.parent) at.open = true;
    drawing.arrange(); drawing.fit();
  }

  tools.addEventListener("click", event => {
    const {id} = event.target;
    if (id === "next" || id === "previous") jump(id === "next" ? 1 : -1);
    else if (id === "fit") drawing && drawing.fitWhole();
    else if (id === "openall" || id === "closeall") drawing && drawing.setAll(id === "openall");
    else if (id === "nearby" && (state.near || selected())) go({near: !state.near});
  });
  $("changed").addEventListener("change", () => { store.set("changed", $("changed").checked ? "yes" : "no"); renderPasses(); });
  $("graphs").addEventListener("change", () => { folds = new Set(); go({graph: +$("graphs").value, pass: 0, value: "", rule: "", line: -1}); read(); shown = ""; render(); });
  $("help").addEventListener("click", () => $("keys").showModal());

  // -- light and dark

  function theme(name) { document.documentElement.dataset.theme = name; if (drawing) { drawing.draw(); } }
  const system = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => store.get("theme") || (system.matches ? "dark" : "light");
  system.addEventListener("change", () => theme(chosen()));
  $("theme").addEventListener("click", () => { store.set("theme", chosen() === "dark" ? "light" : "dark"); theme(chosen()); });

  // -- search

  const search = $("search"), found = $("found"); let hits = [], at = 0;
  function look() {
    const text = search.value.trim().toLowerCase(), m = current(), g = graph();
    hits = []; at = 0;
    if (text && m) {
      const score = (name, kind, html, act) => { const low = name.toLowerCase(), where = low.indexOf(text); if (where >= 0) hits.push({rank: (low === text || low.slice(1) === text ? 0 : where <= 1 ? 1 : 2), name, kind, html, act}); };
      for (const value of m.values.values()) {
        const node = value.node, act = () => go({value: value.name, line: value.line, tab: state.tab === "overview" || state.tab === "partition" || state.tab === "precision" ? "ir" : state.tab});
        score(value.name, "value", `<span class="t-value">${IR.escape(value.name)}</span> <span class="soft">${IR.escape(node ? IR.short(node.op) : value.kind)}</span>`, act);
        if (node && value === node.results[0] && node.op.toLowerCase().includes(text)) score(node.op, "op", `<span class="t-op">${IR.escape(node.op)}</span> <span class="t-value">${IR.escape(value.name)}</span>`, act);
        else if (node && value === node.results[0] && node.place.module.toLowerCase().includes(text)) score(node.place.module, "module", `${IR.escape(node.place.module)} <span class="t-value">${IR.escape(value.name)}</span>`, act);
      }
      const rules = new Set(g.passes.flatMap(p => Object.keys(p.rules)));
      for (const rule of rules) score(rule, "rule", `${IR.escape(rule)} <span class="soft">rule</span>`, () => go({rule, value: ""}));
      g.passes.forEach((p, index) => score(p.name, "pass", `${p.number} ${IR.escape(p.name)} <span class="soft">pass</span>`, () => go({pass: index, value: ""})));
      hits.sort((a, b) => a.rank - b.rank || a.name.length - b.name.length);
    }
    list();
  }
  function list() {
    found.hidden = !search.value.trim(); search.setAttribute("aria-expanded", String(!found.hidden));
    const from = Math.max(0, Math.min(at - 10, hits.length - 20));
    found.innerHTML = hits.slice(from, from + 20).map((h, k) => `<div role="option" aria-selected="${from + k === at}" data-hit="${from + k}">${h.html}</div>`).join("") + `<p class="soft">${hits.length ? `${at + 1} of ${hits.length}` : "nothing found"}</p>`;
  }
  search.addEventListener("input", look);
  search.addEventListener("focus", () => { if (search.value) look(); });
  search.addEventListener("blur", () => setTimeout(() => { found.hidden = true; }, 150));
  search.addEventListener("keydown", event => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") { at = hits.length ? (at + (event.key === "ArrowDown" ? 1 : hits.length - 1)) % hits.length : 0; list(); event.preventDefault(); }
    else if (event.key === "Enter" && hits[at]) { hits[at].act(); found.hidden = true; search.blur(); view.focus(); }
    else if (event.key === "Escape") { search.value = ""; found.hidden = true; search.blur(); }
    event.stopPropagation();
  });
  found.addEventListener("mousedown", event => { const hit = event.target.closest("[data-hit]"); if (hit) { hits[+hit.dataset.hit].act(); found.hidden = true; } });

  // -- keys

  function step(by) {
    const passes = graph().passes, only = $("changed").checked;
    let next = state.pass;
    do next += by; while (passes[next] && only && !passes[next].changed && !passes[next].failure);
    if (passes[next]) { folds = new Set(); change = -1; go({pass: next, rule: "", tab: state.tab === "overview" ? "diff" : state.tab}, true); }
  }
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input,select,dialog")) return;
    const inList = event.target.id === "passlist", key = event.key;
    const tab = event.target.getAttribute("role") === "tab" && {ArrowRight: 1, ArrowLeft: -1}[key];
    if (tab) { const all = tabs().map(t => t[0]); go({tab: all[(all.indexOf(state.tab) + tab + all.length) % all.length]}); $(`tab-${state.tab}`).focus(); }
    else if (key === "j" || (inList && key === "ArrowDown")) step(1);
    else if (key === "k" || (inList && key === "ArrowUp")) step(-1);
    else if (/^[1-6]$/.test(key) && tabs()[key - 1]) go({tab: tabs()[key - 1][0]});
    else if (key === "n") jump(1);
    else if (key === "p") jump(-1);
    else if (key === "u" && state.tab === "diff") { unified = !unified; store.set("unified", unified ? "yes" : "no"); render(); }
    else if (key === "b" && pass()) go({side: state.side === "after" ? "before" : "after"});
    else if (key === "f" && state.tab === "graph" && (state.near || selected())) go({near: !state.near});
    else if (key === "t") { $("theme").click(); }
    else if (key === "/") search.focus();
    else if (key === "?") $("keys").showModal();
    else if (key === "Escape") go({value: "", rule: "", near: false});
    else if (drawing && !inList && drawing.made && /^(\+|-|=|0|Arrow.*|Enter)$/.test(key) && event.target.tagName !== "BUTTON") drawing.key(key);
    else return;
    event.preventDefault();
  });

  // -- the borders between the columns

  for (const bar of document.querySelectorAll(".split")) bar.addEventListener("pointerdown", down => {
    bar.setPointerCapture(down.pointerId);
    const name = `--${bar.dataset.side}`, start = parseFloat(css(name)), way = bar.dataset.side === "left" ? 1 : -1;
    bar.onpointermove = move => document.documentElement.style.setProperty(name, `${Math.max(140, Math.min(700, start + way * (move.clientX - down.clientX)))}px`);
    bar.onpointerup = () => { bar.onpointermove = bar.onpointerup = null; };
  });

  $("keys").querySelector("dl").innerHTML = KEYS.map(([k, what]) => `<dt>${k}</dt><dd>${what}</dd>`).join("");
  $("graphs").innerHTML = data.graphs.map((g, at) => `<option value="${at}">${IR.escape(`${g.folder} @${g.graph}`)}</option>`).join("");
  $("changed").checked = store.get("changed") === "yes";
  theme(chosen());
  window.addEventListener("popstate", () => { read(); render(); });
  window.addEventListener("hashchange", () => { read(); render(); });
  read(); render();
})();

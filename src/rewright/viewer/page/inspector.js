"use strict";
/* What is said of one value, one pass or one rule, beside the view. All that can be gone to is a
   button with data: data-value (a name), data-line, data-pass, data-rule. */
const Inspector = (() => {
  const esc = IR.escape;
  const time = s => s === null || s === undefined ? "" : s >= 1 ? `${s.toFixed(2)} s` : s >= 1e-3 ? `${(s * 1e3).toFixed(s < .01 ? 1 : 0)} ms` : `${Math.round(s * 1e6)} µs`;
  const delta = pass => { const d = pass.nodes - pass.nodes_before; return d > 0 ? `+${d}` : d < 0 ? `−${-d}` : "±0"; };
  const link = (name, line) => `<button class="link t-${name[0] === "@" ? "constant" : "value"}" data-value="${esc(name)}" data-line="${line}">${esc(name)}</button>`;
  const row = (term, html) => html ? `<dt>${term}</dt><dd>${html}</dd>` : "";
  const MOST = 60;

  function valueHtml(value, history, pass) {
    const node = value.node, made = node ? node.place : IR.place("");
    const uses = value.uses, types = new Set();
    const operands = node ? node.operands.filter(o => !types.has(o.id) && types.add(o.id)) : [];
    const kinds = {input: "input", parameter: "parameter", buffer: "buffer", prepared: "prepared before any call", result: "result of a node"};
    return `<h2 class="t-${value.name[0] === "@" ? "constant" : "value"}">${esc(value.name)}</h2>
      <p class="soft">${kinds[value.kind] || value.kind || "not defined in this text"}${value.scope && value.scope.owner ? ` in <b>${esc(value.scope.name)}</b>` : ""}</p>
      <dl>${row("type", value.type ? `<code class="type">${IR.html(value.type)}</code>` : "")}
      ${row("defined by", node ? `<button class="link t-op" data-goto="${value.line}">${esc(node.op)}</button> <span class="soft">line ${value.line + 1}</span>` : value.line >= 0 ? `<button class="link" data-goto="${value.line}">line ${value.line + 1}</button>` : "")}
      ${row("source", made.file ? `<code class="where" title="${esc(made.file)}">${esc(made.file)}:${made.line}</code>` : "")}
      ${row("module", made.module ? `<code>${esc(made.module)}</code>` : "")}
      ${row("made by rules", made.rules.map(rule => `<button class="chip" data-rule="${esc(rule)}">${esc(rule)}</button>`).join(" "))}
      ${row("made in", pass ? `<button class="link" data-pass="${pass.index}">pass ${pass.number} ${esc(pass.name)}</button> <span class="soft">for ${esc(pass.replaced)}</span>` : "")}
      ${row("in passes", history)}</dl>
      ${operands.length ? `<h3>Operands <span class="soft">${operands.length}</span></h3><ul class="values">${operands.slice(0, MOST).map(o => `<li>${link(o.name, node.line)} <code class="soft">${esc(o.type)}</code></li>`).join("")}${more(operands)}</ul>` : ""}
      <h3>Uses <span class="soft">${uses.length}</span></h3>
      <ul class="values">${uses.slice(0, MOST).map(u => `<li><button class="link" data-goto="${u.line}" ${u.node && u.node.names[0] ? `data-value="${esc(u.node.names[0])}" data-line="${u.line}"` : ""}>${u.node ? `<span class="t-op">${esc(IR.short(u.node.op))}</span> <span class="t-value">${esc(u.node.names[0] || "")}</span>` : "return"}</button> <span class="soft">line ${u.line + 1}</span></li>`).join("") || '<li class="soft">nothing uses it</li>'}${more(uses)}</ul>`;
  }
  const more = list => list.length > MOST ? `<li class="soft">and ${list.length - MOST} more</li>` : "";

  function passHtml(pass) {
    const rules = Object.entries(pass.rules).sort((a, b) => b[1] - a[1]), most = Math.max(1, ...rules.map(r => r[1]));
    return `<h2>${pass.number} ${esc(pass.name)}</h2>
      <p class="soft">${pass.groups.length ? `in ${esc(pass.groups.join(" › "))}` : pass.changed ? "changed the graph" : "changed nothing"}</p>
      ${pass.failure ? `<pre class="failure">${esc(pass.failure)}</pre>` : ""}
      <dl>${row("written", `<code>${esc(pass.step)}</code>`)}${row("time", time(pass.seconds))}${row("nodes", `${pass.nodes_before} → ${pass.nodes} <span class="soft">(${delta(pass)})</span>`)}</dl>
      ${rules.length ? `<h3>Rules that fired</h3><ul class="bars">${rules.map(([name, hits]) => `<li><button data-rule="${esc(name)}"><span class="bar" style="width:${hits / most * 100}%"></span><span>${esc(name)}</span><b>${hits}</b></button></li>`).join("")}</ul>` : ""}`;
  }

  function ruleHtml(rule, passes) {
    const all = passes.map((pass, index) => ({pass, index, done: pass.rewrites.filter(r => r.rule === rule), hits: pass.rules[rule] || 0})).filter(e => e.done.length || e.hits);
    const list = all.map(({pass, index, done, hits}) => `<h3><button class="link" data-pass="${index}">pass ${pass.number} ${esc(pass.name)}</button> <span class="soft">${done.length || hits} time${(done.length || hits) === 1 ? "" : "s"}</span></h3>
      <ul class="values">${done.slice(0, 200).map(r => `<li title="${esc(r.where)}"><span class="t-op">${esc(IR.short(r.replaced))}</span> → ${r.by.map(n => `<button class="link t-value" data-value="${esc(n)}" data-pass="${index}" data-line="-1">${esc(n)}</button>`).join(", ") || '<span class="soft">removed</span>'}</li>`).join("")}</ul>
      ${!done.length && hits ? '<p class="soft">The pass says how often it fired, and not on what.</p>' : ""}`).join("");
    return `<h2>${esc(rule)}</h2><p class="soft">a rule; the nodes that it made are outlined in the graph</p>${list || '<p class="soft">It did not fire in this dump.</p>'}`;
  }

  return {valueHtml, passHtml, ruleHtml, time, delta};
})();

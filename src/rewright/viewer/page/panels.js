"use strict";
/* The views that are tables: the whole run, the partition, the precision. */
const Panels = (() => {
  const esc = IR.escape, {time, delta} = Inspector;
  const bytes = n => { if (n === null || n === undefined) return ""; let at = 0; while (n >= 1024 && at < 4) { n /= 1024; at++; } return `${at ? n.toFixed(1) : n} ${["B", "KiB", "MiB", "GiB", "TiB"][at]}`; };
  const count = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;

  function overview(graph) {
    const passes = graph.passes, total = passes.reduce((sum, p) => sum + p.seconds, 0) || 1;
    const rules = {}; for (const p of passes) for (const [name, hits] of Object.entries(p.rules)) rules[name] = (rules[name] || 0) + hits;
    const fired = Object.entries(rules).sort((a, b) => b[1] - a[1]);
    const slowest = Math.max(...passes.map(p => p.seconds));
    const facts = [["passes", passes.length], ["that changed something", passes.filter(p => p.changed).length], ["nodes", `${passes[0].nodes_before} → ${passes[passes.length - 1].nodes}`], ["rewrites by rules", fired.reduce((s, r) => s + r[1], 0)], ["time in passes", time(total)], ["numbers may move", (graph.exactness || "").toLowerCase().replace("_", "-")]];
    return `<div class="pad"><dl class="facts">${facts.map(([k, v]) => `<div><dt>${k}</dt><dd>${esc(String(v))}</dd></div>`).join("")}</dl>
      <h3>Nodes after each pass</h3>${curve(passes)}
      <h3>Passes</h3><table><tr><th class="n">#</th><th>pass</th><th class="n">nodes</th><th class="n">time</th><th class="wide"></th><th>rules</th></tr>
      ${passes.map((p, at) => `<tr class="${p.changed ? "" : "dim"}"><td class="n">${p.number}</td><td><button class="link" data-pass="${at}">${esc(p.name)}</button></td><td class="n">${p.changed ? `${p.nodes} <span class="soft">${delta(p)}</span>` : ""}</td><td class="n">${time(p.seconds)}</td><td><i class="time" style="width:${p.seconds / slowest * 100}%"></i></td><td>${Object.entries(p.rules).sort((a, b) => b[1] - a[1]).slice(0, 4).map(([r, n]) => `<button class="chip" data-rule="${esc(r)}" data-pass="${at}">${esc(r)} <b>${n}</b></button>`).join(" ")}${Object.keys(p.rules).length > 4 ? ` <span class="soft">+${Object.keys(p.rules).length - 4}</span>` : ""}</td></tr>`).join("")}</table></div>`;
  }

  function curve(passes) {
    const w = 1000, h = 110, values = [passes[0].nodes_before, ...passes.map(p => p.nodes)];
    const low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
    const x = at => at / (values.length - 1 || 1) * w, y = v => h - 12 - (v - low) / span * (h - 26);
    let line = `M0 ${y(values[0])}`; for (let at = 1; at < values.length; at++) line += `H${x(at - .5)}V${y(values[at])}H${x(at)}`;
    const dots = passes.map((p, at) => p.changed ? `<circle data-pass="${at}" cx="${x(at + 1)}" cy="${y(p.nodes)}" r="4.5"><title>${p.number} ${esc(p.name)}: ${p.nodes} nodes (${delta(p)})</title></circle>` : "").join("");
    return `<svg class="curve" viewBox="-8 0 ${w + 16} ${h}" role="img" aria-label="from ${values[0]} to ${values[values.length - 1]} nodes"><path class="area" d="${line}V${h}H0Z"/><path d="${line}"/>${dots}</svg><p class="soft ends"><span>${values[0]} at first</span><span>${values[values.length - 1]} at last</span></p>`;
  }

  function partition(report) {
    const held = report.segments.reduce((sum, s) => sum + s.nodes, 0), left = report.left;
    const groups = new Map();
    for (const n of left) { const key = JSON.stringify([n.op, n.reason, n.advice]); (groups.get(key) || groups.set(key, []).get(key)).push(n); }
    const ports = list => list.length ? `<ul class="ports">${list.slice(0, 8).map(p => `<li><button class="link" data-value="%${esc(p.name)}" data-line="-1"><code>${esc(p.name)}</code></button><code>: ${IR.html(p.type)}</code> <span class="soft">${bytes(p.bytes ?? p.most)}</span></li>`).join("")}${list.length > 8 ? `<li class="soft">and ${list.length - 8} more</li>` : ""}</ul>` : '<span class="soft">nothing</span>';
    const backends = [...new Set(report.segments.map(s => s.backend))];
    return `<div class="pad"><div class="share">${report.segments.map(s => `<i style="flex:${s.nodes};background:var(--backend-${backends.indexOf(s.backend) % 4})" title="${esc(s.name)}: ${s.nodes} nodes"></i>`).join("")}${left.length ? `<i class="torch" style="flex:${left.length}" title="Torch: ${left.length} nodes"></i>` : ""}</div>
      <p class="soft">${backends.map((b, at) => `<span class="key" style="background:var(--backend-${at % 4})"></span>${esc(b)}: `).join("")}${held} of ${count(report.nodes, "node")} in ${count(report.segments.length, "segment")} <span class="key torch"></span>${count(left.length, "node")} in Torch</p>
      ${report.segments.length ? `<h3>Segments</h3><table><tr><th>segment</th><th class="n">nodes</th><th class="n">constants</th><th>goes in</th><th>comes out</th></tr>${report.segments.map(s => `<tr><td><button class="link" data-segment="${esc(s.name)}">${esc(s.name)}</button><br><span class="soft">${esc(s.backend)}</span></td><td class="n">${s.nodes}<br><span class="soft">${s.computing} compute</span></td><td class="n">${s.constants}<br><span class="soft">${bytes(s.constant_bytes)}</span></td><td>${ports(s.inputs)}</td><td>${ports(s.outputs)}</td></tr>`).join("")}</table>` : ""}
      ${left.length ? `<h3>What stays in Torch, and why</h3><table><tr><th>node</th><th>where</th><th>why, and what to change</th></tr>${[...groups].map(([key, nodes]) => { const [op, reason, advice] = JSON.parse(key); return `<tr><td><code class="t-op">${esc(op)}</code>${nodes.length > 1 ? ` × ${nodes.length}` : ""}<br>${nodes.slice(0, 6).map(n => n.name ? `<button class="link t-value" data-value="%${esc(n.name)}" data-line="-1">%${esc(n.name)}</button>` : "").join(" ")}${nodes.length > 6 ? ` <span class="soft">and ${nodes.length - 6} more</span>` : ""}</td><td>${[...new Set(nodes.map(n => n.where || "not known"))].slice(0, 3).map(w => `<code class="where">${esc(w)}</code>`).join("<br>")}</td><td>${esc(reason)}${advice ? `<br><span class="advice">→ ${esc(advice)}</span>` : ""}</td></tr>`; }).join("")}</table>` : '<p>Nothing stays in Torch.</p>'}</div>`;
  }

  function precision(report) {
    const rows = new Map();
    for (const n of report.nodes) { const key = JSON.stringify([n.dtype, n.op, n.reason]); rows.set(key, (rows.get(key) || 0) + 1); }
    const totals = report.totals || {};
    return `<div class="pad"><dl class="facts"><div><dt>asked for</dt><dd>${esc(report.precision)}</dd></div>${Object.entries(totals).map(([k, v]) => `<div><dt>${esc(k)}</dt><dd>${v}</dd></div>`).join("")}<div><dt>weights cast beforehand</dt><dd>${report.weights}</dd></div></dl>
      <table><tr><th>dtype</th><th class="n">nodes</th><th>op</th><th>why</th></tr>${[...rows].sort((a, b) => b[1] - a[1]).map(([key, n]) => { const [dtype, op, reason] = JSON.parse(key); return `<tr><td><code>${esc(dtype)}</code></td><td class="n">${n}</td><td><code class="t-op">${esc(op)}</code></td><td>${esc(reason || "")}</td></tr>`; }).join("")}</table></div>`;
  }

  return {overview, partition, precision};
})();

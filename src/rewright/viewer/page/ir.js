"use strict";
/* The text of graphs: colours for its tokens, and what its lines define and use. Line by line and
   forgiving, since a dump may hold a graph that a failing pass left, which no parser takes. */
const IR = (() => {
  const STRING = String.raw`"(?:[^"\\]|\\.)*"`;
  const NAME = String.raw`(?:${STRING}|[\w.]+)`;
  const TOKEN = new RegExp([
    `(?<value>%(?:<[^>]*>|\\w+))`,
    `(?<constant>@${NAME})`,
    `(?<region>\\^${NAME})`,
    `(?<string>${STRING})`,
    String.raw`(?<op>[A-Za-z_]\w*(?:\.\w+)+(?=\())`,
    String.raw`(?<key>\b[A-Za-z_]\w*(?==[^=]))`,
    String.raw`(?<type>\b(?:bool|b?f(?:16|32|64|8\w*)|[iu](?:8|16|32|64)|c(?:32|64|128))\b|\b[su]\d+\b)`,
    String.raw`(?<word>\b(?:graph|region|return|writeback|constants|prepare|parameter|buffer|where|device|stage|also|in|dim)\b)`,
    String.raw`(?<number>-?\b\d[\w.]*(?:[+-]\d+)?)`,
  ].join("|"), "g");
  const VALUE = `(?:%(?:<[^>]*>|\\w+)|@${NAME})`;
  const NODE = new RegExp(`^\\s*(?:(${VALUE}(?:, ${VALUE})*) = )?([A-Za-z_][\\w.]*)\\(`);
  const SAME = new RegExp(`^\\s*(@${NAME}) = (@${NAME})$`);
  const NAMES = new RegExp(VALUE, "g");
  const USES = new RegExp(`${VALUE}|\\^${NAME}|${STRING}`, "g");
  const HEAD = new RegExp(`^\\s*(graph @|region \\^)(${NAME})`);
  const SOURCE = new RegExp(`^\\s*(\\w+) (@${NAME}) : (.*?)(?: also .*)?$`);
  const PLACE = /^(?:("(?:[^"\\]|\\.)*"|[^\s"():,]+):(\d+))?\s*(?:\(("(?:[^"\\]|\\.)*"|[^\s"():,]+)\))?\s*(?:by (.*))?$/;

  const unquote = text => text && text.startsWith('"') ? JSON.parse(text) : text || "";
  const escape = text => text.replace(/[&<>"]/g, c => ({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"})[c]);

  /** A line as HTML: tokens in spans; values and constants can be clicked by their data-name. */
  function html(code) {
    let out = "", at = 0;
    for (const found of code.matchAll(TOKEN)) {
      const kind = Object.keys(found.groups).find(key => found.groups[key] !== undefined);
      out += escape(code.slice(at, found.index));
      const link = kind === "value" || kind === "constant" ? ` data-name="${escape(found[0])}"` : "";
      out += `<span class="t-${kind}"${link}>${escape(found[0])}</span>`;
      at = found.index + found[0].length;
    }
    return out + escape(code.slice(at));
  }

  /** A location: {file, line, module, rules}. */
  function place(text) {
    const found = PLACE.exec(text);
    if (!found) return {file: text, line: 0, module: "", rules: []};
    const rules = found[4] ? found[4].split(/,\s*/).map(unquote) : [];
    return {file: unquote(found[1]), line: +(found[2] || 0), module: unquote(found[3]), rules};
  }

  /** Where the parenthesis that opens at `start` closes. */
  function closing(code, start) {
    let depth = 0, quoted = false;
    for (let at = start; at < code.length; at++) {
      const c = code[at];
      if (quoted) { if (c === "\\") at++; else if (c === '"') quoted = false; continue; }
      if (c === '"') quoted = true;
      else if (c === "(" || c === "[" || c === "{") depth++;
      else if (c === ")" || c === "]" || c === "}") { if (--depth === 0) return at; }
    }
    return code.length;
  }

  /** `text` at its outermost commas. */
  function pieces(text) {
    const out = []; let depth = 0, from = 0;
    for (let at = 0; at <= text.length; at++) {
      const c = text[at];
      if (c === "(" || c === "[" || c === "{") depth++;
      else if (c === ")" || c === "]" || c === "}") depth--;
      else if ((c === "," && depth === 0) || at === text.length) {
        const piece = text.slice(from, at).trim();
        if (piece) out.push(piece);
        from = at + 1;
      }
    }
    return out;
  }

  /** The lines of text `number` of a graph: [{code, place}]. */
  function lines(graph, number) {
    const out = [], runs = graph.texts[number];
    for (let i = 0; i < runs.length; i += 2)
      for (let k = runs[i]; k < runs[i] + runs[i + 1]; k++)
        out.push({code: graph.code[k], place: graph.places[k], row: k});
    return out;
  }

  /** What a text defines and uses: {rows, nodes, values, scopes, outputs}. */
  function read(rows) {
    const scopes = [], nodes = [], values = new Map(), outputs = [], stack = [], pending = new Map();
    let scope = null, section = "", header = null, preparing = null;
    const key = (name, within) => name[0] === "@" ? name : `${within.id}|${name}`;
    const define = (name, within, fields) => {
      const id = key(name, within);
      if (!values.has(id)) values.set(id, {id, name, scope: within, uses: [], line: -1, type: "", node: null, kind: "", ...fields});
      else if (values.get(id).line < 0) Object.assign(values.get(id), fields);
      return values.get(id);
    };
    const use = (name, line, node) => {
      const value = define(name, scope, {});
      value.uses.push({line, node});
      return value;
    };
    const inputs = (text, line) => {
      for (const piece of pieces(text)) {
        const found = /^(%[^:]+): (.*)$/.exec(piece);
        if (found) scope.inputs.push(define(found[1], scope, {line, type: found[2], kind: "input"}));
      }
    };
    rows.forEach(({code, place: where}, line) => {
      const head = HEAD.exec(code);
      if (head) {
        const owner = head[1] === "graph @" ? null : pending.get(`^${head[2]}`) || null;
        scope = {id: scopes.length, name: unquote(head[2]), owner, parent: scope, inputs: [], outputs: [], line, section: scope ? scope.section : ""};
        scopes.push(scope); stack.push(scope);
        if (owner) owner.inner.push(scope);
        const open = code.indexOf("(", head[0].length);
        const end = closing(code, open);
        inputs(code.slice(open + 1, end), line);
        header = code.endsWith("{") && end < code.length ? null : scope;
        return;
      }
      const text = code.trim();
      if (header) {
        if (text.endsWith("{")) header = null;
        else if (text.startsWith("%")) inputs(text, line);
        return;
      }
      if (text === "constants {" || text === "prepare {") {
        section = text.split(" ")[0];
        if (section === "prepare") { scope = preparing = {id: scopes.length, name: "prepare", owner: null, parent: null, inputs: [], outputs: [], line, section}; scopes.push(scope); }
        return;
      }
      if (text === "}") {
        if (section && stack.length === 0) section = ""; else stack.pop();
        scope = stack[stack.length - 1] || (section === "prepare" ? preparing : scopes[0]);
        return;
      }
      if (section === "constants") {
        const found = SOURCE.exec(code);
        if (found) define(found[2], scopes[0], {line, type: found[3], kind: found[1]});
        return;
      }
      if (!scope) return;
      if (/^return\b/.test(text)) {
        for (const piece of pieces(text.slice(6))) {
          const name = NAMES.exec(piece); NAMES.lastIndex = 0;
          if (name) { const value = use(name[0], line, null); scope.outputs.push(value); if (scope.id === 0) outputs.push(value); }
        }
        return;
      }
      const same = SAME.exec(code);
      if (same) { use(same[2], line, null); define(same[1], scope, {line, kind: "prepared"}); return; }
      if (/^writeback\b/.test(text)) { for (const name of text.matchAll(NAMES)) use(name[0], line, null); return; }
      const found = NODE.exec(code);
      if (!found) return;
      const open = found[0].length - 1, end = closing(code, open);
      const types = pieces(code.slice(end + 1).replace(/^\s*:\s*/, ""));
      const node = {id: nodes.length, line, scope, op: found[2], names: found[1] ? found[1].match(NAMES) : [], operands: [], regions: [], inner: [], types, place: place(where), where, results: [], prepare: section === "prepare" || scope.section === "prepare"};
      nodes.push(node);
      for (const used of code.slice(open + 1, end).matchAll(USES)) {
        if (used[0][0] === '"') continue;
        if (used[0][0] === "^") { node.regions.push(used[0]); pending.set(used[0], node); continue; }
        node.operands.push(use(used[0], line, node));
      }
      node.results = node.names.map((name, at) => define(name, scope, {line, type: types[at] || "", node, kind: node.prepare && name[0] === "@" ? "prepared" : "result"}));
    });
    return {rows, nodes, values, scopes, outputs, counted: nodes.filter(node => !node.prepare).length};
  }

  /** The value called `name` on `line`, in the innermost scope that has it. */
  function lookup(model, name, line) {
    if (name[0] === "@") return model.values.get(name) || null;
    const within = model.scopes.filter(s => s.line <= line).reverse();
    let best = null;
    for (const s of within) {
      const value = model.values.get(`${s.id}|${name}`);
      if (!value) continue;
      if (value.line === line || value.uses.some(u => u.line === line)) return value;
      best = best || value;
    }
    if (best) return best;
    for (const value of model.values.values()) if (value.name === name) return value;
    return null;
  }

  const short = op => op.replace(/^(aten|rw|prims)\./, "").replace(/\.(Tensor|default|int|Scalar|Tensor_Scalar|Dimname)$/, "").replace(/^_(?=[a-z])/, "");
  const FAMILIES = [
    ["matrix", /linear|matmul|\bmm$|addmm|bmm|conv|einsum/],
    ["attention", /attention|sdpa|softmax/],
    ["norm", /norm/],
    ["memory", /view|reshape|permute|transpose|slice|select|expand|squeeze|cat|split|chunk|stack|index|gather|scatter|copy|clone|contiguous|embedding|pad|flatten|\.t$|unbind|alias|arange|full|ones|zeros|empty|flip|roll/],
    ["segment", /^rw\.(segment|outline|call)|cond|while_loop|map_impl/],
  ];
  const family = op => (FAMILIES.find(([, pattern]) => pattern.test(op)) || ["pointwise"])[0];

  return {html, escape, place, lines, read, lookup, short, family};
})();

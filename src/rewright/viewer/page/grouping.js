"use strict";
/* The graph as a tree: regions (segments, branches) and the modules that nodes come from are groups;
   groups are open or closed. Each open group is drawn as a layered graph of its own, inside the one
   around it; values that cross its border do so at ports. */
const Grouping = (() => {
  const LINE = 15, PAD = 14, HEAD = 26, READABLE = 36, FEW = 12, MANY = 400;

  /** The tree of a model. @param chosen a set of nodes: only these, without groups. */
  function tree(model, chosen) {
    const root = {key: "", name: "", kids: new Map(), items: [], parent: null, open: true, count: 0, kind: "root"};
    const leaves = new Map();
    const group = (parent, key, name, kind, backend) => {
      const full = `${parent.key}/${key}`;
      if (!parent.kids.has(full)) {
        const made = {key: full, name, kids: new Map(), items: [], parent, open: false, count: 0, kind, backend: backend || parent.backend};
        parent.kids.set(full, made); parent.items.push(made);
      }
      return parent.kids.get(full);
    };
    const regions = new Map();
    const within = scope => {
      if (!scope || !scope.owner) return root;
      if (!regions.has(scope)) {
        const outer = moduleOf(scope.owner, within(scope.owner.scope), false);
        const backend = (/backend="([^"]*)"/.exec(model.rows[scope.owner.line].code) || [])[1];
        regions.set(scope, group(outer, `^${scope.name}:${scope.owner.names[0] || scope.owner.id}`, scope.name, "region", backend));
      }
      return regions.get(scope);
    };
    const moduleOf = (node, start, deep = true) => {
      let at = start;
      if (deep && !chosen) for (const part of path(node.place.module)) at = group(at, part, part, "module");
      return at;
    };
    const leaf = (parent, fields) => { const made = {parent, ...fields}; parent.items.push(made); return made; };
    for (const value of model.scopes[0] ? model.scopes[0].inputs : [])
      if (!chosen) leaves.set(value, leaf(root, {kind: "input", value, label: value.name, detail: value.type}));
    for (const node of model.nodes) {
      if (node.prepare || (chosen ? !chosen.has(node) : isBorder(node))) continue;
      const parent = chosen ? root : moduleOf(node, within(node.scope));
      const made = leaf(parent, {kind: "node", node, label: IR.short(node.op), detail: detail(node)});
      leaves.set(node, made);
      for (let g = parent; g; g = g.parent) g.count++;
    }
    if (!chosen) model.outputs.forEach((value, at) => {
      leaves.set(`out${at}`, leaf(root, {kind: "output", value, label: model.outputs.length > 1 ? `result ${at}` : "result", detail: value.name}));
    });
    const made = {root, leaves, links: linksOf(model, leaves, chosen)};
    squeeze(root);
    if (!chosen) unfold(root);
    return made;
  }

  const path = module => module ? module.split(".").reduce((parts, part) => {
    // layer.3 is one level: a list of modules by itself is none
    if (/^\d+$/.test(part) && parts.length) parts[parts.length - 1] += `.${part}`; else parts.push(part);
    return parts;
  }, []) : [];

  const detail = node => node.types.length ? node.types.length > 1 ? `${node.types[0]}, …` : node.types[0] : "";

  /** Groups with one item that is a group become one with it. */
  function squeeze(group) {
    for (const item of group.items) if (item.items) squeeze(item);
    group.items = group.items.map(item => {
      if (!item.items || item.kind !== "module" || item.items.length !== 1) return item;
      const [only] = item.items;
      if (only.kind === "region") return item;
      only.parent = group;
      if (only.items) only.name = `${item.name}.${only.name}`;
      return only;
    });
    for (const item of group.items) item.parent = group;
  }

  /** Opens groups from the outside in as long as what is drawn stays readable. */
  function unfold(root) {
    let shown = root.items.length;
    const queue = [root];
    while (queue.length) {
      const groups = queue.shift().items.filter(item => item.items).sort((a, b) => a.items.length - b.items.length);
      for (const group of groups) {
        if (shown + group.items.length > READABLE && !(root.items.length < 8 && group.kind === "region" && group.items.length < 2 * READABLE)) continue;
        group.open = true; shown += group.items.length; queue.push(group);
      }
    }
    // one group that holds nearly all says nothing while it is closed
    for (let at = root; shown < FEW;) {
      at = at.items.filter(item => item.items && !item.open).sort((a, b) => b.count - a.count)[0];
      if (!at || at.items.length > MANY) break;
      at.open = true; shown += at.items.length;
    }
  }

  /** Which leaf's value goes into which: [{from, to, value}]. Region borders are looked through. */
  function linksOf(model, leaves, chosen) {
    const out = [], outside = new Map(), inside = new Map();
    for (const scope of model.scopes) {
      if (!scope.owner || chosen) continue;
      const given = scope.owner.operands, first = given.length - scope.inputs.length;   // cond(p, ^a, ^b, [x])
      if (first >= 0) scope.inputs.forEach((value, at) => outside.set(value, given[first + at]));
      if (isBorder(scope.owner)) scope.owner.results.forEach((value, at) => { if (scope.outputs[at]) inside.set(value, scope.outputs[at]); });
    }
    const source = value => {
      for (let steps = 0; steps < 20; steps++) {
        if (outside.has(value)) value = outside.get(value);
        else if (value.node && inside.has(value) && !leaves.has(value.node)) value = inside.get(value);
        else break;
      }
      return value;
    };
    const link = (used, to) => {
      const value = source(used), from = leaves.get(value.node || value);
      if (from && from !== to) out.push({from, to, value});
    };
    for (const [key, leaf] of leaves)
      if (leaf.kind === "node") for (const used of new Set(chosen ? key.operands : ownOperands(key))) link(used, leaf);
      else if (leaf.kind === "output") link(leaf.value, leaf);
    return out;
  }

  /** Whether a node is no more than the border of its one region, as a segment is. */
  const isBorder = node => node.inner.length === 1 && node.inner[0].inputs.length === node.operands.length;

  /** What a node itself takes: of one with branches the condition, and what the branches return. */
  function ownOperands(node) {
    if (!node.inner.length) return node.operands;
    const passed = Math.max(...node.inner.map(scope => scope.inputs.length));
    return [...node.operands.slice(0, Math.max(0, node.operands.length - passed)), ...node.inner.flatMap(scope => scope.outputs)];
  }

  const chain = leaf => { const out = []; for (let at = leaf; at; at = at.parent) out.unshift(at); return out; };

  /** The items as they are shown: a leaf stands in its outermost closed group. */
  function shownAs(leaf) {
    let shown = leaf;
    for (let at = leaf.parent; at; at = at.parent) if (!at.open) shown = at;
    return shown;
  }

  /** Gives all that is shown a place: x, y within the group around it, w, h. */
  function layout(made, measure) {
    const inner = new Map(), bundle = (group, from, to, value, ends) => {
      if (!inner.has(group)) inner.set(group, new Map());
      const edges = inner.get(group), key = `${id(from)}>${id(to)}${ends ? `:${value.id}` : ""}`;
      if (!edges.has(key)) edges.set(key, {a: from, b: to, values: new Set(), links: []});
      edges.get(key).values.add(value);
      return edges.get(key);
    };
    let count = 0; const ids = new Map(), id = item => { if (!ids.has(item)) ids.set(item, ++count); return ids.get(item); };
    const opened = item => item.items && item.open;
    function port(group, side, value) {
      const ports = group[side] || (group[side] = new Map());
      if (!ports.has(value)) ports.set(value, {kind: "port", side, value, parent: group, w: 1, h: 1, pin: side === "in" ? "top" : "bottom"});
      return ports.get(value);
    }
    const visit = group => {
      for (const item of group.items) {
        if (opened(item)) { visit(item); continue; }
        const label = item.items ? item.name : item.label, sub = item.items ? `${item.count} node${item.count === 1 ? "" : "s"}` : item.detail;
        item.w = Math.max(56, Math.min(240, (item.items ? 42 : 26) + Math.max(measure(label, item.items), measure(sub) * .86)));
        item.h = item.kind === "node" || item.items ? 2 * LINE + 8 : LINE + 11;
        if (item.kind === "input" && item.detail) item.h = 2 * LINE + 8;
      }
      const ports = [...(group.in || new Map()).values(), ...(group.out || new Map()).values()];
      const items = [...group.items, ...ports], index = new Map(items.map((item, at) => [item, at]));
      const edges = [...(inner.get(group) || new Map()).values()].filter(e => index.has(e.a) && index.has(e.b));
      for (const edge of edges) {
        const [value] = edge.values;
        edge.from = index.get(edge.a); edge.to = index.get(edge.b);
        const out = opened(edge.a) && edge.a.out && edge.a.out.get(value), into = opened(edge.b) && edge.b.in && edge.b.in.get(value);
        if (out) edge.fromX = out.x + PAD;
        if (into) edge.toX = into.x + PAD;
      }
      for (const item of items) item.pin = item.pin || (item.kind === "output" ? "bottom" : undefined);
      const size = Layout.layered(items, edges);
      group.edges = edges;
      group.w = Math.max(size.w, 60 + measure(group.name, true)) + 2 * PAD;
      const shift = (group.w - 2 * PAD - size.w) / 2;
      if (shift > 0) {
        for (const item of items) item.x += shift;
        for (const edge of edges) for (const point of edge.points) point[0] += shift;
      }
      group.h = size.h + HEAD + PAD;
    };
    for (const group of groups(made.root)) { group.in = new Map(); group.out = new Map(); }
    for (const link of made.links) {
      const a = chain(link.from), b = chain(link.to);
      let at = 0; while (a[at + 1] === b[at + 1] && opened(a[at + 1])) at++;
      if (a[at + 1] === b[at + 1]) continue;
      bundle(a[at], a[at + 1], b[at + 1], link.value, opened(a[at + 1]) || opened(b[at + 1])).links.push(link);
      for (let k = at + 1; opened(b[k]); k++) bundle(b[k], port(b[k], "in", link.value), b[k + 1], link.value, true).links.push(link);
      for (let k = at + 1; opened(a[k]); k++) bundle(a[k], a[k + 1], port(a[k], "out", link.value), link.value, true).links.push(link);
    }
    visit(made.root);
    absolute(made.root, 0, 0);
  }

  /** Adds the places of the groups around, so that ax, ay are in the whole drawing. */
  function absolute(group, x, y) {
    group.ax = x; group.ay = y;
    for (const item of group.items) {
      const left = x + PAD + item.x, top = y + HEAD + item.y;
      if (item.items && item.open) absolute(item, left, top); else { item.ax = left; item.ay = top; }
    }
    for (const edge of group.edges) {
      edge.path = edge.points.map(([px, py]) => [x + PAD + px, y + HEAD + py]);
      if (edge.a.kind === "port") edge.path[0][1] = y;
      if (edge.b.kind === "port") edge.path[edge.path.length - 1][1] = y + group.h;
    }
  }

  function* groups(group) {
    yield group;
    for (const item of group.items) if (item.items) yield* groups(item);
  }

  return {tree, layout, groups, shownAs, HEAD, PAD};
})();

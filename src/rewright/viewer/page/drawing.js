"use strict";
/* The graph on a canvas: panned, zoomed, clicked, walked by keys. Draws what is in sight only, and
   no text that could not be read. */
class Drawing {
  constructor(host, options) {
    this.host = host; this.options = options;
    this.canvas = document.createElement("canvas");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-label", "the graph: arrow keys follow values, Enter opens and closes groups, plus and minus zoom, 0 fits");
    host.append(this.canvas);
    this.pen = this.canvas.getContext("2d");
    this.scale = 1; this.x = 0; this.y = 0; this.selected = null; this.marked = new Set();
    this.widths = new Map();
    this.watch = new ResizeObserver(() => this.resize());
    this.watch.observe(host);
    this.listen();
  }

  close() { this.watch.disconnect(); this.canvas.remove(); }

  // -- what is shown

  show(made) {
    this.made = made; this.selected = null;
    this.arrange();
    this.fit();
  }

  measure(text, bold) {
    const key = (bold ? "b" : "") + text;
    if (!this.widths.has(key)) {
      this.pen.font = `${bold ? "600 " : ""}12px ${Drawing.FONT}`;
      this.widths.set(key, this.pen.measureText(text).width);
    }
    return this.widths.get(key);
  }

  arrange() {
    Grouping.layout(this.made, (text, bold) => this.measure(text, bold));
    this.touching = new Map();
    for (const group of Grouping.groups(this.made.root))
      if (this.isShown(group)) for (const edge of group.edges || [])
        for (const link of edge.links) for (const leaf of [link.from, link.to]) {
          if (!this.touching.has(leaf)) this.touching.set(leaf, new Set());
          this.touching.get(leaf).add(edge);
        }
  }

  isShown(group) { for (let at = group; at; at = at.parent) if (!at.open) return false; return true; }

  toggle(group) {
    const before = [group.ax, group.ay];
    group.open = !group.open;
    this.arrange();
    this.x += (before[0] - group.ax) * this.scale; this.y += (before[1] - group.ay) * this.scale;
    this.draw();
  }

  setAll(open) {
    for (const group of Grouping.groups(this.made.root)) if (group.parent) group.open = open;
    this.arrange(); this.fit();
  }

  select(leaf, center) {
    this.selected = leaf;
    if (leaf && center) {
      let changed = false;
      for (let at = leaf.parent; at; at = at.parent) if (!at.open) { at.open = changed = true; }
      if (changed) this.arrange();
      this.center(leaf);
    }
    this.draw();
  }

  mark(leaves) { this.marked = leaves; this.draw(); }

  // -- the view

  resize() {
    const box = this.host.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
    this.width = box.width; this.height = box.height;
    this.canvas.width = box.width * ratio; this.canvas.height = box.height * ratio;
    if (this.made && !this.fitted && box.width) this.fit(); else this.draw();
  }

  fit() {
    if (!this.width || !this.made) { this.fitted = false; return; }
    const {w, h} = this.made.root;
    const whole = Math.min(this.width / (w + 20), this.height / (h + 20), 1.25);
    // a tall graph is shown from its top, at a size that can be read
    this.scale = Math.max(whole, Math.min(.8, this.width / (w + 20)), .02);
    this.x = (this.width - w * this.scale) / 2;
    this.y = h * this.scale > this.height ? 6 : (this.height - h * this.scale) / 2;
    this.fitted = true;
    this.draw();
  }

  fitWhole() {
    const {w, h} = this.made.root;
    this.scale = Math.max(.04, Math.min(this.width / (w + 20), this.height / (h + 20), 1.25));
    this.x = (this.width - w * this.scale) / 2; this.y = Math.max(6, (this.height - h * this.scale) / 2);
    this.draw();
  }

  center(item) {
    this.scale = Math.max(this.scale, .8);
    this.x = this.width / 2 - (item.ax + item.w / 2) * this.scale;
    this.y = this.height / 2 - (item.ay + item.h / 2) * this.scale;
  }

  zoom(factor, cx = this.width / 2, cy = this.height / 2) {
    const scale = Math.max(.01, Math.min(4, this.scale * factor)), by = scale / this.scale;
    this.x = cx - (cx - this.x) * by; this.y = cy - (cy - this.y) * by; this.scale = scale;
    this.draw();
  }

  at(px, py) {
    const x = (px - this.x) / this.scale, y = (py - this.y) / this.scale;
    let group = this.made.root;
    for (;;) {
      const hit = group.items.find(i => x >= i.ax && x <= i.ax + i.w && y >= i.ay && y <= i.ay + i.h);
      if (!hit) return group.parent && y <= group.ay + Grouping.HEAD ? group : null;
      if (!(hit.items && hit.open)) return hit;
      group = hit;
    }
  }

  // -- input

  listen() {
    const canvas = this.canvas; let drag = null;
    canvas.addEventListener("wheel", event => {
      event.preventDefault();
      if (event.shiftKey) { this.x -= event.deltaY || event.deltaX; this.draw(); }
      else this.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? .01 : .0015)), event.offsetX, event.offsetY);
    }, {passive: false});
    canvas.addEventListener("pointerdown", event => { drag = {x: event.clientX, y: event.clientY, moved: false}; canvas.setPointerCapture(event.pointerId); });
    canvas.addEventListener("pointermove", event => {
      if (!drag) { canvas.style.cursor = this.made && this.at(event.offsetX, event.offsetY) ? "pointer" : "grab"; return; }
      const dx = event.clientX - drag.x, dy = event.clientY - drag.y;
      if (!drag.moved && Math.hypot(dx, dy) < 4) return;
      drag = {x: event.clientX, y: event.clientY, moved: true};
      this.x += dx; this.y += dy; this.draw();
    });
    canvas.addEventListener("pointerup", event => {
      const click = drag && !drag.moved; drag = null;
      if (!click) return;
      const hit = this.at(event.offsetX, event.offsetY);
      if (hit && hit.items) this.toggle(hit); else this.choose(hit);
    });
    canvas.addEventListener("keydown", event => { if (!event.ctrlKey && !event.metaKey && !event.altKey && this.key(event.key)) { event.preventDefault(); event.stopPropagation(); } });
  }

  choose(leaf) { this.select(leaf, false); this.options.onSelect(leaf); }

  key(key) {
    if (key === "+" || key === "=") this.zoom(1.25);
    else if (key === "-") this.zoom(.8);
    else if (key === "0") this.fit();
    else if (key === "Enter" && this.selected) { const group = this.selected.parent; if (group && group.parent) { this.toggle(group); this.selected = group.open ? this.selected : null; } }
    else if (key.startsWith("Arrow")) this.walk(key.slice(5));
    else return false;
    return true;
  }

  /** Up to an operand, down to a user, left and right to what stands beside. */
  walk(way) {
    const leaves = [...this.made.leaves.values()];
    const from = this.selected;
    let to = null;
    if (!from) [to] = leaves;
    else if (way === "Up") to = (this.made.links.find(link => link.to === from) || {}).from;
    else if (way === "Down") to = (this.made.links.find(link => link.from === from) || {}).to;
    else {
      const side = way === "Left" ? -1 : 1;
      const near = from.parent.items.filter(i => !i.items && i !== from && (i.ax - from.ax) * side > 0);
      to = near.sort((a, b) => Math.hypot(a.ax - from.ax, 4 * (a.ay - from.ay)) - Math.hypot(b.ax - from.ax, 4 * (b.ay - from.ay)))[0];
    }
    if (to) { this.select(to, true); this.options.onSelect(to); }
  }

  // -- drawing

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.paint(); });
  }

  paint() {
    if (!this.made || !this.width) return;
    const pen = this.pen, ratio = window.devicePixelRatio || 1;
    this.color = this.options.colors();
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, this.width, this.height);
    pen.translate(this.x, this.y); pen.scale(this.scale, this.scale);
    this.seen = {x0: -this.x / this.scale, y0: -this.y / this.scale, x1: (this.width - this.x) / this.scale, y1: (this.height - this.y) / this.scale};
    this.group(this.made.root);
    if (this.selected) {
      for (const edge of this.touching.get(this.selected) || []) {
        const leads = edge.links.some(link => link.to === this.selected);
        this.edge(edge, leads ? this.color.input : this.color.output, 2.2);
      }
      const shown = Grouping.shownAs(this.selected);
      if (shown.ax !== undefined) this.outline(shown, this.color.accent, 2.5);
    }
    this.options.onPaint(this);
  }

  inSight(x, y, w, h) { const s = this.seen; return x <= s.x1 && x + w >= s.x0 && y <= s.y1 && y + h >= s.y0; }

  group(group) {
    if (!this.inSight(group.ax, group.ay, group.w, group.h)) return;
    if (group.parent) this.frame(group);
    for (const edge of group.edges) this.edge(edge, this.color.edge, 1);
    for (const item of group.items) {
      if (item.items && item.open) this.group(item);
      else if (this.inSight(item.ax, item.ay, item.w, item.h)) this.item(item);
    }
  }

  backend(item) { for (let at = item; at; at = at.parent) if (at.backend) return at.backend; return ""; }

  frame(group) {
    const pen = this.pen, tone = group.kind === "region" && group.backend ? this.color.backend(group.backend) : this.color.group;
    pen.beginPath(); pen.roundRect(group.ax, group.ay, group.w, group.h, 8);
    pen.globalAlpha = group.kind === "region" && group.backend ? .1 : .35; pen.fillStyle = tone; pen.fill(); pen.globalAlpha = 1;
    pen.strokeStyle = group.kind === "region" && group.backend ? tone : this.color.line; pen.lineWidth = 1 / Math.max(this.scale, .5); pen.stroke();
    const size = Math.min(12 / Math.min(this.scale, 1), 40, group.h / 3);
    if (size * this.scale < 7) return;
    pen.fillStyle = group.kind === "region" && group.backend ? tone : this.color.soft;
    pen.font = `600 ${this.scale > .5 ? 12 : size}px ${Drawing.FONT}`;
    pen.textBaseline = "top"; pen.textAlign = "left";
    this.text(`▾ ${group.name}${group.kind === "region" && group.backend ? `  ${group.backend}` : ""}`, group.ax + 10, group.ay + 7, group.w - 16);
  }

  item(item) {
    const pen = this.pen, isGroup = Boolean(item.items), color = this.color;
    const backend = this.backend(item), {ax: x, ay: y, w, h} = item;
    if (w * this.scale < 1.5) return;
    const round = item.kind === "input" || item.kind === "output" ? h / 2 : 6;
    if (isGroup && this.scale > .2) {
      pen.beginPath(); pen.roundRect(x + 4, y + 4, w, h, round); pen.fillStyle = color.card; pen.fill(); pen.strokeStyle = color.line; pen.lineWidth = 1; pen.stroke();
    }
    pen.beginPath(); pen.roundRect(x, y, w, h, round);
    pen.fillStyle = color.card; pen.fill();
    const tone = isGroup ? (backend ? color.backend(backend) : color.soft) : item.kind === "node" ? color.family(IR.family(item.node.op)) : color.soft;
    pen.save(); pen.clip();
    pen.fillStyle = tone;
    if (12 * this.scale < 5.5) { pen.globalAlpha = .75; pen.fillRect(x, y, w, h); } else if (item.kind === "node" || isGroup) pen.fillRect(x, y, 5, h);
    pen.restore();
    pen.strokeStyle = backend ? color.backend(backend) : color.line; pen.lineWidth = 1; pen.stroke();
    if (this.marked.has(item) || (isGroup && this.holdsMarked(item))) this.outline(item, color.made, 2.5);
    if (12 * this.scale < 5.5 && !(isGroup && 12 * this.scale > 3)) return;
    pen.textBaseline = "top"; pen.textAlign = "left";
    pen.fillStyle = color.ink; pen.font = `${isGroup ? "600 " : ""}12px ${Drawing.FONT}`;
    this.text(isGroup ? `▸ ${item.name}` : item.label, x + 12, y + 6, w - 18);
    const sub = isGroup ? `${item.count} node${item.count === 1 ? "" : "s"}` : item.detail;
    if (sub && h > 30) { pen.fillStyle = color.soft; pen.font = `10.5px ${Drawing.FONT}`; this.text(sub, x + 12, y + 21, w - 18); }
  }

  holdsMarked(group) { for (const leaf of this.marked) for (let at = leaf.parent; at; at = at.parent) if (at === group) return true; return false; }

  text(text, x, y, width) {
    if (this.pen.measureText(text).width > width) {
      let low = 0, high = text.length;
      while (low < high) { const mid = (low + high + 1) >> 1; if (this.pen.measureText(`${text.slice(0, mid)}…`).width <= width) low = mid; else high = mid - 1; }
      text = `${text.slice(0, low)}…`;
    }
    this.pen.fillText(text, x, y);
  }

  outline(item, tone, width) {
    const pen = this.pen, wide = width / Math.min(1, Math.max(this.scale, .15));
    pen.beginPath(); pen.roundRect(item.ax - 2, item.ay - 2, item.w + 4, item.h + 4, item.kind === "input" || item.kind === "output" ? item.h / 2 : 8);
    pen.strokeStyle = tone; pen.lineWidth = wide; pen.stroke();
  }

  edge(edge, tone, width) {
    const pen = this.pen, path = edge.path;
    pen.strokeStyle = pen.fillStyle = tone;
    pen.lineWidth = width / Math.min(1, Math.max(this.scale, .3));
    if (edge.far) { this.far(edge, tone); return; }
    const ys = path.map(p => p[1]), xs = path.map(p => p[0]);
    const x0 = Math.min(...xs), y0 = Math.min(...ys);
    if (!this.inSight(x0, y0, Math.max(...xs) - x0, Math.max(...ys) - y0)) return;
    pen.beginPath(); pen.moveTo(...path[0]);
    for (let at = 1; at < path.length; at++) {
      const [ax, ay] = path[at - 1], [bx, by] = path[at], bend = (by - ay) / 2;
      if (Math.abs(ax - bx) < .5) pen.lineTo(bx, by); else pen.bezierCurveTo(ax, ay + bend, bx, by - bend, bx, by);
    }
    pen.stroke();
    if (this.scale > .35 && edge.b.kind !== "port") {
      const [x, y] = path[path.length - 1];
      pen.beginPath(); pen.moveTo(x, y); pen.lineTo(x - 3.5, y - 6); pen.lineTo(x + 3.5, y - 6); pen.fill();
    }
  }

  /** An edge past too many layers to be followed: its name at both ends. */
  far(edge, tone) {
    const pen = this.pen, [value] = edge.values;
    const ends = [[edge.path[0], 1, "↓ far below"], [edge.path[edge.path.length - 1], -1, `↑ ${value.name}`]];
    for (const [[x, y], way, name] of ends) {
      if (!this.inSight(x - 60, y - 20, 120, 40)) continue;
      pen.setLineDash([3, 3]); pen.beginPath(); pen.moveTo(x, y); pen.lineTo(x, y + way * 12); pen.stroke(); pen.setLineDash([]);
      if (this.scale < .6) continue;
      pen.font = `10px ${Drawing.FONT}`; pen.textAlign = "left"; pen.textBaseline = "middle"; pen.fillStyle = tone;
      pen.fillText(name, x + 4, y + way * 9);
    }
  }
}
Drawing.FONT = 'system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';

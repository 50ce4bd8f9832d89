"use strict";
/* A list of many lines of one height, of which those in sight are in the document; and the lines of
   texts and of their differences. */
class Rows {
  /** @param render gives the HTML of row i; @param chars how wide the widest row is. */
  constructor(host, count, render, chars = 0) {
    this.host = host; this.count = count; this.render = render; this.current = -1;
    host.innerHTML = '<div class="rows" tabindex="0"><div class="tall"></div></div>';
    this.box = host.firstChild; this.tall = this.box.firstChild;
    this.tall.style.height = `${count * Rows.HEIGHT + 24}px`;
    this.tall.style.minWidth = chars ? `calc(${chars}ch + 9rem)` : "100%";
    this.box.addEventListener("scroll", () => this.paint());
    this.watch = new ResizeObserver(() => this.paint(true));
    this.watch.observe(this.box);
  }

  close() { this.watch.disconnect(); }

  paint(anew) {
    const first = Math.max(0, Math.floor(this.box.scrollTop / Rows.HEIGHT) - 20);
    const last = Math.min(this.count, first + Math.ceil(this.box.clientHeight / Rows.HEIGHT) + 40);
    if (!anew && first === this.first && last === this.last) return;
    this.first = first; this.last = last;
    let html = "";
    for (let i = first; i < last; i++) html += this.render(i, i === this.current);
    this.tall.innerHTML = `<div class="page" style="top:${first * Rows.HEIGHT}px">${html}</div>`;
  }

  go(row, quiet) {
    this.current = row;
    const top = row * Rows.HEIGHT, {scrollTop, clientHeight} = this.box;
    if (top < scrollTop + 40 || top > scrollTop + clientHeight - 80) this.box.scrollTop = Math.max(0, top - clientHeight / 3);
    if (!quiet) this.box.scrollLeft = 0;
    this.paint(true);
  }
}
Rows.HEIGHT = 20;

const Lines = (() => {
  const KEPT = 3;
  const place = text => {
    if (!text) return "";
    const {file, line, module, rules} = IR.place(text), name = file.split("/").pop();
    const by = rules.length ? ` <span class="by" data-rule="${IR.escape(rules[rules.length - 1])}">${IR.escape(rules.join(", "))}</span>` : "";
    return `<span class="place" title="${IR.escape(text)}">${IR.escape(name ? `${name}:${line}` : "")}${module ? ` <i>${IR.escape(module)}</i>` : ""}${by}</span>`;
  };

  /** HTML of code in which the ranges of characters are marked. */
  function marked(code, ranges) {
    if (!ranges || !ranges.length) return IR.html(code);
    const host = document.createElement("span");
    host.innerHTML = IR.html(code);
    const walker = document.createTreeWalker(host, NodeFilter.SHOW_TEXT), texts = [];
    while (walker.nextNode()) texts.push(walker.currentNode);
    let at = 0;
    for (const text of texts) {
      const from = at, to = at + text.data.length; at = to;
      const parts = ranges.map(([a, b]) => [Math.max(a, from) - from, Math.min(b, to) - from]).filter(([a, b]) => a < b);
      for (const [a, b] of parts.reverse()) {
        const range = document.createRange(); range.setStart(text, a); range.setEnd(text, b);
        const mark = document.createElement("mark"); range.surroundContents(mark);
      }
    }
    return host.innerHTML;
  }

  /** What a diff shows, in order: {kind, a, b} with indices of lines; folds hide what is the same. */
  function plan(left, right, open) {
    const hunks = Diff.hunks(left.map(l => l.code.trim()), right.map(l => l.code.trim())), out = [], starts = [];
    hunks.forEach((hunk, at) => {
      const [a0, a1] = hunk.a, [b0, b1] = hunk.b;
      if (hunk.kind === "change") {
        starts.push(out.length);
        const pairs = Math.min(a1 - a0, b1 - b0);
        out.push({kind: "block", removed: range(a0, a1), added: range(b0, b1), pairs});
        return;
      }
      const count = a1 - a0, head = at ? KEPT : 0, tail = at + 1 < hunks.length ? KEPT : 0;
      const same = k => out.push({kind: "same", a: a0 + k, b: b0 + k});
      if (open.has(a0) || count <= head + tail + 2) { for (let k = 0; k < count; k++) same(k); return; }
      for (let k = 0; k < head; k++) same(k);
      out.push({kind: "fold", key: a0, count: count - head - tail});
      for (let k = count - tail; k < count; k++) same(k);
    });
    return {out, starts};
  }
  const range = (from, to) => Array.from({length: to - from}, (_, k) => from + k);

  /** The rows of a diff: unified, or side by side. */
  function rows(planned, side) {
    const out = [], changes = [];
    for (const item of planned.out) {
      if (item.kind !== "block") { out.push(item); continue; }
      changes.push(out.length);
      const {removed, added} = item;
      if (side) for (let k = 0; k < Math.max(removed.length, added.length); k++) out.push({kind: "both", a: removed[k], b: added[k]});
      else {
        removed.forEach((a, k) => out.push({kind: "del", a, other: added[k]}));
        added.forEach((b, k) => out.push({kind: "add", b, other: removed[k]}));
      }
    }
    return {rows: out, changes};
  }

  const number = n => `<span class="no">${n === undefined ? "" : n + 1}</span>`;

  return {place, marked, plan, rows, number};
})();

"use strict";
/* Differences of two texts: patience first (lines that are unique on both sides anchor it), then
   the longest common subsequence between the anchors. */
const Diff = (() => {
  /** Pairs [i, j] of equal items, in order. */
  function matches(a, b) {
    const out = [];
    const work = [[0, a.length, 0, b.length]];
    while (work.length) {
      let [i0, i1, j0, j1] = work.pop();
      while (i0 < i1 && j0 < j1 && a[i0] === b[j0]) out.push([i0++, j0++]);
      while (i0 < i1 && j0 < j1 && a[i1 - 1] === b[j1 - 1]) out.push([--i1, --j1]);
      if (i0 === i1 || j0 === j1) continue;
      const anchors = unique(a, i0, i1, b, j0, j1);
      if (anchors.length) {
        let i = i0, j = j0;
        for (const [x, y] of anchors) { work.push([i, x, j, y]); out.push([x, y]); i = x + 1; j = y + 1; }
        work.push([i, i1, j, j1]);
      } else if ((i1 - i0) * (j1 - j0) <= 4e6) common(a, i0, i1, b, j0, j1, out);
    }
    return out.sort((x, y) => x[0] - y[0]);
  }

  /** The longest increasing chain of items that are unique on both sides. */
  function unique(a, i0, i1, b, j0, j1) {
    const seen = new Map();
    for (let i = i0; i < i1; i++) { const s = seen.get(a[i]) || [0, 0, i, -1]; s[0]++; seen.set(a[i], s); }
    for (let j = j0; j < j1; j++) { const s = seen.get(b[j]); if (s) { s[1]++; s[3] = j; } }
    const pairs = [...seen.values()].filter(s => s[0] === 1 && s[1] === 1).map(s => ({i: s[2], j: s[3], back: null}));
    const tops = [];
    for (const pair of pairs) {
      let low = 0, high = tops.length;
      while (low < high) { const mid = (low + high) >> 1; if (tops[mid].j < pair.j) low = mid + 1; else high = mid; }
      pair.back = low ? tops[low - 1] : null;
      tops[low] = pair;
    }
    const chain = [];
    for (let pair = tops[tops.length - 1]; pair; pair = pair.back) chain.push([pair.i, pair.j]);
    return chain.reverse();
  }

  function common(a, i0, i1, b, j0, j1, out) {
    const n = i1 - i0, m = j1 - j0, width = m + 1;
    const table = new Uint16Array((n + 1) * width);
    for (let i = n - 1; i >= 0; i--)
      for (let j = m - 1; j >= 0; j--)
        table[i * width + j] = a[i0 + i] === b[j0 + j] ? table[(i + 1) * width + j + 1] + 1
          : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
    for (let i = 0, j = 0; i < n && j < m;) {
      if (a[i0 + i] === b[j0 + j]) out.push([i0 + i++, j0 + j++]);
      else if (table[(i + 1) * width + j] >= table[i * width + j + 1]) i++;
      else j++;
    }
  }

  /** Hunks: {kind: "same" | "change", a: [from, to], b: [from, to]}. */
  function hunks(a, b) {
    const out = []; let i = 0, j = 0;
    const push = (kind, i1, j1) => {
      if (i1 === i && j1 === j) return;
      const last = out[out.length - 1];
      if (last && last.kind === kind) { last.a[1] = i1; last.b[1] = j1; }
      else out.push({kind, a: [i, i1], b: [j, j1]});
      i = i1; j = j1;
    };
    for (const [x, y] of matches(a, b)) { push("change", x, y); push("same", x + 1, y + 1); }
    push("change", a.length, b.length);
    return out;
  }

  /** Which words of two lines differ: for each side the ranges [from, to] of what is not common. */
  function words(left, right) {
    const split = text => text.match(/[%@^]?[\w.]+|\s+|[^\w\s]/g) || [];
    const a = split(left), b = split(right);
    const pairs = matches(a, b);
    const mark = (items, keep) => {
      const ranges = []; let at = 0;
      items.forEach((item, index) => {
        if (!keep.has(index) && item.trim()) {
          const last = ranges[ranges.length - 1];
          if (last && last[1] === at) last[1] += item.length; else ranges.push([at, at + item.length]);
        }
        at += item.length;
      });
      return ranges;
    };
    if (pairs.filter(([i]) => a[i].trim()).length * 3 < Math.max(a.length, b.length)) return [[], []];
    return [mark(a, new Set(pairs.map(p => p[0]))), mark(b, new Set(pairs.map(p => p[1])))];
  }

  return {hunks, words};
})();

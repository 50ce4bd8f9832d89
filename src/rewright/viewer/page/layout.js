"use strict";
/* Layered drawing of a directed graph (Sugiyama, Tagawa, Toda 1981): break cycles, assign layers by
   longest path, order each layer by barycenters, then place it near its neighbours' median. */
const Layout = (() => {
  const GAP = 22, RISE = 34, LONGEST = 120, SWEEPS = 6, LANE = 8;

  /**
   * Places items and routes edges, downwards.
   * @param items [{w, h, pin}]; pin "top" or "bottom" asks for the first or last layer. Get x, y of
   *   their upper left corner.
   * @param edges [{from, to, fromX, toX}]: indices, and where on the item's width the edge
   *   ends. Get points [[x, y], ...], or far = true where they would pass too many layers.
   * @returns {{w, h}}
   */
  function layered(items, edges) {
    if (!items.length) return {w: 0, h: 0};
    const links = acyclic(items.length, edges);
    const rank = ranks(items, links);
    const {cells, layers, chains} = cellsOf(items, links, rank, edges);
    order(cells, layers);
    place(cells, layers);
    return finish(items, edges, cells, layers, chains);
  }

  /** Edges as [from, to, edge], those that close a cycle turned around. */
  function acyclic(count, edges) {
    const next = Array.from({length: count}, () => []), state = new Uint8Array(count), out = [];
    edges.forEach((edge, at) => { if (edge.from !== edge.to) next[edge.from].push(at); });
    for (let root = 0; root < count; root++) {
      if (state[root]) continue;
      const stack = [[root, 0]]; state[root] = 1;
      while (stack.length) {
        const top = stack[stack.length - 1], [node, at] = top;
        if (at === next[node].length) { state[node] = 2; stack.pop(); continue; }
        top[1]++;
        const edge = next[node][at], to = edges[edge].to;
        if (state[to] === 1) out.push([to, node, edge]);
        else { out.push([node, to, edge]); if (!state[to]) { state[to] = 1; stack.push([to, 0]); } }
      }
    }
    return out;
  }

  /** Longest-path layers; what nothing leads to moves down to just above its first user. */
  function ranks(items, links) {
    const count = items.length, rank = new Int32Array(count), left = new Int32Array(count);
    const next = Array.from({length: count}, () => []), before = new Int32Array(count);
    for (const [a, b] of links) { next[a].push(b); left[b]++; before[b]++; }
    const queue = []; for (let i = 0; i < count; i++) if (!left[i]) queue.push(i);
    for (let at = 0; at < queue.length; at++)
      for (const to of next[queue[at]]) {
        rank[to] = Math.max(rank[to], rank[queue[at]] + 1);
        if (--left[to] === 0) queue.push(to);
      }
    for (let at = queue.length - 1; at >= 0; at--) {
      const node = queue[at];
      if (before[node] || !next[node].length || items[node].pin) continue;
      rank[node] = next[node].reduce((low, to) => Math.min(low, rank[to]), Infinity) - 1;
    }
    const bottom = rank.reduce((most, each) => Math.max(most, each), 0);
    for (let i = 0; i < count; i++) if (items[i].pin === "bottom") rank[i] = bottom;
    return rank;
  }

  /** Cells: the items, and a thin one for each layer that an edge passes. */
  function cellsOf(items, links, rank, edges) {
    const cells = items.map((item, at) => ({w: item.w, h: item.h, item: at, up: [], down: [], x: 0}));
    const layers = [], chains = new Map(), trunks = new Map();
    const put = (cell, layer) => { (layers[layer] = layers[layer] || []).push(cell); cell.layer = layer; };
    cells.forEach((cell, at) => put(cell, rank[at]));
    for (let i = 0; i < layers.length; i++) layers[i] = layers[i] || [];
    for (const [a, b, at] of links) {
      if (rank[b] - rank[a] > LONGEST) { edges[at].far = true; continue; }
      let previous = cells[a]; const chain = [previous];
      for (let layer = rank[a] + 1; layer < rank[b]; layer++) {
        const trunk = `${a}:${edges[at].fromX ?? ""}:${layer}`;   // what leaves one place runs in one lane
        let cell = trunks.get(trunk);
        if (!cell) {
          cell = {w: LANE, h: 0, item: -1, up: [], down: [], x: 0};
          trunks.set(trunk, cell); put(cell, layer); join(previous, cell);
        }
        chain.push(cell); previous = cell;
      }
      join(previous, cells[b]); chain.push(cells[b]);
      chains.set(at, edges[at].from === a ? chain : chain.reverse());
    }
    return {cells, layers, chains};
  }
  const join = (a, b) => { a.down.push(b); b.up.push(a); };

  function order(cells, layers) {
    const number = () => layers.forEach(layer => layer.forEach((cell, at) => { cell.at = at; }));
    number();
    const sweep = (list, side) => {
      for (const layer of list) {
        for (const cell of layer) {
          const near = cell[side];
          cell.key = near.length ? near.reduce((sum, other) => sum + (other.at + .5) / layers[other.layer].length, 0) / near.length : (cell.at + .5) / layer.length;
        }
        layer.sort((a, b) => a.key - b.key || a.at - b.at);
        layer.forEach((cell, at) => { cell.at = at; });
      }
    };
    for (let round = 0; round < SWEEPS; round++) { sweep(layers, "up"); sweep([...layers].reverse(), "down"); }
  }

  /** The positions nearest to what each cell wants, that keep the order and the gaps: pools of
      neighbours that would overlap move together (pool adjacent violators). */
  function settle(layer, wanted, weight) {
    const pools = []; let offset = 0;
    layer.forEach((cell, at) => {
      if (at) offset += (layer[at - 1].w + cell.w) / 2 + (cell.item < 0 || layer[at - 1].item < 0 ? GAP / 2 : GAP);
      cell.offset = offset;
      let pool = {sum: (wanted[at] - offset) * weight[at], weight: weight[at], count: 1};
      while (pools.length && pools[pools.length - 1].sum / pools[pools.length - 1].weight > pool.sum / pool.weight) {
        const last = pools.pop();
        pool = {sum: last.sum + pool.sum, weight: last.weight + pool.weight, count: last.count + pool.count};
      }
      pools.push(pool);
    });
    let at = 0;
    for (const pool of pools)
      for (let k = 0; k < pool.count; k++, at++) layer[at].x = pool.sum / pool.weight + layer[at].offset;
  }

  function place(cells, layers) {
    for (const layer of layers) settle(layer, layer.map(() => 0), layer.map(() => 1));
    // medians, so that a chain stays straight instead of leaning from one end to the other
    for (let round = 0; round <= 2 * SWEEPS; round++) {
      const side = round % 2 ? "down" : "up";
      for (const layer of side === "up" ? layers : [...layers].reverse()) {
        const wanted = layer.map(cell => {
          const near = cell[side].length ? cell[side] : round === 2 * SWEEPS ? cell.down : [];
          return near.length ? median(near.map(other => other.x)) : cell.x;
        });
        settle(layer, wanted, layer.map(cell => cell.item < 0 ? 8 : 1));
      }
    }
  }

  function median(values) {
    values.sort((a, b) => a - b);
    const half = values.length >> 1;
    return values.length % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
  }

  function finish(items, edges, cells, layers, chains) {
    let left = Infinity, right = -Infinity, y = 0;
    for (const cell of cells) { left = Math.min(left, cell.x - cell.w / 2); right = Math.max(right, cell.x + cell.w / 2); }
    for (const layer of layers) for (const cell of layer) if (cell.item < 0) { left = Math.min(left, cell.x); right = Math.max(right, cell.x); }
    layers.forEach((layer, at) => {
      const tall = layer.reduce((most, cell) => Math.max(most, cell.h), 0);
      for (const cell of layer) { cell.x -= left; cell.top = y; cell.tall = tall; }
      const isBorder = [layer, layers[at + 1] || []].some(l => l.length && l.every(cell => cell.item < 0 || items[cell.item].pin) && l.some(cell => cell.item >= 0 && items[cell.item].w === 1));
      y += tall + (at + 1 < layers.length ? (isBorder ? RISE / 3 : RISE) : 0);
    });
    items.forEach((item, at) => {
      const cell = cells[at];
      item.x = cell.x - cell.w / 2;
      item.y = item.pin === "bottom" ? cell.top + cell.tall - cell.h : cell.top;
    });
    edges.forEach((edge, at) => {
      const a = items[edge.from], b = items[edge.to], chain = chains.get(at);
      const start = [a.x + (edge.fromX ?? a.w / 2), a.y + a.h], end = [b.x + (edge.toX ?? b.w / 2), b.y];
      const middle = chain ? chain.slice(1, -1).flatMap(c => c.tall ? [[c.x, c.top], [c.x, c.top + c.tall]] : [[c.x, c.top]]) : [];
      if (chain && edge.from !== edge.to && cells[edge.from].layer > cells[edge.to].layer) {
        edge.points = [[start[0], a.y], ...middle, [end[0], b.y + b.h]];
      } else edge.points = [start, ...middle, end];
    });
    return {w: right - left, h: y};
  }

  return {layered};
})();

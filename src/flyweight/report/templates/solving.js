"use strict";
// Computations of the plan explorer, independent of the document. `data` is an Explorer of
// report/explorer.py. Widths are arrays with one number per group, in the order of `data.groups`.

const MAX_DROP = "max_drop";

// Rounds half to even, as Python does.
function rounded(number) {
  const down = Math.floor(number), rest = number - down;
  return rest < 0.5 || (rest === 0.5 && down % 2 === 0) ? down : down + 1;
}

// pruning/make_plan.py: kept_count
function keptCount(channels, ratio, multiple) {
  let stays = Math.max(channels - rounded(channels * ratio), 1);
  if (multiple > 1) stays = Math.max(rounded(stays / multiple), 1) * multiple;
  return Math.min(stays, channels);
}

// Exact cost of a network of these widths: a sum of integers, without rounding errors.
function priceOf(data, place, widths) {
  const sizes = data.axes.map(([fixed, shares]) => sizeUnder(fixed, shares, widths));
  let sum = 0;
  for (const [factors, axes] of data.products) {
    let product = factors[place];
    for (const axis of axes) product *= sizes[axis];
    sum += product;
  }
  return sum;
}

function sizeUnder(fixed, shares, widths) {
  return shares.reduce((sum, [group, each]) => sum + each * widths[group], fixed);
}

// sensitivity/curves.py: `ratios` by the monotone rule, and the loss of the curve at that ratio.
function ratioAt(spots, most) {
  let above = -Infinity;
  const losses = spots.map((spot) => (above = Math.max(above, spot.loss)));
  let place = -1;
  losses.forEach((loss, index) => { if (loss <= most) place = index; });
  if (place < 0) return null;
  const loss = Math.max(losses[place], 0);
  if (place + 1 === spots.length) return { ratio: spots[place].ratio, loss };
  const share = (most - losses[place]) / (losses[place + 1] - losses[place]);
  const ratio = spots[place].ratio + share * (spots[place + 1].ratio - spots[place].ratio);
  return { ratio, loss: Math.max(most, 0) };
}

function cutsAtDrop(data, most) {
  const cuts = [];
  data.layers.forEach((layer, place) => {
    const found = ratioAt(layer.spots, most);
    if (found && found.ratio > 0) cuts.push({ layer: place, ...found });
  });
  return cuts;
}

// The cost as a polynomial of the free widths. The third width of a product counts with its full
// size, so the true cost is never higher.
class Polynomial {
  constructor(data, place, free) {
    const count = free.length, where = new Map(free.map((group, index) => [group, index]));
    this.full = free.map((group) => data.groups[group].size);
    this.constant = 0;
    this.linear = new Float64Array(count);
    this.square = new Float64Array(count);
    this.pairs = free.map(() => new Map());
    const size = ([fixed, shares]) => ({
      fixed: shares.reduce((s, [g, n]) => s + (where.has(g) ? 0 : n * data.groups[g].size), fixed),
      parts: shares.filter(([g]) => where.has(g)).map(([g, n]) => [where.get(g), n]),
    });
    const axes = data.axes.map(size);
    for (const [factors, of] of data.products) {
      if (factors[place]) this.add(factors[place], of.map((axis) => axes[axis]));
    }
  }

  add(factor, axes) {
    let terms = [[factor]];
    for (const { fixed, parts } of axes) {
      const longer = [];
      for (const [value, ...groups] of terms) {
        if (fixed) longer.push([value * fixed, ...groups]);
        for (const [group, each] of parts) {
          if (groups.length < 2) longer.push([value * each, ...groups, group]);
          else longer.push([value * each * this.full[group], ...groups]);
        }
      }
      terms = longer;
    }
    for (const [value, one, other] of terms) this.note(value, one, other);
  }

  note(value, one, other) {
    if (one === undefined) this.constant += value;
    else if (other === undefined) this.linear[one] += value;
    else if (one === other) this.square[one] += value;
    else {
      this.pairs[one].set(other, (this.pairs[one].get(other) || 0) + value);
      this.pairs[other].set(one, (this.pairs[other].get(one) || 0) + value);
    }
  }
}

// One chosen option for every free group. Cost and loss are updated with every change.
class Choice {
  constructor(polynomial, options) {
    this.polynomial = polynomial;
    this.options = options; // of every group: [width, loss], widest first
    this.at = options.map(() => 0);
    this.cost = polynomial.constant;
    this.loss = 0;
    this.slope = Float64Array.from(polynomial.linear);
    options.forEach((rows, i) => {
      const width = rows[0][0];
      this.cost += this.costOf(i, width);
      this.loss += rows[0][1];
      for (const [j, value] of polynomial.pairs[i]) this.slope[j] += value * width;
    });
  }

  // Cost of group i at a width, with the other groups unchanged.
  costOf(i, width) {
    return width * (this.slope[i] + this.polynomial.square[i] * width);
  }

  change(i, k) {
    const [before] = this.options[i][this.at[i]], [after] = this.options[i][k];
    return this.costOf(i, after) - this.costOf(i, before);
  }

  set(i, k) {
    const [before, lost] = this.options[i][this.at[i]], [after, loses] = this.options[i][k];
    this.cost += this.change(i, k);
    this.loss += loses - lost;
    this.at[i] = k;
    for (const [j, value] of this.polynomial.pairs[i]) this.slope[j] += value * (after - before);
  }

  take(at) {
    at.forEach((k, i) => { if (k !== this.at[i]) this.set(i, k); });
  }

  // With a price (loss per cost): every group takes its best option until no option changes.
  settle(price) {
    for (let round = 0, moved = true; moved && round < 50; round++) {
      moved = false;
      this.options.forEach((rows, i) => {
        let best = this.at[i], least = Infinity;
        rows.forEach(([width, loss], k) => {
          const value = loss + price * this.costOf(i, width);
          if (value < least - 1e-15) [best, least] = [k, value];
        });
        if (best !== this.at[i]) { this.set(i, best); moved = true; }
      });
    }
  }

  // Narrow the group with the least loss per saved cost, until the limit is met.
  narrow(limit, except = -1) {
    while (this.cost > limit) {
      let best = null, least = Infinity;
      this.options.forEach((rows, i) => {
        if (i === except) return;
        for (let k = this.at[i] + 1; k < rows.length; k++) {
          const saved = Math.min(-this.change(i, k), this.cost - limit);
          const value = (rows[k][1] - rows[this.at[i]][1]) / saved;
          if (saved > 0 && value < least) [best, least] = [[i, k], value];
        }
      });
      if (!best) return false;
      this.set(...best);
    }
    return true;
  }

  // Widen the group that gains most within the limit.
  widen(limit) {
    for (;;) {
      let best = null, most = 1e-12;
      this.options.forEach((rows, i) => {
        for (let k = 0; k < this.at[i]; k++) {
          const gain = rows[this.at[i]][1] - rows[k][1];
          if (gain > most && this.cost + this.change(i, k) <= limit) [best, most] = [[i, k], gain];
        }
      });
      if (!best) return;
      this.set(...best);
    }
  }

  // Set one group to another width and adapt the others; keep the result if it loses less.
  improve(limit) {
    const start = { at: [...this.at], loss: this.loss };
    let best = start;
    for (let i = 0; i < this.options.length; i++) {
      for (let k = 0; k < this.options[i].length; k++) {
        if (k === start.at[i]) continue;
        this.take(start.at);
        this.set(i, k);
        if (!this.narrow(limit, i)) continue;
        this.widen(limit);
        if (this.loss < best.loss - 1e-12) best = { at: [...this.at], loss: this.loss };
      }
    }
    this.take(best.at);
    return best !== start;
  }
}

const SWEEPS = 40, STARTS = 3;

// Widths within a limit with a small sum of losses. Prices are tried by bisection, each result is
// brought within the limit, and the best ones are improved group by group for `rounds` rounds. The
// result is not proven to be optimal.
function solve(data, place, limit, rounds) {
  const free = [], leaders = [], options = [];
  data.layers.forEach((layer, index) => {
    if (!layer.options.length) return;
    free.push(layer.orders[0][0]);
    leaders.push(index);
    options.push([...layer.options].sort((a, b) => b[0] - a[0]));
  });
  const choice = new Choice(new Polynomial(data, place, free), options);
  choice.take(options.map((rows) => rows.length - 1));
  if (choice.cost > limit) return { floor: choice.cost, cuts: [] };
  const found = new Map();
  const note = () => {
    choice.widen(limit);
    found.set(choice.at.join(), { at: [...choice.at], loss: choice.loss });
  };
  note();
  let low = 0, high = 1e3 / Math.max(limit, 1);
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const price = low ? Math.sqrt(low * high) : high / 2 ** (sweep + 1);
    choice.settle(price);
    const at = [...choice.at];
    if (choice.cost > limit) low = price;
    else high = price;
    if (choice.narrow(limit)) note();
    choice.take(at);
  }
  let least = { loss: Infinity };
  for (const start of [...found.values()].sort((a, b) => a.loss - b.loss).slice(0, rounds ? STARTS : 1)) {
    choice.take(start.at);
    for (let round = 0; round < rounds && choice.improve(limit); round++);
    if (choice.loss < least.loss) least = { at: [...choice.at], loss: choice.loss };
  }
  choice.take(least.at);
  const cuts = [];
  choice.at.forEach((k, i) => {
    const [keep, loss] = options[i][k], size = data.groups[free[i]].size;
    if (keep < size) cuts.push({ layer: leaders[i], ratio: 1 - keep / size, loss });
  });
  return { cuts };
}

// pruning/make_plan.py: the first layer that names a group decides. Returns, in the order of the
// network, the kept channels of every narrowed group, and the widths of all groups.
function planOf(data, cuts) {
  const asked = new Map(), counted = [];
  for (const cut of cuts) {
    let first = false;
    for (const [group, order] of data.layers[cut.layer].orders) {
      if (asked.has(group)) continue;
      asked.set(group, { ratio: cut.ratio, order });
      first = true;
    }
    if (first) counted.push(cut);
  }
  const widths = data.groups.map((group) => group.size);
  for (const [group, { ratio }] of asked) {
    widths[group] = keptCount(widths[group], ratio, data.round_to);
  }
  const loss = counted.reduce((sum, cut) => sum + cut.loss, 0);
  const kept = new Map();
  for (const [group, { order }] of asked) {
    const { size } = data.groups[group];
    if (widths[group] < size) kept.set(group, highest(unpacked(order), widths[group]));
  }
  return { widths, kept, loss, counted };
}

function highest(order, count) {
  return [...order.slice(order.length - count)].sort((a, b) => a - b);
}

// report/explorer.py: packed
function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer, 1), each = bytes[0];
  return Array.from({ length: view.byteLength / each }, (_, index) =>
    each === 2 ? view.getUint16(index * 2, true) : view.getUint32(index * 4, true));
}

// pruning/plans.py: to_json, with the same characters.
function planText(data, { widths, kept }) {
  const full = data.groups.map((group) => group.size);
  const numbers = data.numbers
    .map(([path, [fixed, shares]]) => [path, sizeUnder(fixed, shares, widths), sizeUnder(fixed, shares, full)])
    .filter(([, now, before]) => now !== before)
    .map(([path, now]) => `${quoted(path)}: ${now}`);
  const rows = [...kept].sort(([a], [b]) => a - b).map(([place, keep]) => {
    const { name, size, exact, touches } = data.groups[place];
    return `  ${quoted(name)}: {"channels": ${size}, "keep": [${keep.join(", ")}], ` +
      `"exact": ${exact}, "touches": ${touches}}`;
  });
  return `${data.plan}{${numbers.join(", ")}},\n "groups": {\n${rows.join(",\n")}\n }\n}\n`;
}

function quoted(text) {
  return JSON.stringify(text).replace(/[\u007f-\uffff]/g, (character) =>
    "\\u" + character.charCodeAt(0).toString(16).padStart(4, "0"));
}

"use strict";
// The plan explorer. `data` is report/explorer.py's Explorer; all else follows from it, offline.
// Widths are arrays with a number for every group of the network, in the order of `data.groups`.

const MAX_DROP = "max_drop";

// Halves go to the even neighbour, as Python rounds.
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

// The exact cost of a network of these widths: whole numbers, summed without rounding.
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

// sensitivity/curves.py: `ratios` by the monotone rule, and the loss that the curve tells there.
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

// The cost as a polynomial of the widths that are free; a third width in a product counts as if
// it stayed whole, so the true cost is never above.
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

// A choice of one option for every free group; cost and loss follow every change.
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

  // What group i costs at a width, the others being as they are.
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

  // For a price of cost in loss: every group takes what is best for it, until none wants to move.
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

  // Narrow, where the least loss is paid for what is spared, until the limit is met.
  narrow(limit, except = -1) {
    while (this.cost > limit) {
      let best = null, least = Infinity;
      this.options.forEach((rows, i) => {
        if (i === except) return;
        for (let k = this.at[i] + 1; k < rows.length; k++) {
          const spared = Math.min(-this.change(i, k), this.cost - limit);
          const value = (rows[k][1] - rows[this.at[i]][1]) / spared;
          if (spared > 0 && value < least) [best, least] = [[i, k], value];
        }
      });
      if (!best) return false;
      this.set(...best);
    }
    return true;
  }

  // Widen whatever gains most within the limit.
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

  // Force one group to another width and let the others follow; keep what loses less.
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

// Widths of little loss, added up, within a limit. Prices of cost are tried by bisection; what comes
// of each is repaired, and the best are improved group by group for so many rounds. Not proven least.
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

// pruning/make_plan.py: the first layer that asks for a group decides. Returns, in the order of the
// network, what stays of every group that is narrowed, and the widths of all groups.
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
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer, 1), each = bytes[0];
  return Array.from({ length: view.byteLength / each }, (_, index) =>
    each === 2 ? view.getUint16(index * 2, true) : view.getUint32(index * 4, true));
}

// pruning/plans.py: to_json, to the letter.
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
  return JSON.stringify(text).replace(/[\u007f-\uffff]/g, (letter) =>
    "\\u" + letter.charCodeAt(0).toString(16).padStart(4, "0"));
}

// ==== The page ====

const ROUNDS = 2, SETTLED_MS = 80;

function start() {
  const at = (name) => document.getElementById(`explorer-${name}`);
  const data = JSON.parse(at("data").textContent);
  const full = data.groups.map((group) => group.size);
  const dense = data.quantities.map((_, place) => priceOf(data, place, full));
  const scales = [...document.querySelectorAll("[data-divisor]")].map((tile) => tile.dataset);
  const floors = data.quantities.map((_, place) => {
    const { floor } = solve(data, place, 0, 0);
    return floor === undefined ? 1 : floor / dense[place];
  });
  const worst = Math.max(...data.layers.flatMap((layer) => layer.spots.map((spot) => spot.loss)));
  const state = { mode: MAX_DROP, value: 0.05 };
  const kept = {}; // the value of every mode, for when it is chosen again
  let stops = [], waiting = 0;

  const isDrop = () => state.mode === MAX_DROP;
  const placeOf = (mode) => data.quantities.findIndex(({ key }) => key === mode);

  // A step is finer where little is at stake.
  function dropStops() {
    const all = [];
    for (let per = 0; per <= 1000; per += per < 100 ? 2 : per < 300 ? 10 : 50) all.push(per / 1000);
    const last = all.findIndex((value) => value >= worst);
    return last < 0 ? all : all.slice(0, Math.max(last, 1) + 1);
  }

  function budgetStops(place) {
    const all = [];
    for (let per = Math.ceil(floors[place] * 200); per < 200; per++) all.push(per / 200);
    return all.length ? all : [0.995];
  }

  function choose(mode, value) {
    kept[state.mode] = state.value;
    state.mode = mode;
    stops = isDrop() ? dropStops() : budgetStops(placeOf(mode));
    const usual = kept[mode] ?? (isDrop() ? 0.05 : 0.5);
    const given = Number.isFinite(value) ? value : Math.max(usual, isDrop() ? 0 : stops[0]);
    // A budget of 1 is one multiply-add, so the whole is not among the shares.
    state.value = Math.min(Math.max(given, isDrop() ? 0 : 0.001), isDrop() ? 1 : 0.999);
    document.querySelectorAll("input[name=explorer-mode]").forEach((radio) => {
      radio.checked = radio.value === mode;
    });
    at("slider").max = stops.length - 1;
  }

  function nearest() {
    return stops.reduce((best, stop, index) =>
      Math.abs(stop - state.value) < Math.abs(stops[best] - state.value) ? index : best, 0);
  }

  const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
  const short = (number) => String(Number(number.toPrecision(12)));
  const metric = (value) => at("app").dataset.fraction ? percent(value) : short(Number(value.toPrecision(4)));

  function amount(value, place) {
    const { divisor, symbol } = scales[place];
    return `${(value / divisor).toLocaleString("en", { maximumSignificantDigits: 3 })} ${symbol}`;
  }

  function update(rounds) {
    const place = placeOf(state.mode);
    const limit = isDrop() ? 0 : state.value * dense[place];
    const found = isDrop() ? { cuts: cutsAtDrop(data, state.value) } : solve(data, place, limit, rounds);
    const plan = planOf(data, found.cuts);
    const costs = data.quantities.map((_, index) => priceOf(data, index, plan.widths));
    tellControls(place, found, plan);
    tellOutcome(plan, costs);
    tellLayers(plan);
    tellCurves(plan);
    tellTexts(plan, found);
  }

  function tellControls(place, found, plan) {
    const slider = at("slider"), share = percent(state.value, state.value < 0.1 ? 2 : 1);
    slider.value = nearest();
    const what = isDrop() ? `max drop ${share}` : `${data.quantities[place].label} ${share} of dense`;
    slider.setAttribute("aria-valuetext", what);
    if (document.activeElement !== at("number")) at("number").value = short(100 * state.value);
    at("unit").textContent = isDrop() ? "% of the metric, for each layer" :
      `% of dense: ${amount(state.value * dense[place], place)}`;
    at("drop-words").hidden = !isDrop();
    at("budget-words").hidden = isDrop();
    at("says").textContent = says(place, found, plan);
  }

  function says(place, found, plan) {
    if (found.floor !== undefined) {
      return `Not reached: with every layer as narrow as its largest measured ratio, ${percent(floors[place])} ` +
        `of ${data.quantities[place].label} is left. Give more, or scan larger ratios or more layers.`;
    }
    if (!plan.kept.size) return "No cut: none of the measured ones is allowed by this limit.";
    const channels = (widths) => [...plan.kept.keys()].reduce((sum, group) => sum + widths[group], 0);
    const layers = `${plan.kept.size} of ${data.groups.length} groups of channels narrowed`;
    return `${layers}; ${channels(plan.widths).toLocaleString("en")} of their ` +
      `${channels(full).toLocaleString("en")} channels stay.`;
  }

  function tellOutcome(plan, costs) {
    const value = data.baseline * Math.max(1 - plan.loss, 0);
    at("metric").textContent = metric(value);
    at("metric").dataset.exact = value;
    at("metric").dataset.loss = plan.loss;
    at("metric-change").textContent = plan.loss < 1 ? `${metric(data.baseline)} less ${percent(plan.loss)} of it` :
      `the losses add up to more than all ${metric(data.baseline)}`;
    at("metric-bar").setAttribute("width", percent(value / data.baseline, 2).replace(" ", ""));
    costs.forEach((cost, place) => {
      const { key } = data.quantities[place], share = cost / dense[place];
      at(key).textContent = amount(cost, place);
      at(key).dataset.exact = cost;
      at(key).title = cost.toLocaleString("en");
      at(`${key}-change`).textContent = `${percent(share)} of ${amount(dense[place], place)}`;
      at(`${key}-bar`).setAttribute("width", percent(share, 2).replace(" ", ""));
    });
  }

  function tellLayers(plan) {
    const cuts = new Map(plan.counted.map((cut) => [cut.layer, cut]));
    document.querySelectorAll("#explorer-layers tbody tr").forEach((row, index) => {
      const groups = data.layers[index].orders.map(([group]) => group), cut = cuts.get(index);
      const sum = (widths) => groups.reduce((total, group) => total + widths[group], 0);
      const share = sum(plan.widths) / sum(full);
      row.querySelector(".after").setAttribute("width", percent(share, 2).replace(" ", ""));
      row.querySelector(".arrow").textContent = sum(plan.widths);
      row.querySelector(".kept").textContent = percent(share, 0);
      row.querySelector(".lost").textContent = cut ? percent(cut.loss) : share < 1 ? "shared" : "";
      row.classList.toggle("whole", share === 1);
    });
  }

  function tellCurves(plan) {
    const cuts = new Map(plan.counted.map((cut) => [cut.layer, cut]));
    document.querySelectorAll(".multiples svg").forEach((svg, index) => {
      const { left, right, top, bottom, low, high } = svg.dataset;
      const across = (ratio) => Number(left) + (right - left) * ratio;
      const up = (value) => bottom - (bottom - top) * (value - low) / (high - low);
      const dot = svg.querySelector(".chosen"), cut = cuts.get(index);
      dot.setAttribute("r", cut ? 4 : 0);
      dot.setAttribute("cx", across(cut ? cut.ratio : 0));
      dot.setAttribute("cy", up(data.baseline * (1 - (cut ? cut.loss : 0))));
      const height = Math.min(up(data.baseline * (1 - state.value)), Number(bottom));
      const line = svg.querySelector(".limit");
      line.setAttribute("y1", height);
      line.setAttribute("y2", height);
      line.style.display = isDrop() ? "" : "none";
    });
  }

  function tellTexts(plan, found) {
    const none = !plan.kept.size, value = short(state.value);
    const [option, python] = isDrop() ? [`--max-drop ${value}`, `max_drop=${value}`] :
      [`--budget ${state.mode}=${value}`, `budget=fw.Budget(${state.mode}=${value})`];
    const text = data.command ? `${data.command} ${option}` : `plan = curves.plan(${python})`;
    at("command").textContent = none ? "" : text;
    at("ratios").textContent = none || isDrop() || !data.ratios_command ? "" : ratiosText(found.cuts);
    at("plan").textContent = none ? "" : planText(data, plan);
    document.querySelectorAll("#explorer button").forEach((button) => { button.disabled = none; });
    at("exactly").hidden = at("ratios").textContent === "";
  }

  // The shortest ratios that round to the same widths.
  function ratiosText(cuts) {
    const ratios = cuts.map(({ layer, ratio }) => {
      const { size } = data.groups[data.layers[layer].orders[0][0]];
      const stays = keptCount(size, ratio, data.round_to);
      for (let digits = 2; digits < 9; digits++) {
        const shorter = Number(ratio.toFixed(digits));
        if (shorter > 0 && shorter < 1 && keptCount(size, shorter, data.round_to) === stays) return shorter;
      }
      return ratio;
    });
    const names = cuts.map(({ layer }) => data.layers[layer].name);
    return `${data.ratios_command} --pruned-params ${inQuotes(names.join(","))} --pruned-ratios "${ratios.join(" ")}"`;
  }

  function inQuotes(text) {
    return /^[\w.,/-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\"'\"'")}'`;
  }

  function moved(soon) {
    window.clearTimeout(waiting);
    const address = `#mode=${state.mode}&value=${short(state.value)}`;
    if (soon) {
      update(0);
      waiting = window.setTimeout(() => { history.replaceState(null, "", address); update(ROUNDS); }, SETTLED_MS);
    } else update(ROUNDS);
  }

  function fromAddress() {
    const asked = new URLSearchParams(window.location.hash.slice(1)), mode = asked.get("mode");
    if (mode !== MAX_DROP && placeOf(mode) < 0) return false;
    choose(mode, Number.parseFloat(asked.get("value")));
    return true;
  }

  async function copy(button) {
    const source = at(button.dataset.copies), before = button.textContent;
    try {
      await navigator.clipboard.writeText(source.textContent);
    } catch {
      window.getSelection().selectAllChildren(source);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    window.setTimeout(() => { button.textContent = before; }, 1500);
  }

  function save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([at("plan").textContent], { type: "application/json" }));
    link.download = "plan.json";
    link.click();
    URL.revokeObjectURL(link.href);
  }

  document.querySelectorAll("input[name=explorer-mode]").forEach((radio) => {
    radio.addEventListener("change", () => { choose(radio.value); moved(true); });
  });
  at("slider").addEventListener("input", () => { state.value = stops[at("slider").value]; moved(true); });
  at("number").addEventListener("input", () => {
    const given = at("number").valueAsNumber / 100;
    if (Number.isFinite(given)) { choose(state.mode, given); moved(true); }
  });
  at("number").addEventListener("blur", () => { at("number").value = short(100 * state.value); });
  document.querySelectorAll("#explorer [data-copies]").forEach((button) => {
    button.addEventListener("click", () => copy(button));
  });
  at("save").addEventListener("click", save);
  window.addEventListener("hashchange", () => { if (fromAddress()) moved(false); });
  if (!fromAddress()) choose(MAX_DROP, Number.NaN);
  at("app").hidden = false;
  moved(false);
}

start();

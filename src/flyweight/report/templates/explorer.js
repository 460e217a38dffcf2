// Controls and displays of the plan explorer. Follows solving.js in one script.

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
  const kept = {}; // the last value of every mode, used when the mode is selected again
  let stops = [], waiting = 0;

  const isDrop = () => state.mode === MAX_DROP;
  const placeOf = (mode) => data.quantities.findIndex(({ key }) => key === mode);

  // Steps are finer where the drop is small.
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
    // A share must be below 1: from 1 on, a budget is not a share.
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
    showControls(place, found, plan);
    showResult(plan, costs);
    showLayers(plan);
    showCurves(plan);
    showTexts(plan, found);
  }

  function showControls(place, found, plan) {
    const slider = at("slider"), share = percent(state.value, state.value < 0.1 ? 2 : 1);
    slider.value = nearest();
    const what = isDrop() ? `max drop ${share}` : `${data.quantities[place].label} ${share} of dense`;
    slider.setAttribute("aria-valuetext", what);
    if (document.activeElement !== at("number")) at("number").value = short(100 * state.value);
    at("unit").textContent = isDrop() ? "% of the metric, for each layer" :
      `% of dense: ${amount(state.value * dense[place], place)}`;
    at("drop-words").hidden = !isDrop();
    at("budget-words").hidden = isDrop();
    at("says").textContent = statusText(place, found, plan);
  }

  function statusText(place, found, plan) {
    if (found.floor !== undefined) {
      return `Not reached: with every layer as narrow as its largest measured ratio, ${percent(floors[place])} ` +
        `of ${data.quantities[place].label} remains. Raise the limit, or scan larger ratios or more layers.`;
    }
    if (!plan.kept.size) return "No cut: this limit allows none of the measured ratios.";
    const channels = (widths) => [...plan.kept.keys()].reduce((sum, group) => sum + widths[group], 0);
    const layers = `${plan.kept.size} of ${data.groups.length} groups of channels narrowed`;
    return `${layers}; ${channels(plan.widths).toLocaleString("en")} of their ` +
      `${channels(full).toLocaleString("en")} channels are kept.`;
  }

  function showResult(plan, costs) {
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

  function showLayers(plan) {
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

  function showCurves(plan) {
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

  function showTexts(plan, found) {
    const none = !plan.kept.size, value = short(state.value);
    const [option, python] = isDrop() ? [`--max-drop ${value}`, `max_drop=${value}`] :
      [`--budget ${state.mode}=${value}`, `budget=fw.Budget(${state.mode}=${value})`];
    const more = isDrop() ? "" : data.quantities[placeOf(state.mode)].option;
    const text = data.command ? `${data.command} ${option}${more && ` ${more}`}` : `plan = curves.plan(${python})`;
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

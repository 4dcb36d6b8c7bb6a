// The browser of samples: the responses of a step, or all those to a prompt side by side.
"use strict";
(() => {
  const { data, el, load, number, on, section, tokens, tokenLegend, tokenScale, tokenWays } = rlkit;
  let given = data.samples;
  if (!given) return;
  const PAGE = 40; // responses shown at a time
  const STEPS = 4; // steps of a prompt shown at a time
  const PREVIEW = 220; // characters of a response in a list

  const view = {
    step: given.last, prompt: null, query: "", source: "all", finish: "all", low: "", high: "", age: "",
    advantage: "all", sort: "group", shown: PAGE, way: "ratio", pass: "first", whole: false, history: STEPS,
  };
  const sizes = new Map(), legends = new Map();
  const open = new Set(); // rows whose whole text is shown, as "step/row"
  let index = given.index;
  let body, controls, output, bar;

  // ---- data: what is in the page, and what lies beside it

  async function stepOf(step, whole = false) {
    const own = given.steps[step];
    if (own && !whole) return own;
    try {
      return await load(`samples-step-${step}`);
    } catch (error) {
      if (own) return { ...own, failed: error.message };
      throw error;
    }
  }

  async function tokensOf(step, row) {
    const own = given.tokens[step];
    if (own?.rows[row]) return own;
    return load(`samples-tokens-${step}`);
  }

  // ---- small pieces

  function button(words, then, className = "") {
    const made = el("button", className, words);
    made.type = "button";
    made.addEventListener("click", then);
    return made;
  }

  function select(label, options, value, then) {
    const made = el("select", "");
    for (const [key, words] of options) {
      const option = el("option", "", words);
      option.value = key;
      made.append(option);
    }
    made.value = value;
    made.addEventListener("change", () => then(made.value));
    return el("label", "", label, made);
  }

  function field(label, key, type, width) {
    const made = el("input", "");
    made.type = type;
    made.value = view[key];
    if (type === "number") made.step = "any";
    made.style.width = width;
    made.addEventListener("input", () => {
      view[key] = made.value;
      view.shown = PAGE;
      show();
    });
    return el("label", "", label, made);
  }

  const chip = (words, kind = "") => el("span", `chip ${kind}`, words);
  const signed = (value) => (value > 0 ? `+${number(value)}` : number(value));
  const stepsOld = (age) => (age === 0 ? "of this step" : age === 1 ? "1 step old" : `${number(age)} steps old`);
  const sourceOf = (row) => (row.source !== "policy" ? row.source : row.replayed ? "replayed" : "fresh");

  /** A text, or what is left of a long one with a note; or the turns of a chat. */
  function model(text, role) {
    if (Array.isArray(text) && (text.length === 0 || typeof text[0] === "object"))
      return el("div", "turns", ...text.map((turn) => model(turn.text, turn.role || "message")));
    const parts = Array.isArray(text)
      ? [text[0], el("span", "cut", ` … ${text[1].toLocaleString("en")} characters left out … `), text[2]]
      : [text];
    const words = el("div", "model-text", ...parts);
    return role ? el("div", `turn turn-${/^[a-z]+$/.test(role) ? role : "other"}`, el("div", "role", role), words) : words;
  }

  const plain = (text) => (Array.isArray(text) ? text.map((t) => (typeof t === "object" ? plain(t.text) : t)).join(" ") : String(text));
  const isChat = (prompt) => Array.isArray(prompt) && typeof prompt[0] === "object";

  function chips(row, listed = false) {
    const parts = Object.entries(row.parts);
    const one = parts.length === 1 && parts[0][1] === row.reward;
    return el(
      "span", "chips",
      chip(`reward ${number(row.reward)}`, row.reward > 0 ? "good" : "bad"),
      ...(one ? [] : parts.map(([name, value]) => chip(`${name} ${number(value)}`))),
      row.advantage === null ? null : chip(`advantage ${signed(row.advantage)}`),
      chip(sourceOf(row)),
      row.age === 0 && !row.replayed ? null : chip(stepsOld(row.age)),
      row.made === null || row.made === undefined || row.age === 0 ? null : chip(`made in step ${row.made}`),
      row.length ? chip(`${number(row.length)} tokens`) : null,
      row.finish === "stop" ? null : chip(`ended by ${row.finish}`, "warn"),
      listed && row.tokens ? chip("token detail", "mark") : null,
    );
  }

  // ---- a response

  /** The text of a response, or its tokens where they were kept. */
  function answer(payload, row, role) {
    if (!row.tokens) return model(row.text, role);
    const place = el("div", "answer", model(row.text, role));
    tokensOf(payload.step, row.row).then(
      (found) => {
        const record = found.rows[row.row];
        if (!record) return;
        const records = Object.values(found.rows);
        const size = sizeOf(payload.step, records);
        const skipped = record.skipped ? el("p", "note", "This update was not finite and was skipped.") : null;
        place.replaceChildren(
          el("div", role ? "turn turn-assistant" : "turn", role ? el("div", "role", role) : null, tokens(record, view, size, payload.step)),
          ...(skipped ? [skipped] : []),
        );
        legendNow(payload.step, size, records.some((r) => r.passes > 1));
      },
      (error) => place.append(el("p", "note", `Its tokens cannot be shown: ${error.message}`)),
    );
    return place;
  }

  /** The size that gets the full color: one for all of a step, since there is one legend. */
  function sizeOf(step, records) {
    const key = `${step} ${view.way} ${view.pass}`;
    if (!sizes.has(key)) sizes.set(key, tokenScale(records, view, step));
    return sizes.get(key);
  }

  function legendNow(step, size, passes) {
    bar.hidden = false;
    bar.querySelector(".pass").hidden = !passes;
    legends.get(step)?.replaceChildren(tokenLegend(view, size));
  }

  /** Where the legend of a step will be. */
  function legendOf(step) {
    legends.set(step, el("div", ""));
    return legends.get(step);
  }

  function tokenBar(...legend) {
    const ways = Object.entries(tokenWays).map(([key, way]) => [key, way.title]);
    const change = (key) => (value) => {
      view[key] = value;
      show();
    };
    const pass = select("in the", [["first", "first pass"], ["last", "last pass"]], view.pass, change("pass"));
    pass.classList.add("pass");
    pass.hidden = true;
    bar = el("div", "token-bar", select("Color tokens by", ways, view.way, change("way")), pass, ...legend);
    bar.hidden = true;
    return bar;
  }

  // ---- the responses of a step

  const between = (value, low, high) =>
    (low === "" || value >= Number(low)) && (high === "" || value <= Number(high));

  function matches(row, payload) {
    const query = view.query.trim().toLowerCase();
    const texts = () => [row.prompt, plain(payload.prompts[row.prompt] ?? ""), plain(row.text)].join("\n").toLowerCase();
    return (
      (view.source === "all" || sourceOf(row) === view.source) &&
      (view.finish === "all" || row.finish === view.finish) &&
      (view.advantage === "all" || Math.sign(row.advantage ?? 0) === Number(view.advantage)) &&
      between(row.reward, view.low, view.high) &&
      between(row.age, view.age, "") &&
      (query === "" || texts().includes(query))
    );
  }

  const SORTS = {
    group: ["group", (a, b) => a.group - b.group || a.row - b.row],
    best: ["highest reward", (a, b) => b.reward - a.reward],
    worst: ["lowest reward", (a, b) => a.reward - b.reward],
    up: ["highest advantage", (a, b) => (b.advantage ?? 0) - (a.advantage ?? 0)],
    down: ["lowest advantage", (a, b) => (a.advantage ?? 0) - (b.advantage ?? 0)],
    old: ["oldest", (a, b) => b.age - a.age],
    long: ["longest", (a, b) => (b.length ?? 0) - (a.length ?? 0)],
    tokens: ["with tokens", (a, b) => b.tokens - a.tokens],
  };

  function listed(payload, row) {
    const key = `${payload.step}/${row.row}`;
    const prompt = payload.prompts[row.prompt];
    const beside = view.sort === "group" ? null : button("side by side", () => toGroup(row.prompt, payload.step), "link");
    const head = el("div", "row-head", chips(row, true), beside);
    const preview = button("", () => (open.has(key) ? open.delete(key) : open.add(key), show()), "preview");
    preview.setAttribute("aria-expanded", String(open.has(key)));
    preview.append(el("span", "model-text", plain(row.text).slice(0, PREVIEW)));
    const card = el("div", "card sample", head, preview);
    if (open.has(key)) {
      card.classList.add("open");
      card.append(prompt === undefined ? el("p", "note", "Its prompt was not kept.") : model(prompt, "prompt"));
      card.append(answer(payload, row, isChat(prompt) ? "assistant" : "response"));
    }
    return card;
  }

  function list(payload) {
    const rows = payload.rows.filter((row) => matches(row, payload)).sort(SORTS[view.sort][1]);
    const cards = [];
    let group = null;
    for (const row of rows.slice(0, view.shown)) {
      if (view.sort === "group" && row.group !== group) {
        group = row.group;
        cards.push(heading(payload, row, rows.filter((r) => r.group === group)));
      }
      cards.push(listed(payload, row));
    }
    const more = rows.length - view.shown;
    return [
      el("p", "note", `${rows.length} of ${payload.rows.length} responses of step ${payload.step}`),
      ...notes(payload),
      tokenBar(legendOf(payload.step)),
      ...cards,
      more > 0 ? button(`Show ${Math.min(more, PAGE)} more of ${more}`, () => ((view.shown += PAGE), show())) : null,
    ];
  }

  function heading(payload, row, rows) {
    const mean = rows.reduce((sum, r) => sum + (r.reward ?? 0), 0) / rows.length;
    const prompt = payload.prompts[row.prompt];
    const words = prompt === undefined ? row.prompt : plain(isChat(prompt) ? prompt[prompt.length - 1].text : prompt);
    const counted = el("span", "soft", `${rows.length} shown, mean reward ${number(mean)}`);
    return el("div", "group-head", el("span", "model-text", words.slice(0, PREVIEW)), counted, button("side by side", () => toGroup(row.prompt, payload.step), "link"));
  }

  function notes(payload) {
    const found = [];
    if (payload.failed) found.push(el("p", "note", `Only what is in this page can be shown: ${payload.failed}.`));
    else if (payload.partial) {
      const all = button("Load the whole step", () => ((view.whole = true), show()));
      found.push(el("p", "note", "A part of this step is in the page, its longer texts cut. ", all));
    }
    if (payload.more) found.push(el("p", "note", `${payload.more} more responses are in completions/step-${payload.step}.jsonl.`));
    return found;
  }

  // ---- the responses to a prompt

  function toGroup(prompt, step) {
    Object.assign(view, { prompt, step, whole: true, history: STEPS });
    show(true);
  }

  async function seen(prompt) {
    try {
      const found = (await load("samples-prompts")).prompts.find(([name]) => name === prompt);
      return found ? [...found[2]].reverse() : [view.step];
    } catch {
      return Object.keys(given.steps).map(Number).filter((step) => given.steps[step].prompts[prompt] !== undefined).reverse();
    }
  }

  async function group(prompt) {
    const steps = await seen(prompt);
    const from = Math.max(0, steps.indexOf(view.step));
    const chosen = steps.slice(from, from + view.history);
    const payloads = await Promise.all(chosen.map((step) => stepOf(step, true)));
    const words = payloads.map((p) => p.prompts[prompt]).find((found) => found !== undefined) ?? "";
    const later = from > 0 ? button(`Begin at step ${steps[0]}`, () => toGroup(prompt, steps[0]), "link") : null;
    const rest = steps.length - from - chosen.length;
    return [
      el("div", "row-head", button("← all responses of the step", back), el("span", "note", `seen in ${steps.length} ${steps.length === 1 ? "step" : "steps"} `), later),
      model(words, isChat(words) ? null : "prompt"),
      tokenBar(),
      ...payloads.flatMap((payload) => sideBySide(payload, prompt, isChat(words) ? "assistant" : null)),
      rest > 0 ? button(`Show ${Math.min(rest, STEPS)} earlier of ${rest} steps`, () => ((view.history += STEPS), show())) : null,
    ];
  }

  function sideBySide(payload, prompt, role) {
    const rows = payload.rows.filter((row) => row.prompt === prompt);
    const mean = rows.reduce((sum, row) => sum + (row.reward ?? 0), 0) / Math.max(1, rows.length);
    const cards = rows.map((row) => el("div", "card sample open", chips(row), answer(payload, row, role)));
    return [
      el("h3", "step-head", `Step ${payload.step}: ${rows.length} responses, mean reward ${number(mean)}`),
      ...notes({ ...payload, more: 0 }),
      legendOf(payload.step),
      el("div", "side-by-side", ...cards),
    ];
  }

  function back() {
    view.prompt = null;
    show(true);
  }

  // ---- controls

  function steps() {
    const known = index ?? { steps: Object.keys(given.steps).map(Number) };
    return known.steps.map((step, i) => {
      const parts = [`step ${step}`];
      if (known.reward) parts.push(`reward ${number(known.reward[i])}`);
      if (known.replayed?.[i]) parts.push(`${known.replayed[i]} replayed`);
      return [String(step), parts.join(" · ")];
    });
  }

  function go(step) {
    Object.assign(view, { step: Number(step), prompt: null, shown: PAGE, whole: false });
    show(true);
  }

  function stepper() {
    const options = steps();
    const at = () => options.findIndex(([step]) => Number(step) === view.step);
    const move = (by) => () => options[at() + by] && go(options[at() + by][0]);
    const earlier = button("◀", move(-1));
    const later = button("▶", move(1));
    earlier.setAttribute("aria-label", "the step before");
    later.setAttribute("aria-label", "the step after");
    const picks = given.picks.map(({ title, step, prompt }) =>
      button(`${title} (step ${step})`, () => (toGroup(prompt, step), show())));
    const step = select("", options, String(view.step), go);
    step.querySelector("select").setAttribute("aria-label", "step");
    return el("div", "sample-controls", el("div", "stepper", earlier, step, later), ...picks, button("Find a prompt", () => show(true, true)));
  }

  function filters() {
    const pick = (key) => (value) => {
      view[key] = value;
      view.shown = PAGE;
      show();
    };
    return el(
      "div", "sample-controls",
      field("Text", "query", "search", "8rem"),
      select("Source", [["all", "all"], ["fresh", "fresh"], ["replayed", "replayed"], ["expert", "expert"], ["draft", "draft"]], view.source, pick("source")),
      field("Reward from", "low", "number", "4rem"),
      field("to", "high", "number", "4rem"),
      field("Age from", "age", "number", "3.5rem"),
      select("Advantage", [["all", "all"], ["1", "above 0"], ["-1", "below 0"], ["0", "0"]], view.advantage, pick("advantage")),
      select("Ended by", [["all", "all"], ["stop", "stop"], ["length", "length"]], view.finish, pick("finish")),
      select("Sort by", Object.entries(SORTS).map(([key, [words]]) => [key, words]), view.sort, pick("sort")),
    );
  }

  async function prompts() {
    const found = (await load("samples-prompts")).prompts;
    const query = el("input", "");
    query.type = "search";
    query.placeholder = "part of a prompt or its id";
    query.setAttribute("aria-label", query.placeholder);
    const hits = el("div", "prompt-list");
    const fill = () => {
      const wanted = query.value.trim().toLowerCase();
      const chosen = found.filter(([name, words]) => `${name}\n${words}`.toLowerCase().includes(wanted));
      const by = chosen.sort((a, b) => b[2].length - a[2].length).slice(0, 100);
      hits.replaceChildren(
        el("p", "note", `${chosen.length} prompts, the ${by.length} most often trained:`),
        ...by.map(([name, words, at, rewards]) => {
          const hit = button("", () => toGroup(name, at[at.length - 1]), "preview");
          const times = `${at.length} ${at.length === 1 ? "step" : "steps"}, reward ${number(rewards[0])} → ${number(rewards[rewards.length - 1])}`;
          hit.append(el("span", "model-text", words), " ", el("span", "soft", times));
          return hit;
        }),
      );
    };
    query.addEventListener("input", fill);
    fill();
    return [el("div", "row-head", button("← all responses of the step", back), query), hits];
  }

  // ---- drawing

  let turn = 0;

  async function show(anew = false, finding = false) {
    const mine = ++turn;
    if (anew) controls.replaceChildren(stepper(), view.prompt === null && !finding ? filters() : "");
    let found;
    try {
      if (finding) found = await prompts();
      else if (view.prompt !== null) found = await group(view.prompt);
      else found = list(await stepOf(view.step, view.whole));
    } catch (error) {
      found = [el("p", "failed", error.message), view.prompt === null ? null : button("← back", back)];
    }
    body.style.setProperty("--head", `${document.querySelector(".switches")?.offsetHeight ?? 0}px`);
    if (mine === turn) output.replaceChildren(...found.filter((each) => each));
  }

  /** Know the steps that were trained since; what is shown of the others stays as it is. */
  async function grow() {
    given = data.samples;
    index = given.index ?? (await load("samples-index"));
    controls.querySelector(".sample-controls")?.replaceWith(stepper());
  }

  on((name) => name === "data" && controls && grow().catch(() => {}));

  function render(place) {
    body = place;
    controls = el("div", "");
    output = el("div", "sample-list");
    body.classList.add("samples");
    body.append(controls, output);
    show(true);
    if (!index)
      load("samples-index").then((found) => {
        index = found;
        show(true);
      }, () => {});
  }

  section({ id: "samples", title: "Samples", order: 55, render });
})();

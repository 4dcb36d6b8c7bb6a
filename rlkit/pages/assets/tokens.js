// The tokens of a response, colored by what the trainer used of them.
// rlkit.tokens(record, choice, scale) makes the element; rlkit.tokenLegend(...) says what colors mean.
"use strict";
(() => {
  const { el, number } = rlkit;
  const QUANTILE = 0.98; // of the sizes shown, which has the full color
  const FLOOR = 1e-3; // no smaller size gets it
  const NOISE = 0.01; // nor a smaller log-ratio: rounding should not look like a change

  /** A column at a token: a list, one value for all tokens, or undefined. */
  const at = (column, i) => (Array.isArray(column) ? column[i] : column);
  const last = (record, pass) => pass === "last" && record.passes > 1;
  const logp = (record, pass) => (last(record, pass) ? record.lastLogp : record.logp);
  const ratio = (record, pass) => (last(record, pass) ? record.lastRatio : record.ratio);
  const clipped = (record, pass) => (last(record, pass) ? record.lastClipped : record.clipped);
  const difference = (a, b) => (Number.isFinite(a) && Number.isFinite(b) ? a - b : undefined);
  const change = (record, i, pass) => difference(at(logp(record, pass), i), at(record.behavior, i));
  const isMasked = (record, i) => !at(record.mask, i);

  /** Each way to color: a value per token, of either sign or only positive, and its two ends in words. */
  const WAYS = {
    ratio: {
      title: "ratio",
      value: (r, i, pass) => (at(ratio(r, pass), i) > 0 ? Math.log(at(ratio(r, pass), i)) : undefined),
      ends: (size) => [number(Math.exp(-size)), "1", number(Math.exp(size))],
      floor: NOISE,
      about: "the probability ratio as the loss sees it",
    },
    change: {
      title: "log-prob change",
      value: change,
      ends: (size) => [`−${number(size)}`, "0", `+${number(size)}`],
      floor: NOISE,
      about: "log-prob less that of the policy that sampled the token, in nats",
    },
    clipped: {
      title: "clipped",
      value: (r, i, pass) => at(clipped(r, pass), i),
      ends: () => [null, "no", "clipped"],
      about: "where the loss cuts the gradient",
    },
    advantage: {
      title: "advantage",
      value: (r, i) => at(r.adv, i),
      ends: (size) => [`−${number(size)}`, "0", `+${number(size)}`],
      about: "what the loss weighs the token with",
    },
    mask: {
      title: "loss mask",
      value: (r, i) => (isMasked(r, i) ? 1 : 0),
      ends: () => [null, "trained", "not trained"],
      about: "tokens that are not the policy's own are not trained",
    },
    version: {
      title: "version",
      value: (r, i, pass, step) => difference(step, at(r.version, i)),
      ends: (size) => [null, "this step's weights", `weights ${number(size)} steps old`],
      about: "how old the weights are that sampled the token",
    },
  };

  /** The size that gets the full color among some records of a step. */
  function scaleOf(records, { way, pass }, step) {
    if (way === "clipped" || way === "mask") return 1;
    const sizes = [];
    for (const record of records)
      record.pieces.forEach((_, i) => {
        const value = WAYS[way].value(record, i, pass, step);
        if (Number.isFinite(value) && !isMasked(record, i)) sizes.push(Math.abs(value));
      });
    sizes.sort((a, b) => a - b);
    return Math.max(WAYS[way].floor ?? FLOOR, sizes[Math.floor(QUANTILE * (sizes.length - 1))] ?? 0);
  }

  /** The color of a value: one hue below 0 and one above, stronger the farther off. */
  function shade(value, size) {
    if (!Number.isFinite(value) || value === 0) return "";
    const share = Math.min(1, Math.abs(value) / size);
    return `color-mix(in srgb, var(--ramp${value < 0 ? 0 : 1}) ${Math.round(70 * share)}%, transparent)`;
  }

  function legend(choice, size) {
    const way = WAYS[choice.way];
    const [low, middle, high] = way.ends(size);
    const swatch = (value, words) => {
      const box = el("span", "token-swatch");
      box.style.backgroundColor = shade(value, 1);
      return el("span", "token-key", box, words);
    };
    const keys = [
      low === null ? null : swatch(-1, low),
      low === null ? null : swatch(-0.5, ""),
      swatch(0, middle),
      low === null ? null : swatch(0.5, ""),
      swatch(1, high),
    ];
    return el("div", "token-legend", ...keys, el("span", "soft", way.about));
  }

  /** What is known of a token, as lines of name and value. */
  function facts(record, i, place) {
    const rows = [
      ["token", `${place + 1} of ${record.count}, id ${record.ids[i]}`],
      ["text", JSON.stringify(record.pieces[i])],
      ["log-prob", number(at(record.logp, i))],
      ["sampled with", number(at(record.behavior, i))],
      ["change", number(change(record, i, "first"))],
      ["start of the step", number(at(record.prox, i))],
      ["ratio", number(at(record.ratio, i))],
      ["clipped", record.clipped === undefined ? "–" : at(record.clipped, i) ? "yes" : "no"],
    ];
    if (record.passes > 1)
      rows.push(
        ["log-prob, last pass", number(at(record.lastLogp, i))],
        ["ratio, last pass", number(at(record.lastRatio, i))],
        ["clipped, last pass", record.lastClipped === undefined ? "–" : at(record.lastClipped, i) ? "yes" : "no"],
      );
    rows.push(
      ["advantage", number(at(record.adv, i))],
      ["version", `weights of step ${at(record.version, i)}`],
      ["trained", isMasked(record, i) ? "no" : "yes"],
    );
    return rows;
  }

  let tip = null;

  function hide() {
    tip?.remove();
    tip = null;
  }

  function show(span, record) {
    hide();
    const i = Number(span.dataset.i);
    const lines = facts(record, i, Number(span.dataset.place)).flatMap(([name, value]) => [
      el("dt", "", name),
      el("dd", "", value),
    ]);
    tip = el("dl", "token-tip", ...lines);
    tip.setAttribute("role", "tooltip");
    document.body.append(tip);
    const box = span.getClientRects()[0] ?? span.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = tip;
    const below = box.bottom + 6 + height < innerHeight || box.top < height + 6;
    tip.style.left = `${Math.max(6, Math.min(box.left, innerWidth - width - 6))}px`;
    tip.style.top = `${below ? Math.min(box.bottom + 6, innerHeight - height - 6) : box.top - height - 6}px`;
  }

  addEventListener("scroll", hide, { passive: true });
  addEventListener("keydown", (event) => event.key === "Escape" && hide());
  addEventListener("pointerdown", (event) => event.target.closest?.(".token") || hide());

  /** The element of a response's tokens; `choice` is {way, pass}. */
  function tokens(record, choice, size, step) {
    const whole = el("div", "tokens model-text");
    const [head, leftOut] = record.left_out;
    record.pieces.forEach((piece, i) => {
      if (leftOut > 0 && i === head) whole.append(el("span", "cut", ` … ${leftOut.toLocaleString("en")} tokens left out … `));
      const span = el("span", piece === "" ? "token empty" : "token", piece === "" ? "·" : piece);
      span.dataset.i = i;
      span.dataset.place = leftOut > 0 && i >= head ? i + leftOut : i;
      if (isMasked(record, i)) span.classList.add("masked");
      span.style.backgroundColor = shade(WAYS[choice.way].value(record, i, choice.pass, step), size);
      whole.append(span);
    });
    const over = (event) => {
      const span = event.target.closest(".token");
      if (span) show(span, record);
      else hide();
    };
    whole.addEventListener("pointerover", over);
    whole.addEventListener("click", over);
    whole.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide());
    return whole;
  }

  Object.assign(rlkit, { tokens, tokenLegend: legend, tokenScale: scaleOf, tokenWays: WAYS });
})();

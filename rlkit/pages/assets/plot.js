// Line plots on uPlot, in the colors and with the switches of the page: rlkit.plot(element, options).
"use strict";
(() => {
  const { color, el, number, on, state, text, visible } = rlkit;
  const COLORS = 8;
  const present = (value) => value !== null && value !== undefined;
  const last = (values) => values.findLast(present);

  /** Exponential moving average, corrected for its start; gaps stay gaps. */
  function smoothed(y, weight) {
    if (!weight) return y;
    let sum = 0;
    let mass = 0;
    return y.map((value) => {
      if (value === null || value === undefined) return value;
      sum = weight * sum + (1 - weight) * value;
      mass = weight * mass + (1 - weight);
      return sum / mass;
    });
  }

  /** The color of a series: of a ramp if it has a place on one, else the next of the palette. */
  const stroke = (series, i) =>
    series.ramp === undefined
      ? color(`c${i % COLORS}`)
      : `color-mix(in oklab, ${color("ramp1")} ${Math.round(100 * series.ramp)}%, ${color("ramp0")})`;

  /** What uPlot draws: its series, columns and bands, and each series' values after smoothing. */
  function layers({ x, series, stacked }, smooth, shown) {
    const out = { series: [{}], columns: [x], bands: [] };
    const add = (column, look) => {
      out.columns.push(column);
      out.series.push({ points: { show: false }, ...look });
      return out.columns.length - 1;
    };
    const weight = (s) => (s.smooth === false ? 0 : smooth);
    out.values = series.map((s) => smoothed(s.y, weight(s)));
    if (stacked) {
      stack(out, add, series, shown);
      return out;
    }
    series.forEach((s, i) => {
      if (!shown[i]) return;
      const hue = stroke(s, i);
      if (s.low && s.high) {
        const ends = [add(s.high, { width: 0 }), add(s.low, { width: 0 })];
        out.bands.push({ series: ends, fill: faded(hue, 0.16) });
      }
      if (weight(s)) add(s.y, { stroke: faded(hue, 0.25), width: 1 });
      const points = { show: s.y.filter(present).length <= 40, size: 5, fill: hue };
      add(out.values[i], { stroke: hue, width: 1.6, dash: s.dash, points });
    });
    return out;
  }

  /** Areas on each other: each series from the sum of those under it to the sum with it. */
  function stack(out, add, series, shown) {
    let sums = out.columns[0].map(() => 0);
    let under = add(sums, { width: 0 });
    series.forEach((s, i) => {
      if (!shown[i]) return;
      const hue = stroke(s, i);
      sums = sums.map((sum, n) => sum + (out.values[i][n] ?? 0));
      const over = add(sums, { stroke: hue, width: 1 });
      out.bands.push({ series: [over, under], fill: faded(hue, 0.55) });
      under = over;
    });
  }

  const faded = (hue, share) => `color-mix(in srgb, ${hue} ${Math.round(100 * share)}%, transparent)`;

  /** Vertical lines at named points of x, drawn over a plot. */
  const marker = (marks) => (u) => {
    const { ctx, bbox } = u;
    const scale = devicePixelRatio || 1;
    ctx.save();
    ctx.strokeStyle = color("mark");
    ctx.fillStyle = color("mark");
    ctx.font = `${11 * scale}px system-ui, sans-serif`;
    ctx.setLineDash([4 * scale, 3 * scale]);
    let free = -Infinity;
    for (const { x, text: name } of marks) {
      if (x < u.scales.x.min || x > u.scales.x.max) continue;
      const at = Math.round(u.valToPos(x, "x", true)) + 0.5;
      ctx.beginPath();
      ctx.moveTo(at, bbox.top);
      ctx.lineTo(at, bbox.top + bbox.height);
      ctx.stroke();
      const wide = ctx.measureText(name).width + 8 * scale;
      const left = at + wide > bbox.left + bbox.width ? at - wide : at;
      if (left < free) continue; // the line is enough where names would overlap
      ctx.fillText(name, left + 4 * scale, bbox.top + 11 * scale);
      free = left + wide;
    }
    ctx.restore();
  };

  function axis(more) {
    return {
      stroke: color("soft"),
      grid: { stroke: color("grid"), width: 1 },
      ticks: { show: false },
      font: "11px system-ui, sans-serif",
      ...more,
    };
  }

  const tick = (value) =>
    Math.abs(value) >= 1e4
      ? Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 }).format(value)
      : number(value);

  /**
   * A line plot.
   *
   * options: {title, unit, x, xLabel, series: [{label, y, low, high, ramp, dash, smooth: false}],
   *   stacked, log, height, sync, marks: [{x, text}], note}
   * x ascends; in y, null is a gap and undefined is a point that the series does not have.
   * Plots with the same `sync` share their cursor and zoom. Returns {element, update(options)}.
   */
  function plot(parent, options) {
    let given = options;
    let chart = null;
    let drawn = null;
    let shown = given.series.map(() => true);
    const title = el("h3", "", given.title);
    const unit = el("span", "unit", given.unit ?? "");
    const canvas = el("div", "canvas");
    const legend = el("div", "legend");
    const element = el("figure", "plot", el("div", "plot-head", title, unit), canvas, legend);
    if (given.note) element.append(el("p", "note", given.note));
    parent.append(element);

    function tell(u) {
      const i = u.cursor.idx;
      given.series.forEach((s, n) => {
        const value = i === null || i === undefined ? last(drawn.values[n]) : nearest(drawn.values[n], i);
        text(legend.children[n].lastChild, number(value));
      });
    }

    function keys() {
      legend.replaceChildren(
        ...given.series.map((s, n) => {
          const swatch = el("i", "swatch");
          swatch.style.background = stroke(s, n);
          const key = el("button", shown[n] ? "" : "off", swatch, el("span", "key", s.label), el("span", "value"));
          key.type = "button";
          key.title = visible(s.label);
          key.setAttribute("aria-pressed", String(shown[n]));
          key.addEventListener("click", () => {
            shown[n] = !shown[n];
            draw();
          });
          return key;
        }),
      );
    }

    function draw() {
      drawn = layers(given, state.smooth, shown);
      chart?.destroy();
      keys();
      chart = new uPlot(
        {
          width: Math.max(200, canvas.clientWidth || parent.clientWidth || 400),
          height: given.height ?? 230,
          legend: { show: false },
          cursor: { y: false, points: { show: false }, focus: { prox: -1 }, sync: given.sync ? { key: given.sync, scales: ["x", null] } : undefined },
          scales: {
            x: { time: false, range: span },
            y: { distr: given.log ? 3 : 1, range: given.log ? undefined : reach(given.stacked) },
          },
          axes: [
            axis({ label: given.xLabel, labelSize: 18, labelFont: "11px system-ui, sans-serif", values: (_, v) => v.map(tick), size: 26, space: 60 }),
            axis({ size: 52, values: (_, v) => v.map((value) => (value === null ? "" : tick(value))) }),
          ],
          series: drawn.series,
          bands: drawn.bands,
          hooks: { draw: [marker(given.marks ?? [])], setCursor: [tell] },
        },
        drawn.columns,
        canvas,
      );
      tell(chart);
    }

    const size = new ResizeObserver(() => {
      if (chart && canvas.clientWidth && canvas.clientWidth !== chart.width)
        chart.setSize({ width: canvas.clientWidth, height: chart.height });
    });
    size.observe(canvas);
    on((name) => (name === "theme" || name === "smooth") && element.isConnected && draw());
    draw();
    return {
      element,
      update(more) {
        given = { ...given, ...more };
        if (given.series.length !== shown.length) shown = given.series.map(() => true);
        draw();
      },
    };
  }

  const span = (_, low, high) => (low === high ? [low - 1, high + 1] : [low, high]);

  /** The range of y: a little more than the data; from 0 where areas are stacked. */
  const reach = (stacked) => (_, low, high) => {
    if (low === null || high === null) return [0, 1];
    if (low === high) {
      const room = Math.abs(low) * 0.1 || 1;
      return [stacked ? 0 : low - room, high + room];
    }
    const room = 0.06 * (high - low);
    return [stacked || (low >= 0 && low - room < 0) ? 0 : low - room, high + room];
  };

  /** The value at a place, or the nearest one before it. */
  function nearest(values, i) {
    for (let n = i; n >= 0; n -= 1) if (values[n] !== undefined) return values[n];
    return undefined;
  }

  rlkit.plot = plot;
})();

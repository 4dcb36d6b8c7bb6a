// The plots of a run's page, under their questions, with the switches of axis and smoothing.
"use strict";
(() => {
  const { data, el, on, plot, section, set, state } = rlkit;
  const { axes, bands, labels, marks, patterns, questions, series } = data;
  const MOST_BANDS = 4;
  const SMOOTH = [[200, 0.9], [40, 0.6], [0, 0]]; // [rows, the smoothing a page with as many begins with]

  /** A line's values over the given rows: null where it is not finite, undefined where it has none. */
  function spread(key, values, at, length) {
    const out = new Array(length).fill(undefined);
    patterns[series[key][0]].forEach((row, i) => {
      out[at.get(row)] = values[i];
    });
    return out;
  }

  const INTERVALS = "Shaded: 95% interval over problems.";

  const label = (line) => (line.age === undefined ? line.keys.join(" = ") : `age ${line.age}`);

  /** What a panel draws over an axis. */
  function drawing(panel, axis) {
    const keys = panel.lines.map((line) => line.keys[0]);
    const rows = [...new Set(keys.flatMap((key) => patterns[series[key][0]]))].sort((a, b) => a - b);
    const at = new Map(rows.map((row, i) => [row, i]));
    const aged = panel.lines.some((line) => line.age !== undefined);
    const lines = panel.lines.map((line) => {
      const key = line.keys[0];
      const y = spread(key, series[key][1], at, rows.length);
      const ends = keys.length <= MOST_BANDS ? bands[key] : undefined;
      const [low, high] = ends ? ends.map((end) => spread(key, end, at, rows.length)) : [];
      const hue = aged && line.age === undefined ? "ink" : undefined;
      return { label: label(line), y, low, high, hue, ramp: line.ramp, smooth: panel.smooth };
    });
    return {
      x: rows.map((row) => axes[axis][row]),
      xLabel: labels[axis],
      sync: axis,
      whole: axis !== "time/total",
      series: lines,
      marks: marks.map(({ row, text }) => ({ x: axes[axis][row], text })),
    };
  }

  function show(parent, panel) {
    if (panel.x && !axes[panel.x]) return;
    const axis = () => panel.x ?? state.x;
    const { title, unit, stacked, log } = panel;
    const first = drawing(panel, axis());
    const note = panel.note ?? (first.series.some((s) => s.low) ? INTERVALS : undefined);
    const drawn = plot(parent, { title, unit, note, stacked, log, ...first });
    drawn.element.id = `plot-${panel.name}`;
    on((name) => name === "x" && !panel.x && drawn.update(drawing(panel, axis())));
  }

  function grid(panels) {
    const plots = el("div", "plots");
    return [plots, () => panels.forEach((panel) => show(plots, panel))];
  }

  questions.forEach(({ name, title, panels }, i) =>
    section({
      id: name,
      title,
      order: 10 * (i + 1),
      render(body) {
        const [plots, fill] = grid(panels);
        if (name !== "others") {
          body.append(plots);
          fill();
          return;
        }
        const fold = el("details", "", el("summary", "", `${panels.length} plots`), plots);
        fold.addEventListener("toggle", fill, { once: true });
        body.append(fold);
      },
    }),
  );

  function axisSwitch() {
    const select = el("select");
    select.id = "axis";
    for (const name of Object.keys(axes)) {
      const option = el("option", "", labels[name]);
      option.value = name;
      select.append(option);
    }
    select.addEventListener("change", () => set("x", select.value));
    return el("label", "", "Over", select);
  }

  function smoothing() {
    const slider = el("input");
    Object.assign(slider, { id: "smooth", type: "range", min: "0", max: "0.98", step: "0.02" });
    [, state.smooth] = SMOOTH.find(([rows]) => axes.step.length >= rows);
    slider.value = String(state.smooth);
    slider.addEventListener("input", () => set("smooth", Number(slider.value)));
    return el("label", "", "Smoothing", slider);
  }

  document.getElementById("switches").append(axisSwitch(), smoothing());
})();

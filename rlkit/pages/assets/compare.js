// The plots of a comparison: each metric's median and middle half by group, with a switch of axis.
"use strict";
(() => {
  const { data, el, on, plot, section, set, state } = rlkit;
  const MOST_BANDS = 8;
  state.x = "rollouts/total";

  /** What a plot draws over the axis that is chosen. */
  function drawing({ over }) {
    const { x, series } = over[state.x];
    const bands = series.length <= MOST_BANDS;
    return {
      x,
      xLabel: data.labels[state.x],
      sync: state.x,
      whole: state.x !== "time/total",
      series: series.map(({ label, y, low, high }) => ({ label, y, smooth: false, ...(bands && { low, high }) })),
    };
  }

  section({
    id: "curves",
    title: "Curves",
    render(body) {
      const plots = el("div", "plots");
      const bands = data.plots.some(({ over }) => over[state.x].series.some((s) => s.low));
      if (bands) body.append(el("p", "note", "Lines are medians over seeds; shaded is their middle half."));
      body.append(plots);
      for (const each of data.plots) {
        const { name, title, unit } = each;
        const drawn = plot(plots, { title, unit, height: 260, ...drawing(each) });
        on((switched) => {
          if (switched !== "x" && switched !== "data") return;
          const now = data.plots.find((other) => other.name === name);
          if (now) drawn.update(drawing(now));
        });
      }
    },
  });

  function axisSwitch() {
    const select = el("select");
    select.id = "axis";
    for (const [name, label] of Object.entries(data.labels)) {
      const option = el("option", "", label);
      option.value = name;
      select.append(option);
    }
    select.value = state.x;
    select.addEventListener("change", () => set("x", select.value));
    return el("label", "", "Over", select);
  }

  /** A file of the table; the button may be a newer one than the page began with. */
  function download(event) {
    if (event.target.id !== "csv") return;
    const link = el("a");
    link.href = URL.createObjectURL(new Blob([data.csv], { type: "text/csv" }));
    link.download = "comparison.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  document.addEventListener("click", download);
  document.getElementById("switches").append(axisSwitch());
})();

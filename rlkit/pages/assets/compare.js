// The plots of a comparison: each metric's median and middle half by group, with a switch of axis.
"use strict";
(() => {
  const { data, el, on, plot, section, set, state } = rlkit;
  const MOST_BANDS = 8;
  state.x = "rollouts/total";

  /** What a plot draws over the axis that is chosen. */
  function drawing({ over }) {
    const groups = over[state.x];
    const bands = groups.length <= MOST_BANDS;
    const x = [...new Set(groups.flatMap((group) => group.x))].sort((a, b) => a - b);
    const at = new Map(x.map((value, i) => [value, i]));
    const spread = (group, values) => {
      if (!values) return undefined;
      const out = new Array(x.length).fill(undefined);
      values.forEach((value, i) => {
        out[at.get(group.x[i])] = value;
      });
      return out;
    };
    return {
      x,
      xLabel: data.labels[state.x],
      sync: state.x,
      whole: state.x !== "time/total",
      series: groups.map((group) => ({
        label: group.label,
        y: spread(group, group.y),
        low: bands ? spread(group, group.low) : undefined,
        high: bands ? spread(group, group.high) : undefined,
        smooth: false,
      })),
    };
  }

  section({
    id: "curves",
    title: "Curves",
    render(body) {
      const plots = el("div", "plots");
      const bands = data.plots.some(({ over }) => over[state.x].some((group) => group.low));
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

// The plots of a comparison: every run's score over each axis.
"use strict";
(() => {
  const place = document.getElementById("plots");
  for (const { title, lines } of rlkit.data.plots) {
    const xs = [...new Set(lines.flatMap((line) => line.points[0]))].sort((a, b) => a - b);
    const series = lines.map(({ label, points: [x, y] }) => {
      const values = new Map(x.map((at, i) => [at, y[i]]));
      return { label, y: xs.map((at) => values.get(at)), smooth: false };
    });
    rlkit.plot(place, { title, x: xs, series });
  }
})();

"use strict";

const DAY = 86400; // seconds

// `14:00` within a day, `22 Nov` where the marks are days apart.
function said(seconds, marks) {
  const moment = new Date(seconds * 1000);
  const apart = marks.length > 1 ? marks[1] - marks[0] : 0;
  const begins = moment.getHours() === 0 && moment.getMinutes() === 0;
  return apart >= DAY || begins
    ? moment.toLocaleDateString("en-GB", { day: "numeric", month: "short" })
    : moment.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
}

// What the pointer is at, in words.
function read(chart) {
  const reading = document.getElementById("reading");
  const place = chart.cursor.idx;
  if (place === null || place === undefined) {
    reading.textContent = "Point at the chart for its numbers.";
    return;
  }
  const moment = new Date(chart.data[0][place] * 1000).toLocaleString("en-GB", {
    weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit",
  });
  const [received, delivered, failed] = [1, 2, 3].map((row) => chart.data[row][place] ?? 0);
  reading.textContent = `${moment}: ${received} received, ${delivered} taken, ${failed} failed`;
}

// It shows what stands in the table beside it: one source for those who see and those who listen.
function draw(holder) {
  const rows = [...document.getElementById(holder.dataset.chart).tBodies[0].rows].reverse();
  if (rows.length < 2 || !window.uPlot) return;
  const moments = rows.map((row) => Number(row.dataset.at));
  // A step is drawn up to where the next one begins; the last one has no next.
  moments.push(2 * moments.at(-1) - moments.at(-2));
  const column = (place) => [...rows, rows.at(-1)].map((row) => Number(row.cells[place].textContent));
  // Where nothing failed there is nothing to draw: a red line along the bottom would look like an alarm.
  const onlyIfAny = (values) => values.map((value) => value || null);
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const axis = { stroke: colour("faint"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1 } };
  const line = (name, dash) => ({
    stroke: colour(name), fill: `${colour(name)}22`, width: 2, dash, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }),
  });
  const bars = (name) => ({
    stroke: colour(name), fill: colour(name), width: 0, points: { show: false }, paths: uPlot.paths.bars({ align: 1, size: [0.7, 24] }),
  });
  holder.replaceChildren();
  const chart = new uPlot({
    width: holder.clientWidth,
    height: holder.clientHeight,
    scales: { y: { range: (self, low, high) => [0, Math.max(high * 1.1, 4)] } },
    axes: [
      { ...axis, values: (self, marks) => marks.map((seconds) => said(seconds, marks)) },
      { ...axis, size: 56, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6] },
    ],
    series: [{}, line("received", [6, 4]), line("delivered"), bars("failed")],
    cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
    hooks: { setCursor: [read] },
    legend: { show: false },
  }, [moments, column(1), column(2), onlyIfAny(column(3))], holder);
  holder.chart = chart;
}

function drawAll() {
  document.querySelectorAll("[data-chart]").forEach(draw);
}

document.addEventListener("prepared", drawAll);
addEventListener("resize", () => {
  document.querySelectorAll("[data-chart]").forEach((holder) => {
    if (holder.chart) holder.chart.setSize({ width: holder.clientWidth, height: holder.clientHeight });
  });
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);

(() => {
"use strict";
// Everything here is a convenience: without it the page says the same.
const get = (id) => document.getElementById(id);
document.documentElement.classList.add("js");

const copy = get("copy");
if (copy) {
  copy.hidden = false;
  copy.addEventListener("click", async () => {
    const code = get("repeat");
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      // No clipboard on this origin: select the text, so that the reader's own copy takes it.
      getSelection().selectAllChildren(code);
      document.execCommand("copy");
    }
    copy.textContent = "Copied";
    setTimeout(() => { copy.textContent = "Copy"; }, 1500);
  });
}

const plots = get("plots");
if (!plots) return;
const data = JSON.parse(get("series").textContent);
const bands = plots.querySelector(".bands");
const cursor = get("cursor"), choice = get("choice"), readout = get("readout");
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
const full = data.end - data.start, least = Math.max(full / 200, 0.2);
let low = data.start, high = data.end, at = null, drag = null;

get("tools").hidden = get("plots-hint").hidden = false;
plots.tabIndex = 0;
plots.setAttribute("role", "group");
plots.setAttribute("aria-label", "Charts over one time axis; arrow keys move the crosshair");

const clamp = (value, least, most) => Math.min(Math.max(value, least), most);
const place = (t) => 100 * (t - low) / (high - low);
const seconds = (t) => t.toFixed(1).replace("-", "\u2212") + "\u202fs";

function svg(name, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function label(t, step) {
  if (step >= 3600) return +(t / 3600).toFixed(2) + "\u202fh";
  if (step >= 60) return +(t / 60).toFixed(2) + "\u202fmin";
  return t.toFixed(step < 1 ? 1 : 0) + "\u202fs";
}

function show(from, to) {
  const span = clamp(to - from, least, full);
  low = clamp(from, data.start, data.end - span);
  high = low + span;
  for (const stage of plots.querySelectorAll(".stage")) {
    stage.setAttribute("width", 100 * full / span + "%");
    stage.setAttribute("x", -100 * (low - data.start) / span + "%");
  }
  const step = STEPS.find((s) => span / s <= 10) || span / 10, times = [];
  for (let k = Math.ceil(low / step - 1e-6); k * step <= high + 1e-6; k++) times.push(k * step);
  plots.querySelector(".grid").replaceChildren(
    ...times.map((t) => svg("line", {x1: place(t) + "%", x2: place(t) + "%", y2: "100%"})));
  for (const axis of plots.querySelectorAll(".ticks")) {
    axis.replaceChildren(...times.map((t) => svg("text", {
      x: place(t) + "%", y: 15, class: place(t) < 3 ? "first" : place(t) > 96 ? "last" : ""}, label(t, step))));
  }
  fit();
  point(at);
}

// A lane's label is shown where it fits, whatever the zoom and the width of the window.
function fit() {
  const labels = [...plots.querySelectorAll(".span text")];
  for (const label of labels) label.style.display = "inline";
  const room = labels.map((label) => label.parentNode.getBoundingClientRect().width - label.getBBox().width - 12);
  labels.forEach((label, k) => { if (room[k] < 0) label.style.display = "none"; });
}

const shown = (value, unit) => value === null || value === undefined ? "\u2013"
  : (value < 10 ? +value.toFixed(1) : Math.round(value)) + (unit === "/s" ? "/s" : unit ? "\u202f" + unit : "");

function point(t) {
  at = t === null ? null : clamp(t, data.start, data.end);
  const visible = at !== null && at >= low && at <= high;
  cursor.hidden = !visible;
  const outputs = [...plots.querySelectorAll("output")];
  if (!visible) {
    for (const output of outputs) output.textContent = "";
    readout.textContent = "";
    return;
  }
  const area = bands.getBoundingClientRect(), own = plots.getBoundingClientRect();
  cursor.style.left = area.left - own.left + area.width * place(at) / 100 + "px";
  get("cursor-time").textContent = seconds(at);
  for (const output of outputs) {
    const series = data.series.find((s) => s.key === output.dataset.series);
    if (!series) continue;
    const index = Math.min(Math.max(Math.floor((at - data.start) / data.width), 0), series.values.length - 1);
    output.textContent = shown(series.values[index], series.unit);
  }
  readout.textContent = data.lanes.map((lane) => {
    const segment = lane.segments.find((s) => s[0] <= at && at <= s[1]);
    return lane.name + " " + (segment ? segment[2] : "\u2013");
  }).join(", ");
}

const time = (event) => {
  const area = bands.getBoundingClientRect();
  return low + (event.clientX - area.left) / area.width * (high - low);
};

plots.addEventListener("pointermove", (event) => {
  const t = time(event);
  point(t >= low && t <= high ? t : null);
  if (drag === null) return;
  const area = bands.getBoundingClientRect(), own = plots.getBoundingClientRect();
  const [a, b] = [drag, clamp(t, low, high)].sort((x, y) => x - y);
  choice.hidden = b - a < full / 500;
  choice.style.left = area.left - own.left + area.width * place(a) / 100 + "px";
  choice.style.width = area.width * (b - a) / (high - low) + "px";
});
plots.addEventListener("pointerleave", () => { if (drag === null) point(null); });
plots.addEventListener("pointerdown", (event) => {
  const t = time(event);
  if (event.button === 0 && event.pointerType === "mouse" && t >= low && t <= high) drag = t;
});
addEventListener("pointerup", (event) => {
  if (drag === null) return;
  const [a, b] = [drag, clamp(time(event), low, high)].sort((x, y) => x - y);
  const dragged = !choice.hidden;
  drag = null;
  choice.hidden = true;
  if (dragged) {
    show(a, b);
    // A drag that ends on a fault's bar is no click on its link.
    const swallow = (click) => click.preventDefault();
    addEventListener("click", swallow, true);
    setTimeout(() => removeEventListener("click", swallow, true));
  }
});
plots.addEventListener("dragstart", (event) => event.preventDefault());
plots.addEventListener("dblclick", () => { getSelection().removeAllRanges(); show(data.start, data.end); });

function zoom(factor) {
  const middle = at !== null && at >= low && at <= high ? at : (low + high) / 2;
  show(middle - (middle - low) * factor, middle + (high - middle) * factor);
}
get("zoom-in").addEventListener("click", () => zoom(0.5));
get("zoom-out").addEventListener("click", () => zoom(2));
get("zoom-all").addEventListener("click", () => show(data.start, data.end));

plots.addEventListener("keydown", (event) => {
  const step = (high - low) / (event.shiftKey ? 10 : 100);
  const move = (by) => {
    const t = clamp((at ?? (low + high) / 2) + by, data.start, data.end);
    if (t < low || t > high) show(low + by, high + by);
    point(t);
  };
  const keys = {
    ArrowLeft: () => move(-step), ArrowRight: () => move(step), "+": () => zoom(0.5), "=": () => zoom(0.5),
    "-": () => zoom(2), 0: () => show(data.start, data.end), Escape: () => point(null),
  };
  if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
  event.preventDefault();
  keys[event.key]();
});
addEventListener("resize", () => { fit(); point(at); });
fit();
})();

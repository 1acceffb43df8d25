"use strict";
// Two weights, forty rows, SGD as torch has it. The rows are made by formula, so that Python can make the same ones:
//   X = U diag(1, 1/condition) R'   with U'U/n the identity and R a turn,   Y = X w + residual, residual orthogonal to X.
// Full batches: the path and the numbers are those of recurrence.js, which are cf.diagnose(X, Y).forecast(...).
// Batches: the run is drawn from rows, and its forecast is the recursion of the second moments of (error, velocity, 1).

const ROWS = 40;
const STEPS = 100;
const TURN = 0.6;
const NOISE = 0.3;
const TARGET = [0, 0];
const START = [-1.9, 1.1];
const BATCHES = [1, 2, 5, 10, 20, ROWS];
const GOAL = 1e-6;

function table(condition) {
  const [c, s] = [Math.cos(TURN), Math.sin(TURN)];
  const X = [];
  const Y = [];
  for (let i = 0; i < ROWS; i += 1) {
    const angle = (2 * Math.PI * (i + 0.5)) / ROWS;
    const u = [Math.SQRT2 * Math.cos(angle), (Math.SQRT2 * Math.cos(2 * angle)) / condition];
    const x = [c * u[0] - s * u[1], s * u[0] + c * u[1]];
    X.push(x);
    Y.push(x[0] * TARGET[0] + x[1] * TARGET[1] + NOISE * Math.SQRT2 * Math.cos(3 * angle));
  }
  return { X, Y };
}

// The simulation of recurrence.js for these rows: eigenvalues of the Hessian and the excess loss along each at the start.
function landscape(condition) {
  const [c, s] = [Math.cos(TURN), Math.sin(TURN)];
  const eigenvalues = [2, 2 / condition ** 2];
  const e = [START[0] - TARGET[0], START[1] - TARGET[1]];
  const along = [c * e[0] + s * e[1], -s * e[0] + c * e[1]];
  return {
    along,
    simulation: {
      eigenvalues,
      start_excess: along.map((value, i) => (eigenvalues[i] / 2) * value ** 2),
      start_towards_zero: [0, 0],
      zero_excess: [0, 0],
    },
  };
}

function excessAt(error, condition) {
  const [c, s] = [Math.cos(TURN), Math.sin(TURN)];
  return (c * error[0] + s * error[1]) ** 2 + ((-s * error[0] + c * error[1]) / condition) ** 2;
}

// Full batches, in closed form: weights after each step.
function exactPath({ along, simulation }, lr, momentum) {
  const [c, s] = [Math.cos(TURN), Math.sin(TURN)];
  const factors = simulation.eigenvalues.map((value) => direction(lr * value, momentum, false, 0).factor);
  return Array.from({ length: STEPS + 1 }, (_, t) => {
    const [a, b] = along.map((value, i) => value * factors[i](t));
    return [TARGET[0] + c * a - s * b, TARGET[1] + s * a + c * b];
  });
}

// A run on batches drawn without replacement within each batch, as torch.optim.SGD makes its steps.
function drawnPath({ X, Y }, lr, momentum, batch, seed) {
  let state = seed >>> 0;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  let w = [...START];
  let v = [0, 0];
  const path = [w];
  const order = X.map((_, i) => i);
  for (let t = 0; t < STEPS; t += 1) {
    const g = [0, 0];
    for (let k = 0; k < batch; k += 1) {
      const j = k + Math.floor(random() * (ROWS - k));
      [order[k], order[j]] = [order[j], order[k]];
      const [x, y] = [X[order[k]], Y[order[k]]];
      const residual = x[0] * w[0] + x[1] * w[1] - y;
      g[0] += (2 * residual * x[0]) / batch;
      g[1] += (2 * residual * x[1]) / batch;
    }
    v = [momentum * v[0] + g[0], momentum * v[1] + g[1]];
    w = [w[0] - lr * v[0], w[1] - lr * v[1]];
    path.push(w);
  }
  return path;
}

// Expected excess loss on batches: E[z z'] of z = (error, velocity, 1), where a step is linear in z.
function expected({ X, Y }, condition, lr, momentum, batch, steps) {
  // The gradient of row i is K z: 2 x (x'error + (x'w - y)), its mean over rows the full gradient.
  const rows = X.map((x, i) => {
    const gap = x[0] * TARGET[0] + x[1] * TARGET[1] - Y[i];
    return x.map((value) => [2 * value * x[0], 2 * value * x[1], 0, 0, 2 * value * gap]);
  });
  const mean = [0, 1].map((a) => [0, 1, 2, 3, 4].map((b) => rows.reduce((sum, K) => sum + K[a][b], 0) / ROWS));
  const spread = rows.map((K) => K.map((row, a) => row.map((entry, b) => entry - mean[a][b])));
  const f = (ROWS - batch) / (ROWS - 1) / batch;
  const velocity = [0, 1].map((a) => mean[a].map((value, b) => value + (b === a + 2 ? momentum : 0)));
  const T = [0, 1].map((a) => velocity[a].map((value, b) => (b === a ? 1 : 0) - lr * value));
  T.push(...velocity, [0, 0, 0, 0, 1]);
  const z = [START[0] - TARGET[0], START[1] - TARGET[1], 0, 0, 1];
  let M = z.map((a) => z.map((b) => a * b));
  const value = () => {
    const [c, s] = [Math.cos(TURN), Math.sin(TURN)];
    const steep = c * c * M[0][0] + 2 * c * s * M[0][1] + s * s * M[1][1];
    const flat = s * s * M[0][0] - 2 * c * s * M[0][1] + c * c * M[1][1];
    return steep + flat / condition ** 2;
  };
  const curve = [value()];
  for (let t = 0; t < steps; t += 1) {
    const S = [[0, 0], [0, 0]];
    for (const D of spread) {
      for (let a = 0; a < 2; a += 1) {
        for (let b = 0; b < 2; b += 1) S[a][b] += (f / ROWS) * bilinear(D[a], M, D[b]);
      }
    }
    M = T.map((left) => T.map((right) => bilinear(left, M, right)));
    for (let a = 0; a < 2; a += 1) {
      for (let b = 0; b < 2; b += 1) {
        M[a][b] += lr * lr * S[a][b];
        M[a][b + 2] -= lr * S[a][b];
        M[a + 2][b] -= lr * S[a][b];
        M[a + 2][b + 2] += S[a][b];
      }
    }
    curve.push(value());
  }
  return curve;
}

function bilinear(left, M, right) {
  let sum = 0;
  for (let i = 0; i < 5; i += 1) {
    if (left[i] === 0) continue;
    for (let j = 0; j < 5; j += 1) sum += left[i] * M[i][j] * right[j];
  }
  return sum;
}

function numbers({ condition, lr, momentum, batch, seed }) {
  const scene = landscape(condition);
  const forecasted = simulate(scene.simulation, { lr, momentum, nesterov: false, weight_decay: 0, dampening: 0 });
  const start = forecasted.excess(0);
  const rows = table(condition);
  const whole = batch === ROWS;
  const path = whole ? exactPath(scene, lr, momentum) : drawnPath(rows, lr, momentum, batch, seed);
  const forecast = whole
    ? Array.from({ length: STEPS + 1 }, (_, t) => forecasted.excess(t))
    : expected(rows, condition, lr, momentum, batch, STEPS);
  const run = path.map((w) => excessAt([w[0] - TARGET[0], w[1] - TARGET[1]], condition));
  const late = whole ? null : expected(rows, condition, lr, momentum, batch, 4000);
  const settles = late && late[4000] < 1e6 && Math.abs(late[4000] - late[3900]) <= 1e-3 * late[4000];
  return {
    path,
    run,
    forecast,
    limit: forecasted.limit,
    needed: whole ? forecasted.stepsTo(GOAL * start) : null,
    floor: settles ? late[4000] : null,
    grows: late !== null && !(late[4000] < 1e6),
  };
}

// What is drawn.

const SVG = "http://www.w3.org/2000/svg";

function shape(parent, name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

function said(value) {
  if (value === Infinity || Number.isNaN(value)) return "without end";
  if (value !== 0 && (Math.abs(value) < 1e-2 || Math.abs(value) >= 1e5)) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
}

function clear(svg) {
  for (const element of [...svg.children]) if (element.tagName !== "title") element.remove();
}

function drawLandscape(svg, condition, path, shown) {
  clear(svg);
  const at = ([a, b]) => [160 + 55 * a, 160 - 55 * b];
  const [x, y] = at(TARGET);
  for (const level of [0.01, 0.1, 0.4, 1, 2, 4, 7, 11]) {
    const radius = 55 * Math.sqrt(level);
    const turn = (-TURN * 180) / Math.PI;
    shape(svg, "ellipse", { cx: x, cy: y, rx: radius, ry: radius * condition, transform: `rotate(${turn} ${x} ${y})`, class: "stage-contour" });
  }
  const inside = path.slice(0, shown + 1).filter((w) => Math.hypot(...w) < 1e4).map(at);
  shape(svg, "polyline", { points: inside.map((point) => point.join(",")).join(" "), class: "stage-path" });
  for (const [px, py] of inside) shape(svg, "circle", { cx: px, cy: py, r: 2.5, class: "stage-dot" });
  shape(svg, "text", { x, y: y + 7, "text-anchor": "middle", class: "stage-star" }, "★");
}

function drawCurve(svg, run, forecast, shown) {
  clear(svg);
  const low = -9;
  const high = 2;
  const at = (value, t) => {
    const height = Math.min(high, Math.max(low, Math.log10(Math.max(value, 1e-300))));
    return [40 + (270 * t) / STEPS, 285 - (270 * (height - low)) / (high - low)];
  };
  for (let power = low; power <= high; power += 1) {
    const [, y] = at(10 ** power, 0);
    shape(svg, "line", { x1: 40, x2: 310, y1: y, y2: y, class: "stage-grid" });
    if (power % 2 === 0) shape(svg, "text", { x: 36, y: y + 4, "text-anchor": "end", class: "stage-tick" }, `1e${power}`);
  }
  for (const t of [0, STEPS / 2, STEPS]) shape(svg, "text", { x: at(1, t)[0], y: 302, "text-anchor": "middle", class: "stage-tick" }, t);
  shape(svg, "text", { x: 175, y: 317, "text-anchor": "middle", class: "stage-tick" }, "step");
  const line = (values) => values.map((value, t) => at(Number.isNaN(value) ? Infinity : value, t).join(",")).join(" ");
  shape(svg, "polyline", { points: line(run.slice(0, shown + 1)), class: "stage-path" });
  shape(svg, "polyline", { points: line(forecast), class: "stage-forecast" });
}

function begin() {
  const find = (name) => document.getElementById(`stage-${name}`);
  const inputs = ["condition", "lr", "momentum", "batch"].map(find);
  let seed = 1;
  let shown = STEPS;
  let timer = 0;

  const settings = () => ({
    condition: 10 ** Number(find("condition").value),
    lr: 10 ** Number(find("lr").value),
    momentum: Number(find("momentum").value),
    batch: BATCHES[Number(find("batch").value)],
    seed,
  });

  const draw = () => {
    const chosen = settings();
    const found = numbers(chosen);
    find("condition-says").value = said(chosen.condition);
    find("lr-says").value = said(chosen.lr);
    find("momentum-says").value = said(chosen.momentum);
    find("batch-says").value = chosen.batch === ROWS ? `all ${ROWS}` : said(chosen.batch);
    find("steps").textContent = STEPS;
    find("limit").textContent = said(found.limit);
    find("forecast").textContent = said(found.forecast[STEPS]);
    find("run").textContent = said(found.run[STEPS]);
    find("needed").textContent = found.needed === null ? "never, with batches" : said(found.needed);
    const settled = found.floor === null ? "not within 4000 steps" : said(found.floor);
    find("floor").textContent = chosen.batch === ROWS ? "at the minimum" : found.grows ? "nowhere: it grows" : settled;
    drawLandscape(find("landscape"), chosen.condition, found.path, shown);
    drawCurve(find("curve"), found.run, found.forecast, shown);
  };

  const stop = () => {
    clearInterval(timer);
    timer = 0;
    shown = STEPS;
    find("play").textContent = "Play";
  };
  const play = () => {
    if (timer) {
      stop();
      draw();
      return;
    }
    shown = 0;
    find("play").textContent = "Stop";
    timer = setInterval(() => {
      shown += 1;
      if (shown >= STEPS) stop();
      draw();
    }, 60);
  };
  for (const input of inputs) input.addEventListener("input", () => { stop(); draw(); });
  find("play").addEventListener("click", play);
  find("again").addEventListener("click", () => { seed += 1; stop(); draw(); });
  draw();
}

// For those who want the numbers, and for the tests.
window.stage = { numbers, table, START, STEPS, ROWS };
if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
else begin();

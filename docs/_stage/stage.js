"use strict";
// Two weights, forty rows, SGD as torch has it. The rows are made by formula, so that Python can make the same ones:
//   X = U diag(1, 1/condition) R'   with U'U/n the identity and R a turn,   Y = X w + residual, residual orthogonal to X.
// Full batches: the path and the numbers are those of recurrence.js, which are cf.diagnose(X, Y).forecast(...).
// Batches: the run is drawn from rows, and its forecast is the recursion of the second moments of error and velocity.

const ROWS = 40;
const STEPS = 100;
const TURN = 0.6;
const NOISE = 0.3;
const TARGET = [0, 0];
const START = [-1.9, 1.1];
const BATCHES = [1, 2, 5, 10, 20, ROWS];
const GOAL = 1e-6;
// Steps that are followed one by one.
const LONGEST = 20000;

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

// Batches in expectation. Along the singular directions, with errors in units of the outputs, a step makes of the error e_i
// and the velocity v_i
//   v' = m v + e + xi,   e' = e - lr h_i v',   h_i the curvature,
// and the gradients of batches have the covariance  f (E[u u (u'e - r)^2] - E[e e])  of xi, with u the row along the directions
// and r its residual. So the second moments of (e, v) follow a recursion of their own, with fourth moments of the rows in it.

const PAIRS = [[0, 0], [0, 1], [1, 1]];

const MOMENTS = (() => {
  const rows = Array.from({ length: ROWS }, (_, k) => {
    const angle = (2 * Math.PI * (k + 0.5)) / ROWS;
    return { u: [Math.SQRT2 * Math.cos(angle), Math.SQRT2 * Math.cos(2 * angle)], r: NOISE * Math.SQRT2 * Math.cos(3 * angle) };
  });
  const mean = (of) => rows.reduce((sum, row) => sum + of(row), 0) / ROWS;
  return PAIRS.map(([i, j]) => ({
    fourth: PAIRS.map(([k, l]) => (k === l ? 1 : 2) * mean(({ u }) => u[i] * u[j] * u[k] * u[l])),
    third: [0, 1].map((k) => mean(({ u, r }) => u[i] * u[j] * u[k] * r)),
    second: mean(({ u, r }) => u[i] * u[j] * r * r),
  }));
})();

// Of batches drawn without replacement from all rows.
function shareOfNoise(batch) {
  return (ROWS - batch) / (ROWS - 1) / batch;
}

// The noise of the gradient for errors with second moments S (by pairs) and means e.
function noise(S, e, f) {
  return MOMENTS.map(({ fourth, third, second }, pair) => {
    const cross = third[0] * e[0] + third[1] * e[1];
    return f * (fourth[0] * S[0] + fourth[1] * S[1] + fourth[2] * S[2] - S[pair] - 2 * cross + second);
  });
}

function expected(scene, lr, momentum, batch, steps) {
  const h = scene.simulation.eigenvalues.map((value) => lr * value);
  const f = shareOfNoise(batch);
  let mean = scene.along.map((value, i) => [value * Math.sqrt(scene.simulation.eigenvalues[i] / 2), 0]);
  let C = PAIRS.map(([i, j]) => [mean[i][0] * mean[j][0], 0, 0, 0]); // E of e_i e_j, e_i v_j, v_i e_j, v_i v_j
  const curve = [C[0][0] + C[2][0]];
  for (let t = 0; t < steps; t += 1) {
    const N = noise(C.map((each) => each[0]), mean.map((each) => each[0]), f);
    C = PAIRS.map(([i, j], pair) => {
      const [ee, ev, ve, vv] = C[pair];
      const V = momentum * (momentum * vv + ve + ev) + ee + N[pair];
      const left = ee + momentum * ev; // e_i with the new v_j
      const right = ee + momentum * ve;
      return [ee - h[j] * left - h[i] * right + h[i] * h[j] * V, left - h[i] * V, right - h[j] * V, V];
    });
    mean = mean.map(([e, v], i) => {
      const moved = momentum * v + e;
      return [e - h[i] * moved, moved];
    });
    curve.push(C[0][0] + C[2][0]);
  }
  return curve;
}

// How steady noise of size one between two directions is answered by the errors along them.
function response(first, second, m) {
  const [a, b] = [first, second];
  // The equations of the recursion at rest, for e_i e_j, e_i v_j, v_i e_j, v_i v_j; the last has the noise.
  return solveLinear(
    [
      [b + a - a * b, (b - a * b) * m, (a - a * b) * m, -a * b * m * m],
      [a - 1, 1 - m + a * m, a * m, a * m * m],
      [b - 1, b * m, 1 - m + b * m, b * m * m],
      [-1, -m, -m, 1 - m * m],
    ],
    [a * b, -a, -b, 1],
  )[0];
}

function solveLinear(matrix, right) {
  const A = matrix.map((row, i) => [...row, right[i]]);
  const n = A.length;
  for (let k = 0; k < n; k += 1) {
    let pivot = k;
    for (let i = k + 1; i < n; i += 1) if (Math.abs(A[i][k]) > Math.abs(A[pivot][k])) pivot = i;
    [A[k], A[pivot]] = [A[pivot], A[k]];
    for (let i = k + 1; i < n; i += 1) {
      const ratio = A[i][k] / A[k][k];
      for (let j = k; j <= n; j += 1) A[i][j] -= ratio * A[k][j];
    }
  }
  const x = Array(n).fill(0);
  for (let k = n - 1; k >= 0; k -= 1) {
    x[k] = A[k][n];
    for (let j = k + 1; j < n; j += 1) x[k] -= A[k][j] * x[j];
    x[k] /= A[k][k];
  }
  return x;
}

// What noise that feeds on the errors makes of their second moments, once they have answered it.
function feedback(eigenvalues, lr, momentum, batch) {
  const f = shareOfNoise(batch);
  const answers = PAIRS.map(([i, j]) => response(lr * eigenvalues[i], lr * eigenvalues[j], momentum));
  const matrix = MOMENTS.map(({ fourth }, pair) => fourth.map((value, k) => f * answers[pair] * (value - (k === pair ? 1 : 0))));
  return { matrix, source: MOMENTS.map(({ second }, pair) => f * answers[pair] * second) };
}

// Whether the loop dies out: powers of a map of moments to moments grow or vanish, and only its largest root counts.
function settles(matrix) {
  let S = [1, 0, 1];
  let size = 1;
  for (let k = 0; k < 200; k += 1) {
    const next = matrix.map((row) => row[0] * S[0] + row[1] * S[1] + row[2] * S[2]);
    size = next[0] + next[2];
    if (!(size > 0)) return true;
    S = next.map((value) => value / size);
  }
  return size < 1;
}

// The learning rate from which on the second moments grow, below that of all rows.
function limitOnBatches(eigenvalues, momentum, batch, whole) {
  let [low, high] = [0, whole];
  for (let k = 0; k < 50; k += 1) {
    const middle = (low + high) / 2;
    if (settles(feedback(eigenvalues, middle, momentum, batch).matrix)) low = middle;
    else high = middle;
  }
  return low;
}

// Where the expected excess loss ends; a learning rate below the limit of batches.
function floorOfNoise(eigenvalues, lr, momentum, batch) {
  const { matrix, source } = feedback(eigenvalues, lr, momentum, batch);
  const S = solveLinear(matrix.map((row, i) => row.map((value, k) => (i === k ? 1 : 0) - value)), source);
  return S[0] + S[2];
}

// The first step at which the expected excess loss is at the goal; null where it takes more than LONGEST.
function stepsOnBatches(scene, lr, momentum, batch, goal, floor) {
  if (floor === null || floor > goal) return Infinity;
  const reached = expected(scene, lr, momentum, batch, LONGEST).findIndex((value) => value <= goal);
  return reached < 0 ? null : reached;
}

function numbers({ condition, lr, momentum, batch, seed }) {
  const scene = landscape(condition);
  const { eigenvalues } = scene.simulation;
  const forecasted = simulate(scene.simulation, { lr, momentum, nesterov: false, weight_decay: 0, dampening: 0 });
  const start = forecasted.excess(0);
  const whole = batch === ROWS;
  const path = whole ? exactPath(scene, lr, momentum) : drawnPath(table(condition), lr, momentum, batch, seed);
  const forecast = whole
    ? Array.from({ length: STEPS + 1 }, (_, t) => forecasted.excess(t))
    : expected(scene, lr, momentum, batch, STEPS);
  const run = path.map((w) => excessAt([w[0] - TARGET[0], w[1] - TARGET[1]], condition));
  const limit = whole ? forecasted.limit : limitOnBatches(eigenvalues, momentum, batch, forecasted.limit);
  const floor = whole || lr >= limit ? null : floorOfNoise(eigenvalues, lr, momentum, batch);
  return {
    path,
    run,
    forecast,
    limit,
    needed: whole ? forecasted.stepsTo(GOAL * start) : stepsOnBatches(scene, lr, momentum, batch, GOAL * start, floor),
    floor,
  };
}

// What is drawn.

// Longer ellipses are straight within the picture.
const STRAIGHT = 1e3;
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
  if (value !== 0 && (Math.abs(value) < 1e-2 || Math.abs(value) >= 1e5)) return value.toExponential(1).replace(".0e", "e").replace("e+", "e");
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
    const long = radius * Math.min(condition, STRAIGHT);
    shape(svg, "ellipse", { cx: x, cy: y, rx: radius, ry: long, transform: `rotate(${turn} ${x} ${y})`, class: "stage-contour" });
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
  let chosen;
  let found;

  const settings = () => ({
    condition: 10 ** Number(find("condition").value),
    lr: 10 ** Number(find("lr").value),
    momentum: Number(find("momentum").value),
    batch: BATCHES[Number(find("batch").value)],
    seed,
  });

  const draw = () => {
    drawLandscape(find("landscape"), chosen.condition, found.path, shown);
    drawCurve(find("curve"), found.run, found.forecast, shown);
  };

  // What a slider says is also what a screen reader says of it.
  const say = (name, text) => {
    find(`${name}-says`).value = text;
    find(name).setAttribute("aria-valuetext", text);
  };

  const change = () => {
    chosen = settings();
    found = numbers(chosen);
    const whole = chosen.batch === ROWS;
    say("condition", said(chosen.condition));
    say("lr", said(chosen.lr));
    say("momentum", said(chosen.momentum));
    say("batch", whole ? `all ${ROWS}` : said(chosen.batch));
    find("again").disabled = whole;
    find("steps").textContent = STEPS;
    find("limit").textContent = said(found.limit);
    find("forecast").textContent = said(found.forecast[STEPS]);
    find("run").textContent = said(found.run[STEPS]);
    const never = whole || found.floor === null ? "never" : "never, with such batches";
    const [a, b] = found.path[STEPS];
    find("distance").textContent = said(Math.hypot(a - TARGET[0], b - TARGET[1]));
    find("needed").textContent = found.needed === null ? `more than ${LONGEST}` : found.needed === Infinity ? never : said(found.needed);
    const grows = chosen.lr >= found.limit;
    find("floor").textContent = grows ? "nowhere: it grows" : whole ? "at the minimum" : said(found.floor);
    draw();
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
  for (const input of inputs) input.addEventListener("input", () => { stop(); change(); });
  find("play").addEventListener("click", play);
  find("again").addEventListener("click", () => { seed += 1; stop(); change(); });
  change();
}

// For those who want the numbers, and for the tests.
window.stage = { numbers, table };
if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
else begin();

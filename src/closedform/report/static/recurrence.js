"use strict";
// Gradient descent with momentum along one direction, in closed form at any step: the same formulas as
// closedform/forecast/recurrence.py. s is lr times the eigenvalue, m the momentum.

function direction(s, m, nesterov) {
  if (m === 0) {
    const size = logDistance(s);
    const factor = (t) => power(1 - s, size, t);
    return { factor, envelope: (t) => Math.abs(factor(t)) };
  }
  const lead = nesterov ? 1 + m : 1;
  const sum = nesterov ? (1 + m) * (1 - s) : 1 + m - s;
  const product = nesterov ? m * (1 - s) : m;
  const P = 1 - m + lead * s;
  const discriminant = P * P - 4 * s;
  const root = Math.sqrt(Math.abs(discriminant));
  const first = 1 - lead * s;
  const atStart = (value, t) => (t === 0 ? 1 : Number.isNaN(value) ? Infinity : value);

  if (discriminant < 0) {
    const slope = (1 - m - lead * s) / 2;
    const angle = Math.atan2(root, sum);
    const height = slope / (root / 2);
    const decay = (t) => Math.exp((t / 2) * Math.log(product));
    const wave = (t) => Math.cos(t * angle) + height * Math.sin(t * angle);
    const bound = (t) => Math.min(Math.hypot(1, height), 1 + (Math.abs(slope) / Math.sqrt(product)) * t);
    return { factor: (t) => atStart(decay(t) * wave(t), t), envelope: (t) => atStart(decay(t) * bound(t), t) };
  }

  // The root of larger size leads; the other enters as a ratio to it. Roots are 1 - q, so none next to 1 is rounded to 1.
  const q2 = (P + root) / 2;
  const q1 = s / q2;
  const near = Math.abs(1 - q1) >= Math.abs(1 - q2);
  const q = near ? q1 : q2;
  const leading = 1 - q;
  if (leading === 0) {
    const factor = (t) => (t === 0 ? 1 : t === 1 ? first : 0);
    return { factor, envelope: (t) => Math.abs(factor(t)) };
  }
  const ratio = (near ? 1 - q2 : 1 - q1) / leading;
  const slope = near ? q1 * (1 - lead * q2) : q2 * (1 - lead * q1);
  const logRatio = Math.log1p(-Math.min(root / Math.abs(leading), 1));
  const growth = (t) => {
    if (ratio <= 0) return (1 - power(ratio, Math.log(Math.abs(ratio)), t)) / (1 - ratio);
    return logRatio === 0 ? t : Math.expm1(t * logRatio) / Math.expm1(logRatio);
  };
  const factor = (t) => atStart(power(leading, logDistance(q), t) * (1 + (slope / leading) * growth(t)), t);
  return { factor, envelope: (t) => Math.abs(factor(t)) };
}

// log |1 - q|, accurate for small q.
function logDistance(q) {
  return q < 0.5 ? Math.log1p(-q) : Math.log(Math.abs(1 - q));
}

// base^t for whole t, from the logarithm of its size.
function power(base, logSize, t) {
  if (t === 0) return 1;
  return (base < 0 && t % 2 === 1 ? -1 : 1) * Math.exp(t * logSize);
}

// Excess loss by step, for one choice of lr, momentum and nesterov.
function simulate(eigenvalues, startExcess, { lr, momentum, nesterov }) {
  const moving = startExcess.flatMap((start, i) => (start > 0 ? [i] : []));
  const along = moving.map((i) => direction(lr * eigenvalues[i], momentum, nesterov));
  const total = (pick, t) =>
    along.reduce((sum, each, j) => sum + startExcess[moving[j]] * each[pick](t) ** 2, 0);
  const largest = Math.max(0, ...eigenvalues.slice(0, 1));
  const limit = largest > 0 ? (2 * (1 + momentum)) / ((nesterov ? 1 + 2 * momentum : 1) * largest) : Infinity;

  // Steps until the envelope stays at or below a goal: doubling, then bisection.
  const stepsTo = (goal) => {
    if (!(lr < limit)) return Infinity;
    if (momentum === 0 && total("factor", 0) <= goal) return 0;
    let high = 1;
    while (total("envelope", high) > goal) {
      high *= 2;
      if (high > 2 ** 62) return Infinity;
    }
    let low = Math.floor(high / 2);
    while (high - low > Math.max(1, high * 1e-15)) {
      const middle = Math.floor((low + high) / 2);
      if (total("envelope", middle) <= goal) high = middle;
      else low = middle;
    }
    return high;
  };
  // Excess along every direction after t steps.
  const left = (t) => {
    const parts = new Array(startExcess.length).fill(0);
    along.forEach((each, j) => (parts[moving[j]] = startExcess[moving[j]] * each.factor(t) ** 2));
    return parts;
  };
  return { excess: (t) => total("factor", t), left, limit, stepsTo };
}

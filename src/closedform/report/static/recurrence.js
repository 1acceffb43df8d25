"use strict";
// Gradient descent with momentum along one direction, in closed form at any step: the same formulas as
// closedform/explain/forecasts/recurrence.py. scaled is lr times the eigenvalue, m the momentum, dampening as in torch.optim.SGD.

function direction(scaled, m, nesterov, dampening) {
  if (m === 0) {
    const size = logDistance(scaled);
    const factor = (t) => power(1 - scaled, size, t);
    return { factor, envelope: (t) => Math.abs(factor(t)) };
  }
  const s = (1 - dampening) * scaled;
  // What the first gradient moves, as a multiple of s; with dampening that is more than later ones do.
  const lead = nesterov ? 1 + m : 1 / (1 - dampening);
  const sum = nesterov ? (1 + m) * (1 - s) : 1 + m - s;
  const product = nesterov ? m * (1 - s) : m;
  const P = 1 - m + (nesterov ? 1 + m : 1) * s;
  const discriminant = P * P - 4 * s;
  const root = Math.sqrt(Math.abs(discriminant));
  const first = 1 - lead * s;
  const atStart = (value, t) => (t === 0 ? 1 : Number.isNaN(value) ? Infinity : value);

  if (discriminant < 0) {
    const slope = (1 - m - (nesterov ? lead : 2 * lead - 1) * s) / 2;
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

// Excess loss by step, for one choice of lr, momentum, nesterov, weight decay and dampening. Along a direction it is
// constant + linear * f + square * f^2 with f the error as a multiple of that at the start; without weight decay only
// the last is there.
function simulate(simulation, { lr, momentum, nesterov, weight_decay, dampening }) {
  const { eigenvalues, start_excess, start_towards_zero, zero_excess } = simulation;
  const along = eigenvalues.map((eigenvalue, i) => {
    const pull = weight_decay / (eigenvalue + weight_decay);
    const constant = pull ** 2 * zero_excess[i];
    const linear = -2 * (pull * start_towards_zero[i] + constant);
    const square = Math.max(0, start_excess[i] + 2 * pull * start_towards_zero[i] + constant);
    const { factor, envelope } = direction(lr * (eigenvalue + weight_decay), momentum, nesterov, dampening);
    const excess = (f) => (square > 0 ? Math.max(0, constant + linear * f + square * f ** 2) : constant);
    // The middle part may have either sign, so its size bounds it.
    const bound = (e) => (square > 0 ? constant + Math.abs(linear) * e + square * e ** 2 : constant);
    return { constant, square, at: (t) => excess(factor(t)), below: (t) => bound(envelope(t)) };
  });
  const total = (pick, t) => along.reduce((sum, each) => sum + each[pick](t), 0);
  const excess = (t) => total("at", t);
  const largest = eigenvalues.length ? eigenvalues[0] + weight_decay : 0;
  const gradient = nesterov ? 1 + 2 * momentum : momentum > 0 ? 1 - dampening : 1;
  const limit = largest > 0 ? (2 * (1 + momentum)) / (gradient * largest) : Infinity;

  // Steps from which on the excess stays at or below a goal: from the envelope by doubling and bisection, and then
  // exactly where the curve up to there is short.
  const stepsTo = (goal) => {
    const plain = momentum === 0;
    if (plain && excess(0) <= goal && (lr < limit || !along.some(({ square }) => square > 0))) return 0;
    if (!(lr < limit) || !(along.reduce((sum, { constant }) => sum + constant, 0) <= goal)) return Infinity;
    let high = 1;
    while (!(total("below", high) <= goal)) {
      high *= 2;
      if (high >= 2 ** 62) return Infinity;
    }
    let low = Math.floor(high / 2);
    while (high - low > Math.max(1, high * 1e-15)) {
      const middle = Math.floor((low + high) / 2);
      if (total("below", middle) <= goal) high = middle;
      else low = middle;
    }
    if ((plain && !weight_decay) || high * eigenvalues.length > 2 ** 22) return high;
    while (high > 0 && excess(high - 1) <= goal) high -= 1;
    return high;
  };
  return { excess, left: (t) => along.map(({ at }) => at(t)), limit, stepsTo };
}

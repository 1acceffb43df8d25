// What the reader can move and press. Charts, ranges and words come with the page.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

function shortNumber(value) {
  if (value === Infinity) return "never";
  if (Number.isInteger(value) && Math.abs(value) < 1e5) return value.toLocaleString("en");
  if (Math.abs(value) >= 1e-3 && Math.abs(value) < 999.5) return value.toPrecision(3);
  return value.toExponential(1).replace("e+", "e");
}

// ---- light and dark -------------------------------------------------------------------------------------------
// In a notebook the page stands in a frame of its own, and is as light or dark as what lies behind the frame.
function host() {
  try {
    return window.frameElement;
  } catch {
    return null; // a frame of another origin
  }
}
function isDarkBehind(element) {
  for (let at = element; at; at = at.parentElement) {
    const [red, green, blue, alpha] = at.ownerDocument.defaultView.getComputedStyle(at).backgroundColor.match(/[\d.]+/g).map(Number);
    if (alpha !== 0) return 0.299 * red + 0.587 * green + 0.114 * blue < 128;
  }
  return matchMedia("(prefers-color-scheme: dark)").matches;
}
const frame = host();
const themeButton = byId("theme");
let chosenTheme = null; // by the reader
const surrounding = () => (frame ? isDarkBehind(frame.parentElement) : matchMedia("(prefers-color-scheme: dark)").matches);
function setTheme() {
  const dark = chosenTheme === null ? surrounding() : chosenTheme === "dark";
  if (chosenTheme !== null || frame) document.documentElement.dataset.theme = dark ? "dark" : "light";
  themeButton.textContent = dark ? "light" : "dark";
}
themeButton.addEventListener("click", () => {
  chosenTheme = themeButton.textContent;
  setTheme();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", setTheme);
setTheme();

if (frame) {
  document.documentElement.dataset.framed = "";
  // Notebooks change their theme by attributes of these two, and load its style a moment later.
  const later = () => setTimeout(setTheme, 300);
  const watch = new MutationObserver(() => { setTheme(); later(); });
  for (const element of [frame.ownerDocument.documentElement, frame.ownerDocument.body]) watch.observe(element, { attributes: true });
  later();
  // A short page takes no more room than it needs.
  const most = frame.clientHeight;
  const fit = () => (frame.style.height = `${Math.min(most, document.documentElement.scrollHeight)}px`);
  addEventListener("load", fit);
  // A link within the page would else be one of the notebook: there is no address to go to in a frame.
  for (const link of document.querySelectorAll('a[href^="#"]')) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      document.querySelector(link.getAttribute("href")).scrollIntoView({ behavior: "smooth" });
    });
  }
}

// ---- copy and save --------------------------------------------------------------------------------------------
// Some browsers refuse the clipboard to a page opened from a file: the older way often works there, and where it does
// not the text is left selected.
function copySelection(element) {
  getSelection().selectAllChildren(element);
  return document.execCommand("copy") ? "copied" : "selected";
}
for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", async () => {
    const code = button.nextElementSibling;
    const said = await navigator.clipboard.writeText(code.textContent).then(() => "copied", () => copySelection(code));
    button.textContent = said;
    setTimeout(() => (button.textContent = "copy"), 1500);
  });
}
byId("save")?.addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(data, null, 2)], { type: "application/json" }));
  link.download = "closedform.json";
  link.click();
  URL.revokeObjectURL(link.href);
});

// ---- the forecast that the reader moves -----------------------------------------------------------------------
function axis(text) {
  const { low, high, first, last, logarithmic } = JSON.parse(text);
  const measure = logarithmic ? Math.log10 : Number;
  return (value) => first + clamp((measure(value) - low) / (high - low), -0.05, 1.05) * (last - first);
}

function forecastControls(simulation) {
  const chart = byId("forecast").querySelector("svg[data-x]");
  const leftChart = byId("left").querySelector("svg[data-x]");
  const [x, y] = [axis(chart.dataset.x), axis(chart.dataset.y)];
  const [leftX, leftY] = [axis(leftChart.dataset.x), axis(leftChart.dataset.y)];
  const [done, beyond] = chart.querySelectorAll("path.live");
  const numbers = ["lr", "momentum", "weight_decay", "dampening", "steps"];
  // Dampening has a field only where the run has some.
  const input = Object.fromEntries(numbers.filter(byId).map((name) => [name, byId(name)]));
  const slider = Object.fromEntries(numbers.filter((name) => byId(`${name}-slider`)).map((name) => [name, byId(`${name}-slider`)]));
  const nesterov = byId("nesterov");
  // How a slider's place becomes a number, and back.
  const toNumber = {
    lr: (place) => Number((10 ** place).toPrecision(4)),
    momentum: (place) => Number((1 - 10 ** -place).toPrecision(4)),
    weight_decay: (place) => (place > Number(slider.weight_decay.min) ? Number((10 ** place).toPrecision(4)) : 0),
    steps: (place) => Math.round(10 ** place),
  };
  const toPlace = {
    lr: (lr) => Math.log10(lr),
    momentum: (momentum) => -Math.log10(1 - momentum),
    weight_decay: (decay) => (decay > 0 ? Math.log10(decay) : Number(slider.weight_decay.min)),
    steps: (steps) => Math.log10(Math.max(steps, 1)),
  };
  const lastDecade = JSON.parse(chart.dataset.x).high;
  const group = Math.ceil(simulation.eigenvalues.length / data.marks);

  const presets = [...document.querySelectorAll("button.preset")];
  const rates = [simulation.lr, ...presets.map((preset) => Number(preset.dataset.lr))].filter((lr) => lr > 0);
  const stable = 2 / simulation.eigenvalues[0];
  slider.lr.min = Math.log10(Math.min(stable * 1e-4, ...rates));
  slider.lr.max = Math.log10(Math.max(stable * 4, ...rates));
  // The left end is no weight decay at all.
  const decays = [simulation.weight_decay, ...presets.map((preset) => Number(preset.dataset.weight_decay))].filter((decay) => decay > 0);
  slider.weight_decay.min = Math.log10(Math.min(simulation.eigenvalues[0] * 1e-8, ...decays)) - 1;
  slider.weight_decay.max = Math.log10(Math.max(simulation.eigenvalues[0], ...decays));
  slider.momentum.max = Math.max(4, ...presets.map((preset) => toPlace.momentum(Number(preset.dataset.momentum))));

  function settings() {
    return {
      lr: Math.max(0, Number(input.lr.value)),
      momentum: clamp(Number(input.momentum.value), 0, Number(input.momentum.max)),
      nesterov: nesterov.checked,
      weight_decay: Math.max(0, Number(input.weight_decay.value)),
      // As torch.optim.SGD has it, there is none with Nesterov's momentum.
      dampening: input.dampening && !nesterov.checked ? clamp(Number(input.dampening.value), 0, Number(input.dampening.max)) : 0,
      steps: clamp(Math.round(Number(input.steps.value)), 0, 1e18),
    };
  }

  function draw() {
    const chosen = settings();
    const run = simulate(simulation, chosen);
    const points = clamp(Math.round(1e6 / simulation.eigenvalues.length), 40, 240);
    const steps = new Set(Array.from({ length: points }, (_, i) => Math.round(10 ** ((i * lastDecade) / (points - 1)))));
    const sorted = [...steps.add(chosen.steps)].sort((a, b) => a - b);
    const curve = { steps: sorted, excess: sorted.map(run.excess) };
    const path = (keep) =>
      sorted.map((t, i) => (keep(t) ? `${x(t).toFixed(1)} ${y(curve.excess[i]).toFixed(1)}` : "")).filter(Boolean);
    const line = (corners) => (corners.length > 1 ? `M${corners.join("L")}` : "");
    done.setAttribute("d", line(path((t) => t <= chosen.steps)));
    beyond.setAttribute("d", line(path((t) => t >= chosen.steps)));

    const excess = run.excess(chosen.steps);
    const cursor = chart.querySelector(".cursor");
    cursor.setAttribute("x1", x(chosen.steps));
    cursor.setAttribute("x2", x(chosen.steps));
    chart.querySelector("circle.live").setAttribute("cx", x(chosen.steps));
    chart.querySelector("circle.live").setAttribute("cy", y(excess));

    const left = run.left(chosen.steps);
    const dots = [];
    for (let i = 0; i < left.length; i += group) {
      const some = left.slice(i, i + group);
      const sum = some.reduce((a, b) => a + b, 0);
      if (sum > 0) dots.push(`M${leftX(i + (some.length + 1) / 2).toFixed(1)} ${leftY(sum).toFixed(1)}h0`);
    }
    leftChart.querySelector("path.live").setAttribute("d", dots.join(""));

    const goal = run.stepsTo(simulation.goal_excess);
    const shown = { excess, loss: simulation.optimal_loss + excess, goal, limit: run.limit };
    for (const [name, value] of Object.entries(shown)) {
      byId(`live-${name}`).textContent = shortNumber(value);
      byId(`live-${name}`).dataset.value = value;
    }
    window.closedform = { ...chosen, ...shown, curve };
  }

  let waiting = 0;
  function redraw() {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(draw);
  }
  function place(name) {
    const value = Number(input[name].value);
    if (value > 0 || name !== "lr") slider[name].value = toPlace[name](value);
  }
  for (const name of Object.keys(slider)) {
    slider[name].addEventListener("input", () => {
      input[name].value = toNumber[name](Number(slider[name].value));
      redraw();
    });
    input[name].addEventListener("input", () => place(name));
    place(name);
  }
  for (const field of Object.values(input)) field.addEventListener("input", redraw);
  nesterov.addEventListener("change", redraw);
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  function choose(settings) {
    for (const [name, field] of Object.entries(input)) field.value = settings[name] ?? field.value;
    nesterov.checked = settings.nesterov;
    Object.keys(slider).forEach(place);
    redraw();
  }
  byId("controls").addEventListener("reset", (event) => {
    event.preventDefault();
    choose(simulation);
  });
  for (const preset of presets) {
    preset.addEventListener("click", () => {
      choose({ ...preset.dataset, nesterov: preset.dataset.nesterov === "true" });
      chart.scrollIntoView({ block: "nearest", behavior: "smooth" });
    });
  }
  draw();
}

if (byId("controls")) forecastControls(data.diagnosis.simulation);

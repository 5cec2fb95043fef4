"use strict";
// The page of the admin interface. Everything is asked from the same origin; text goes into the page as text, never as markup.

const EVERY = 2000; // milliseconds between two looks
const POINTS = 120;
const TAIL_MAX = 200;
const $ = (id) => document.getElementById(id);

function element(name, options = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(options)) {
    if (key === "class") node.className = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== "").map((child) => (child instanceof Node ? child : String(child))));
  return node;
}

/** Puts nodes in place of those that are there; who was at one of them with the keyboard is then at its successor, by its label. */
function renew(target, nodes) {
  const label = target.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
  target.replaceChildren(...nodes);
  if (label) [...target.querySelectorAll("[aria-label]")].find((node) => node.getAttribute("aria-label") === label)?.focus({ preventScroll: true });
}

// ---------------------------------------------------------------- numbers

function round(value, digits = 1) {
  return Number(value.toFixed(digits)).toLocaleString("en");
}

function count(value) {
  if (value >= 1e6) return `${round(value / 1e6)} M`;
  return value >= 1e4 ? `${round(value / 1e3)} k` : round(value, value < 10 && value % 1 ? 1 : 0);
}

function time(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–";
  if (seconds < 1e-3) return `${round(seconds * 1e6, 0)} µs`;
  return seconds < 1 ? `${round(seconds * 1e3)} ms` : `${round(seconds, 2)} s`;
}

const bytes = (value) => (value >= 2 ** 20 ? `${round(value / 2 ** 20)} MiB` : value >= 1024 ? `${round(value / 1024, 0)} KiB` : `${round(value, 0)} B`);
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");

/** Where in a histogram the share q lies, in seconds; null when it is empty. */
function quantile(counts, bounds, q) {
  const total = counts.reduce((sum, n) => sum + n, 0);
  if (total === 0) return null;
  let below = 0;
  for (let i = 0; i < bounds.length; i++) {
    const from = i === 0 ? 0 : bounds[i - 1];
    if (counts[i] > 0 && below + counts[i] >= q * total) return from + ((bounds[i] - from) * (q * total - below)) / counts[i];
    below += counts[i];
  }
  return bounds[bounds.length - 1];
}

// ---------------------------------------------------------------- asking

class Denied extends Error {}

async function ask(path, method = "GET", body = undefined) {
  const answer = await fetch(path, { method, body: body === undefined ? undefined : JSON.stringify(body), headers: { Accept: "application/json" } });
  if (answer.status === 401) throw new Denied("sign in");
  const text = await answer.text();
  if (!answer.ok) {
    let detail = text;
    try { detail = JSON.parse(text).detail || text; } catch { /* it is no problem document */ }
    throw new Error(detail);
  }
  return answer.headers.get("Content-Type")?.includes("json") ? JSON.parse(text) : text;
}

function complain(error) {
  if (error instanceof Denied) return signIn();
  $("problem").hidden = false;
  $("problem").textContent = error.message;
}

function act(path, method, body) {
  ask(path, method, body).then(() => { $("problem").hidden = true; look(); }, complain);
}

// ---------------------------------------------------------------- traffic

const past = { rate: [], p50: [], p95: [], p99: [], before: null };

function svg(name, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

const WIDTH = 600;
const HEIGHT = 120;
const LEAST_POINTS = 30;

/** Numbers that are easy to read, from 0 to the first beyond all values. */
function roundTicks(most) {
  const power = 10 ** Math.floor(Math.log10(most || 1));
  const step = [0.25, 0.5, 1, 2.5].map((factor) => factor * power).find((size) => size * 4 >= most) || 5 * power;
  return [0, 1, 2, 3, 4].map((i) => i * step).filter((tick) => tick - step < most || tick === 0);
}

/** Powers of ten around all values. */
function decades(values) {
  const least = Math.floor(Math.log10(Math.min(...values, 1e-3)));
  const most = Math.max(least + 1, Math.ceil(Math.log10(Math.max(...values, 1e-3))));
  return Array.from({ length: most - least + 1 }, (_, i) => 10 ** (least + i));
}

/** A line that stops where there is no value. */
function line(values, points, height) {
  const step = WIDTH / (points - 1);
  let pen = "M";
  return values.map((value, i) => {
    if (value === null) { pen = "M"; return ""; }
    const text = `${pen}${((points - values.length + i) * step).toFixed(1)} ${height(value).toFixed(1)}`;
    pen = "L";
    return text;
  }).join("");
}

/** lines: { kind, values }; ticks of the axis, from below; scale: where between 0 and 1 a value lies; label(value): its text. */
function chart(id, lines, ticks, scale, label) {
  const target = $(id);
  const height = (value) => HEIGHT - HEIGHT * Math.min(1, Math.max(0, scale(value)));
  const points = Math.max(LEAST_POINTS, ...lines.map((one) => one.values.length));
  target.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  target.setAttribute("preserveAspectRatio", "none");
  const nodes = ticks.map((tick) => svg("path", { class: "grid", d: `M0 ${height(tick).toFixed(1)}H${WIDTH}` }));
  if (lines.length === 1 && lines[0].values.length > 1) {
    const from = (((points - lines[0].values.length) * WIDTH) / (points - 1)).toFixed(1);
    nodes.push(svg("path", { class: "area", d: `${line(lines[0].values, points, height)}L${WIDTH} ${HEIGHT}L${from} ${HEIGHT}Z` }));
  }
  nodes.push(...lines.map((one) => svg("path", { class: `line ${one.kind}`, d: line(one.values, points, height) })));
  target.replaceChildren(...nodes);
  const plot = target.parentElement;
  plot.querySelectorAll("span").forEach((node) => node.remove());
  for (const tick of ticks) {
    const text = element("span", { class: "tick" }, label(tick));
    text.style.top = `${(100 * height(tick)) / HEIGHT}%`;
    plot.append(text);
  }
  plot.append(element("span", { class: "from" }, `${span((points - 1) * EVERY / 1000)} ago`), element("span", { class: "to" }, "now"));
}

function keep(list, value) {
  list.push(value);
  if (list.length > POINTS) list.shift();
}

function difference(now, before) {
  return now.map((value, i) => Math.max(0, value - (before ? before[i] : 0)));
}

/** What each route has done since the last look. */
function since(routes, before, seconds) {
  return routes.filter((route) => route.counts).map((route) => {
    const old = before?.get(route.name);
    const classes = {};
    for (const [name, total] of Object.entries(route.counts.requests)) classes[name] = Math.max(0, total - (old ? old.requests[name] : 0)) / seconds;
    const counts = difference(route.counts.duration.counts, old?.duration.counts);
    return { route, classes, counts, rate: Object.values(classes).reduce((a, b) => a + b, 0) };
  });
}

function tile(value, label, bad = false) {
  return element("div", { class: bad ? "tile bad" : "tile" }, element("b", {}, value), element("span", {}, label));
}

/** A cell of a table: nothing is less to be seen than something. */
function number(value, bad = false) {
  return element("td", { class: value > 0 ? (bad ? "n bad" : "n") : "n quiet" }, count(value));
}

/** How many fail, and behind it how large a share that is. */
function errors5xx(row) {
  const cell = number(row.classes["5xx"], true);
  if (row.rate > 0 && row.classes["5xx"] > 0) cell.append(element("span", { class: "share" }, `${round((100 * row.classes["5xx"]) / row.rate, 0)} %`));
  return cell;
}

function show(status, answer) {
  const routes = [...answer.routes, { name: "none", path: [], counts: answer.none }];
  const now = performance.now();
  const seconds = past.before ? (now - past.at) / 1000 : status.uptime;
  const rows = since(routes, past.before, seconds);
  const all = rows.reduce((sum, row) => sum.map((n, i) => n + row.counts[i]), new Array(answer.bounds.length + 1).fill(0));
  const rate = rows.reduce((sum, row) => sum + row.rate, 0);
  const errors = rows.reduce((sum, row) => sum + row.classes["5xx"], 0);
  const at = (q) => quantile(all, answer.bounds, q);
  if (past.before) {
    keep(past.rate, rate);
    for (const [name, q] of [["p50", 0.5], ["p95", 0.95], ["p99", 0.99]]) keep(past[name], at(q));
  }
  past.before = new Map(routes.filter((route) => route.counts).map((route) => [route.name, route.counts]));
  past.at = now;
  const totals = status.totals;
  $("tiles").replaceChildren(
    tile(count(rate), "requests / s"), tile(time(at(0.5)), "p50 latency"), tile(time(at(0.99)), "p99 latency"),
    tile(rate > 0 ? `${round((100 * errors) / rate)} %` : "–", "5xx", errors > 0), tile(count(totals.connections), "connections"),
    tile(time(totals.loop_lag), "event-loop lag", totals.loop_lag > 0.1), tile(bytes(totals.lua_bytes), "Lua memory"),
    tile(count(totals.log_lost), "log lines lost", totals.log_lost > 0));
  $("rate-now").textContent = past.rate.length ? `· ${count(rate)} now` : "";
  $("latency-now").textContent = past.p50.length === 0 || at(0.5) === null ? "" : `· ${["p50", "p95", "p99"].map((kind) => time(past[kind].at(-1))).join(" / ")} now`;
  drawCharts();
  rows.sort((a, b) => b.classes["5xx"] - a.classes["5xx"] || b.rate - a.rate);
  $("routes").tBodies[0].replaceChildren(...rows.map((row) => element("tr", {},
    element("td", { class: "name", title: `${row.route.name} ${row.route.path.join(" ")}` }, row.route.name), element("td", {}, row.route.to || row.route.handler || ""), number(row.rate),
    ...["2xx", "3xx", "4xx"].map((name) => number(row.classes[name])), errors5xx(row),
    ...[0.5, 0.95, 0.99].map((q) => element("td", { class: "n" }, time(quantile(row.counts, answer.bounds, q)))))));
  $("about").replaceChildren("generation ", element("code", {}, status.generation), ` · ${status.workers.length} workers · up ${span(status.uptime)}`);
}

function drawCharts() {
  const rates = roundTicks(Math.max(4, ...past.rate));
  chart("rate-chart", [{ kind: "rate", values: past.rate }], rates, (value) => value / rates.at(-1), count);
  const powers = decades(["p50", "p95", "p99"].flatMap((kind) => past[kind]).filter((value) => value > 0));
  const [least, most] = [Math.log10(powers[0]), Math.log10(powers.at(-1))];
  chart("latency-chart", ["p50", "p95", "p99"].map((kind) => ({ kind, values: past[kind] })), powers,
    (value) => (Math.log10(Math.max(value, powers[0])) - least) / (most - least), time);
}

function span(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} d`;
}

const pluginsBefore = new Map();

function showPlugins(plugins) {
  const now = performance.now();
  const rows = plugins.map((one) => {
    const key = `${one.plugin} ${one.phase}`;
    const before = pluginsBefore.get(key);
    pluginsBefore.set(key, { ...one, now });
    const seconds = before ? (now - before.now) / 1000 : 0;
    const calls = before ? one.calls - before.calls : one.calls;
    const took = before ? one.seconds - before.seconds : one.seconds;
    const each = (name) => (calls > 0 ? (one[name] - (before ? before[name] : 0)) / calls : null);
    return { one, rate: seconds ? calls / seconds : null, each, share: seconds ? took / seconds : null };
  });
  rows.sort((a, b) => (b.share || 0) - (a.share || 0) || b.one.seconds - a.one.seconds);
  $("plugins").tBodies[0].replaceChildren(...rows.slice(0, 12).map((row) => element("tr", {},
    element("td", {}, row.one.plugin), element("td", {}, row.one.phase), element("td", { class: "n" }, row.rate === null ? "–" : count(row.rate)),
    element("td", { class: "n" }, time(row.each("seconds"))), element("td", { class: "n" }, time(row.each("cpu_seconds"))),
    element("td", { class: "n" }, row.each("lua_allocated_bytes") === null ? "–" : bytes(row.each("lua_allocated_bytes"))), element("td", { class: "n" }, time(row.share)),
    number(row.one.errors, true))));
}

// ---------------------------------------------------------------- upstreams

function peer(upstream, one) {
  const change = (state) => () => act(`/upstreams/${encodeURIComponent(upstream)}/peers/${encodeURIComponent(one.name)}`, "PUT", { state });
  const actions = ["up", "drain", "down"].map((state) => element("button", { class: "small", type: "button", onclick: change(state), "aria-label": `${state} ${one.name}`, "data-of": upstream }, state));
  return element("div", { class: `peer ${one.state}` }, element("span", { class: "mono", title: one.name }, one.name), element("span", { class: "state" }, one.state),
    element("span", { class: "quiet detail" }, `${time(one.latency)} · ${one.in_flight} in flight · ${count(one.failures)} / ${count(one.requests)} failed`),
    element("span", { class: "actions" }, ...actions));
}

function showUpstreams(list) {
  renew($("upstream-map"), list.map((up) => {
    const open = up.breaker === "open";
    const toggle = element("button", { class: "small", type: "button", "aria-label": `breaker of ${up.name}`,
      onclick: () => act(`/upstreams/${encodeURIComponent(up.name)}/breaker`, "PUT", { state: open ? "closed" : "open" }) }, open ? "close breaker" : "open breaker");
    return element("div", { class: `card ${up.peers.every((one) => one.state !== "up") || open ? "failing" : up.peers.some((one) => one.state !== "up") ? "ailing" : ""}` },
      element("h3", {}, up.name, element("span", { class: open ? "bad" : up.breaker === "closed" ? "good" : "warn" }, `breaker ${up.breaker}`), toggle),
      element("p", { class: "quiet" }, `${up.in_flight} in flight · ${up.waiting} waiting · ${count(up.retries)} retries`), ...up.peers.map((one) => peer(up.name, one)));
  }));
  if (list.length === 0) $("upstream-map").textContent = "The configuration has no upstream.";
}

// ---------------------------------------------------------------- generations

function paint(text) {
  return text.trimEnd().split("\n").map((line) => {
    const kind = /^(---|\+\+\+|@@)/.test(line) ? "name" : line[0] === "+" ? "add" : line[0] === "-" ? "remove" : "same";
    return element("span", { class: kind }, `${line}\n`);
  });
}

const diffs = new Map();

async function compare(item, older, newer) {
  const shown = item.querySelector("pre");
  if (shown) { diffs.delete(newer); shown.remove(); return; }
  try {
    const text = await ask(`/generations/${older}/diff/${newer}`);
    diffs.set(newer, text);
    item.append(element("pre", { class: "diff", tabindex: "0" }, ...paint(text || "Nothing that has a name: a secret, or the program itself.")));
  } catch (error) { complain(error); }
}

let known = "";

function showGenerations(list) {
  const key = list.map((one) => one.id + one.serial + one.live).join();
  if (key === known) return;
  known = key;
  $("generation-list").replaceChildren(...list.map((one, i) => {
    const item = element("li", { class: one.live ? "live" : "" });
    const older = list[i + 1];
    item.append(element("div", { class: "line" }, element("code", {}, one.id), one.live ? element("b", { class: "good" }, "live") : "",
      element("span", { class: "quiet" }, `${clock(one.committed)} by ${one.by}`), element("span", {}, one.change),
      older ? element("button", { class: "small", type: "button", onclick: () => compare(item, older.id, one.id) }, "diff") : "",
      one.live ? "" : element("button", { class: "small", type: "button", onclick: () => act("/rollback", "POST", { id: one.id }) }, "roll back to this")));
    return item;
  }));
}

function trialButtons() {
  return [element("button", { class: "small", type: "button", onclick: () => act("/canary", "PUT", { state: "promoted" }) }, "promote"), " ",
    element("button", { class: "small", type: "button", onclick: () => act("/canary", "PUT", { state: "aborted" }) }, "abort")];
}

function showShadow(shadow) {
  const counts = Object.entries(shadow.counts).filter(([, n]) => n > 0).map(([kind, n]) => `${count(n)} ${kind}`);
  $("canary").replaceChildren(element("b", {}, `In shadow ${shadow.id}: ${round(shadow.share * 100)} % of requests`), " ", ...trialButtons(),
    element("p", { class: "quiet" }, counts.join(", ") || "no requests yet"),
    ...Object.entries(shadow.examples).map(([kind, text]) => element("p", { class: "quiet" }, `${kind}: ${text}`)));
}

function showCanary(canary, shadow) {
  $("canary").hidden = !canary && !shadow;
  if (shadow) showShadow(shadow);
  if (!canary) return;
  if ($("canary").contains(document.activeElement)) return; // somebody is about to press a button
  const side = (one) => `${count(one.requests)} requests, ${count(one.failed)} failed, ${count(one.raised)} errors of plugins`;
  $("canary").replaceChildren(element("b", {}, `Canary ${canary.id}: ${round(canary.share * 100)} % of requests`), " ",
    element("progress", { max: canary.watch, value: Math.max(0, canary.watch - canary.left) }), " ",
    ...trialButtons(), element("p", { class: "quiet" }, `canary: ${side(canary.canary)} · current: ${side(canary.current)}`));
}

// ---------------------------------------------------------------- limits and failures

function showLimits(list) {
  $("limit-list").replaceChildren(...list.map((one) => element("div", { class: "card" }, element("h3", {}, one.name),
    element("p", { class: "quiet" }, `${count(one.allowed)} allowed · ${count(one.denied)} denied · ${count(one.fallen)} without Redis`),
    ...one.top.slice(0, 8).map((top) => element("div", { class: "hot" }, element("span", { class: "mono", title: top.key }, top.key),
      element("meter", { min: 0, max: Math.max(...one.top.map((each) => each.denied)), value: top.denied }), element("span", { class: "n" }, count(top.denied)))))));
  if (list.length === 0) $("limit-list").textContent = "The configuration has no rate limit with a name.";
}

function statusCell(one) {
  return element("td", { class: one.status >= 500 || one.aborted ? "n bad" : one.status >= 400 ? "n warn" : "n" }, one.aborted ? "cut" : one.status);
}

function request(one) {
  return element("td", { class: "mono wide", title: `${one.method} ${one.host}${one.path}` }, `${one.method} ${one.host}${one.path}`);
}

function showFailures(list) {
  $("failure-list").tBodies[0].replaceChildren(...list.slice(0, 50).map((one) => element("tr", {}, element("td", {}, clock(one.at)), statusCell(one), request(one),
    element("td", {}, one.route), element("td", { class: "mono" }, one.peer), element("td", { class: "n" }, time(one.duration)),
    element("td", {}, one.error || (one.reason === "slow" ? "slow" : one.source)))));
}

// ---------------------------------------------------------------- tail

let source = null;

function stopTail(state = "") {
  source?.close();
  source = null;
  $("tail-toggle").textContent = "Follow";
  $("tail-state").textContent = state;
}

function startTail() {
  source?.close();
  const query = new URLSearchParams([...new FormData($("tail-form"))].map(([name, value]) => [name, value.trim()]).filter(([, value]) => value !== ""));
  source = new EventSource(`/tail?${query}`);
  $("tail-toggle").textContent = "Stop";
  $("tail-state").textContent = "following";
  source.onerror = () => (source?.readyState === EventSource.CLOSED ? stopTail("the gateway has ended it") : ($("tail-state").textContent = "connecting again"));
  source.onopen = () => { $("tail-state").textContent = "following"; };
  source.onmessage = (message) => {
    const one = JSON.parse(message.data);
    const body = $("tail-list").tBodies[0];
    body.prepend(element("tr", {}, element("td", {}, clock(one.at)), statusCell(one), request(one), element("td", {}, one.route), element("td", { class: "mono" }, one.client),
      element("td", { class: "mono" }, one.peer), element("td", { class: "n" }, time(one.duration))));
    while (body.rows.length > TAIL_MAX) body.deleteRow(-1);
  };
}

function follow(event) {
  event.preventDefault();
  if (source && event.submitter) stopTail();
  else startTail();
}

/** Other filters hold at once, and for what is shown from now on. */
function filter() {
  if (!source) return;
  $("tail-list").tBodies[0].replaceChildren();
  startTail();
}

// ---------------------------------------------------------------- the page

let timer = 0;

async function look() {
  clearTimeout(timer);
  try {
    const [status, routes, upstreams, limits, failures, plugins] = await Promise.all(["/status", "/routes", "/upstreams", "/limits", "/failures", "/plugins"].map((path) => ask(path)));
    $("login").hidden = true;
    $("app").hidden = false;
    show(status, routes);
    showPlugins(plugins.plugins);
    showUpstreams(upstreams.upstreams);
    showGenerations(status.generations);
    showCanary(status.canary, status.shadow);
    showLimits(limits.limits);
    showFailures(failures.failures);
    if (status.reload_error) complain(new Error(`The last reload was refused: ${status.reload_error}`));
  } catch (error) { complain(error); }
  if (!$("app").hidden) timer = setTimeout(look, EVERY);
}

function signIn() {
  stopTail();
  $("app").hidden = true;
  $("login").hidden = false;
  $("token").focus();
}

$("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await fetch("/session", { method: "PUT", body: JSON.stringify({ token: $("token").value }) });
  $("token").value = "";
  if (answer.ok) {
    $("login-problem").textContent = "";
    look();
  } else {
    $("login-problem").textContent = answer.status === 429 ? "Too many wrong tokens: wait a minute." : "That is not the token.";
  }
});
$("logout").addEventListener("click", () => fetch("/session", { method: "DELETE" }).then(signIn));
$("reload").addEventListener("click", () => act("/reload", "POST", {}));
$("tail-form").addEventListener("submit", follow);
$("tail-form").addEventListener("change", filter);

function paintPage(dark) {
  document.documentElement.classList.toggle("dark", dark);
  document.documentElement.classList.toggle("light", !dark);
}

// What was chosen once holds for this browser; otherwise its own preference does.
const chosen = localStorage.getItem("tidegate-theme");
if (chosen) paintPage(chosen === "dark");
$("theme").addEventListener("click", () => {
  const root = document.documentElement.classList;
  const dark = root.contains("dark") || (!root.contains("light") && matchMedia("(prefers-color-scheme: dark)").matches);
  paintPage(!dark);
  localStorage.setItem("tidegate-theme", dark ? "light" : "dark");
});
look();

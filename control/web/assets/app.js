// The page: reads the agent's stream, keeps a bounded picture of it, draws.
import { Graph } from "./graph.js";
import { Details } from "./details.js";
import { Model, number, nodeKey, short, verdictOf } from "./model.js";

const $ = (id) => document.getElementById(id);
const model = new Model();
const mostRows = 200; // of the list; older ones are dropped

const details = new Details($("details"), model, { edge: (key) => select({ edge: key }), node: (key) => select({ node: key }) });
const graph = new Graph($("graph"), model, { edge: (key) => select({ edge: key }), node: (key) => select({ node: key }), none: () => select({}) });

let selected = {};
function select(what) {
  selected = what;
  details.show(what);
  graph.select(what);
  for (const tr of $("rows").children) tr.classList.toggle("on", tr.flow === what.flow);
}

// --- The list of flows. Rows are reused, never more than mostRows.

const two = (n) => String(n).padStart(2, "0");
function clock(text) {
  const d = new Date(text);
  return `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}.${String(d.getMilliseconds()).padStart(3, "0")}`;
}

function endText(end) {
  const addr = end.port ? (end.addr.includes(":") ? `[${end.addr}]:${end.port}` : `${end.addr}:${end.port}`) : end.addr;
  return end.pod ? [`${end.namespace}/${end.pod}`, addr] : [addr, ""];
}

function fillRow(tr, f) {
  const [src, srcMore] = endText(f.src), [dst, dstMore] = endText(f.dst);
  const verdict = f.event === "ended" ? "ended" : verdictOf(f);
  const cells = tr.children;
  cells[0].textContent = clock(f.time);
  const badge = cells[1].firstChild;
  badge.className = `verdict ${verdict}`;
  badge.textContent = { allow: "allowed", deny: "denied", audit: "audited", ended: "ended" }[verdict] + (f.event === "changed" ? " ↻" : "");
  cells[2].textContent = src; cells[2].title = srcMore || src;
  cells[3].textContent = dst; cells[3].title = dstMore || dst;
  const service = f.reply ? f.src.port : f.dst.port;
  cells[4].textContent = f.proto + (service && !f.proto.startsWith("ICMP") ? ` ${service}` : "");
  cells[5].textContent = short(f); cells[5].title = short(f);
  tr.flow = f.number;
  tr.data = f;
  tr.classList.toggle("on", f.number === selected.flow);
}

function newRow() {
  const tr = document.createElement("tr");
  for (let i = 0; i < 6; i++) tr.append(document.createElement("td"));
  tr.children[1].append(document.createElement("span"));
  tr.tabIndex = 0;
  return tr;
}

const pick = (tr) => tr && select({ flow: tr.flow, data: tr.data, edge: model.edgeOf(tr.data) });
$("rows").addEventListener("click", (e) => pick(e.target.closest("tr")));
$("rows").addEventListener("keydown", (e) => { if (e.key === "Enter") pick(e.target.closest("tr")); });

function addRows(flows) {
  const body = $("rows");
  for (let i = flows.length - 1; i >= 0; i--) {
    const tr = body.childElementCount >= mostRows ? body.lastElementChild : newRow();
    fillRow(tr, flows[i]);
    body.prepend(tr);
  }
}

// --- The head.

function head(m) {
  $("node").textContent = m.node;
  $("f-rate").textContent = number(m.perSecond);
  $("f-allow").textContent = number(model.totals.allow);
  $("f-deny").textContent = number(model.totals.deny);
  $("f-audit").textContent = number(model.totals.audit);
  $("f-lost").textContent = number(m.lost + m.missed);
  $("lostbox").classList.toggle("warn", m.lost + m.missed > 0);
  $("lostbox").title = `${m.lost} events that found no room at the workers, ${m.missed} that this page was too slow for`;
  $("f-pods").textContent = m.pods;
  $("f-gen").textContent = m.generation;
  const notes = [];
  if (m.notReady) notes.push(`not ready: ${m.notReady}`);
  if (m.rejected) notes.push(`${m.rejected} ${m.rejected === 1 ? "object is" : "objects are"} not in force as written`);
  if (model.hidden) notes.push("more edges than can be shown");
  $("note").textContent = notes.join(" · ");
}

function namespaces() {
  const box = $("namespace"), have = new Set([...box.options].map((o) => o.value));
  for (const ns of model.namespaces) {
    if (have.has(ns)) continue;
    const o = new Option(ns, ns);
    const after = [...box.options].slice(1).find((x) => x.value > ns);
    box.add(o, after ?? null);
  }
}

// --- The stream.

let source = null, paused = false, drawn = false;
function status(text, kind) { $("link").textContent = text; $("link").className = `chip ${kind}`; }

function receive(e) {
  const m = JSON.parse(e.data);
  model.add(m, Number($("window").value));
  head(m);
  namespaces();
  addRows(m.flows);
  $("empty").hidden = model.edges.size > 0;
  if (!drawn) {
    drawn = true;
    requestAnimationFrame(() => {
      drawn = false;
      graph.draw();
      details.refresh();
      document.documentElement.dataset.edges = model.edges.size; // for tests
    });
  }
}

function open() {
  source?.close();
  model.clear();
  $("rows").replaceChildren();
  select({});
  const form = new URLSearchParams();
  const set = (name, value) => { if (value) form.set(name, value); };
  set("verdict", document.querySelector("[name=verdict]:checked").value);
  set("namespace", $("namespace").value);
  set("q", $("q").value.trim());
  set("ends", $("ends").checked && "true");
  if ($("port").checkValidity()) set("port", $("port").value);
  history.replaceState(null, "", form.size ? `?${form}` : location.pathname);
  if (paused) return;
  status("connecting", "wait");
  source = new EventSource(`stream?${form}`);
  source.onopen = () => status("live", "live");
  source.onerror = () => status(source.readyState === EventSource.CLOSED ? "refused" : "no agent, trying again", "bad");
  source.onmessage = receive;
}

let wait;
const later = () => { clearTimeout(wait); wait = setTimeout(open, 250); };
$("filters").addEventListener("submit", (e) => { e.preventDefault(); open(); });
$("q").addEventListener("input", later);
$("port").addEventListener("input", later);
$("namespace").addEventListener("change", open);
$("ends").addEventListener("change", open);
for (const r of document.querySelectorAll("[name=verdict]")) r.addEventListener("change", open);

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").textContent = paused ? "Resume" : "Pause";
  $("pause").setAttribute("aria-pressed", String(paused));
  if (!paused) return open();
  source?.close();
  status("paused", "wait");
});
$("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch { /* storage is closed to us */ }
});
$("zoom-in").addEventListener("click", () => graph.zoom(1.25));
$("zoom-out").addEventListener("click", () => graph.zoom(0.8));
$("fit").addEventListener("click", () => graph.fit());
addEventListener("keydown", (e) => { if (e.key === "Escape") select({}); });

// What the address asks for.
const asked = new URLSearchParams(location.search);
$("q").value = asked.get("q") ?? "";
$("port").value = asked.get("port") ?? "";
$("ends").checked = asked.get("ends") === "true";
for (const r of document.querySelectorAll("[name=verdict]")) r.checked = r.value === (asked.get("verdict") ?? "");
if (asked.get("namespace")) {
  $("namespace").add(new Option(asked.get("namespace"), asked.get("namespace")));
  $("namespace").value = asked.get("namespace");
}
open();

export { model, nodeKey, select };

// The graph: columns from those who open flows to those who only answer, boxes
// by namespace. It is laid out anew only when nodes or edges come or go.
import { nodeKey } from "./model.js";

const NS = "http://www.w3.org/2000/svg";
const W = 140, H = 38, GAP = 12, PAD = 10, HEAD = 20, BOX = 26, STAGGER = 44;
const mostNodes = 120; // drawn; the busiest

function make(tag, attrs, parent) {
  const e = document.createElementNS(NS, tag);
  for (const k in attrs) e.setAttribute(k, attrs[k]);
  parent?.append(e);
  return e;
}

const clip = (s, n) => (s.length > n ? `${s.slice(0, n - 1)}…` : s);

export class Graph {
  constructor(svg, model, on) {
    this.svg = svg; this.model = model; this.on = on;
    this.view = { x: 0, y: 0, k: 1 }; this.auto = true;
    this.root = make("g", {}, svg);
    this.layers = ["boxes", "edges", "cards"].map((c) => make("g", { class: c }, this.root));
    this.version = -1; this.selected = {};
    const pick = (e) => {
      const hit = e.target.closest("[data-edge],[data-node]");
      if (!hit) return on.none();
      if (hit.dataset.edge) on.edge(hit.dataset.edge); else on.node(hit.dataset.node);
    };
    svg.addEventListener("click", (e) => this.moved || pick(e));
    svg.addEventListener("keydown", (e) => { if (e.key === "Enter") pick(e); });
    svg.addEventListener("pointerdown", (e) => { this.grab = { x: e.clientX - this.view.x, y: e.clientY - this.view.y, at: [e.clientX, e.clientY] }; this.moved = false; });
    addEventListener("pointermove", (e) => {
      if (!this.grab) return;
      if (Math.hypot(e.clientX - this.grab.at[0], e.clientY - this.grab.at[1]) > 4) this.moved = true;
      if (!this.moved) return;
      svg.classList.add("drag");
      this.auto = false;
      this.view.x = e.clientX - this.grab.x; this.view.y = e.clientY - this.grab.y;
      this.apply();
    });
    addEventListener("pointerup", () => { this.grab = null; svg.classList.remove("drag"); });
    svg.addEventListener("wheel", (e) => { e.preventDefault(); this.zoom(e.deltaY < 0 ? 1.12 : 0.89, e.offsetX, e.offsetY); }, { passive: false });
    new ResizeObserver(() => this.auto && this.fit()).observe(svg);
  }

  draw() {
    if (this.version !== this.model.version) {
      this.version = this.model.version;
      this.layout();
      this.paint();
      if (this.auto) this.fit();
    }
    for (const [key, g] of this.lines) { // only widths change with traffic
      const e = this.model.edges.get(key);
      if (e) g.querySelector(".line").setAttribute("stroke-width", (1.3 + Math.min(2.2, Math.log10(1 + e.flows) * 0.7)).toFixed(2));
    }
  }

  // id keeps what is outside the pods apart by who calls: it stands at both sides.
  ids(e) {
    const id = (n, side) => (n.kind === "pod" ? nodeKey(n) : `${nodeKey(n)}|${side}`);
    return [id(e.from, "from"), id(e.to, "to")];
  }

  layout() {
    const weight = new Map(), info = new Map();
    for (const e of this.model.edges.values()) {
      const [a, b] = this.ids(e);
      info.set(a, e.from); info.set(b, e.to);
      weight.set(a, (weight.get(a) ?? 0) + e.flows + 1); weight.set(b, (weight.get(b) ?? 0) + e.flows + 1);
    }
    const kept = new Set([...weight].sort((x, y) => y[1] - x[1]).slice(0, mostNodes).map(([id]) => id));
    const out = new Map([...kept].sort().map((id) => [id, new Set()]));
    // What is allowed says more of who calls whom than what is denied.
    const pairs = [...this.model.edges.values()].sort((x, y) => (x.verdict === "deny") - (y.verdict === "deny") || (x.key < y.key ? -1 : 1));
    const reaches = (a, b, seen = new Set()) => a === b || (!seen.has(a) && (seen.add(a), [...out.get(a)].some((n) => reaches(n, b, seen))));
    for (const e of pairs) {
      const [a, b] = this.ids(e);
      if (a !== b && kept.has(a) && kept.has(b) && !reaches(b, a)) out.get(a).add(b); // no cycles
    }
    const rank = new Map();
    const depth = (id) => {
      if (!rank.has(id)) {
        rank.set(id, 0);
        let d = 0;
        for (const [from, tos] of out) if (tos.has(id)) d = Math.max(d, depth(from) + 1);
        rank.set(id, d);
      }
      return rank.get(id);
    };
    for (const id of out.keys()) depth(id);
    // Columns of boxes: a namespace's nodes of a rank.
    const cols = [];
    for (const id of out.keys()) {
      const n = info.get(id), col = (cols[rank.get(id)] ??= new Map());
      const group = n.kind === "pod" ? n.namespace : "";
      if (!col.has(group)) col.set(group, []);
      col.get(group).push(id);
    }
    this.nodes = new Map(); this.boxes = [];
    // As wide as the pane, within reason.
    const room = (this.svg.clientWidth - 60 - cols.length * (W + 2 * PAD)) / Math.max(1, cols.length - 1);
    const gap = Math.max(64, Math.min(170, room));
    const tall = cols.map((col) => [...(col?.values() ?? [])].reduce((h, ids) => h + ids.length * (H + GAP) - GAP + 2 * PAD + HEAD + BOX, -BOX));
    const height = Math.max(0, ...tall);
    cols.forEach((col, c) => {
      if (!col) return;
      // Neighbouring columns at different heights, so that what passes a column
      // does not run through its nodes.
      let y = (height - tall[c]) / 2 + (tall[c] + STAGGER < height ? (c % 2 ? STAGGER : -STAGGER) : 0);
      const x = c * (W + 2 * PAD + gap);
      // By where their callers are, so that edges cross less.
      const middle = (id) => {
        const ys = [...out].filter(([from, tos]) => tos.has(id) && this.nodes.has(from)).map(([from]) => this.nodes.get(from).y);
        return ys.length ? ys.reduce((s, v) => s + v, 0) / ys.length : 0;
      };
      const mean = (ids) => ids.reduce((s, id) => s + middle(id), 0) / ids.length;
      for (const [group, ids] of [...col].sort((a, b) => mean(a[1]) - mean(b[1]) || (a[0] < b[0] ? -1 : 1))) {
        ids.sort((a, b) => middle(a) - middle(b) || (a < b ? -1 : 1));
        const h = ids.length * (H + GAP) - GAP + 2 * PAD + HEAD;
        this.boxes.push({ x, y, w: W + 2 * PAD, h, name: group || "not a pod" });
        ids.forEach((id, i) => this.nodes.set(id, { id, n: info.get(id), x: x + PAD, y: y + PAD + HEAD + i * (H + GAP), c }));
        y += h + BOX;
      }
    });
    const low = Math.min(0, ...this.boxes.map((b) => b.y)), high = Math.max(1, ...this.boxes.map((b) => b.y + b.h));
    this.size = { x: -30, y: low - 16, w: Math.max(1, cols.length * (W + 2 * PAD + gap) - gap) + 60, h: high - low + 40 };
  }

  paint() {
    const [boxes, edges, cards] = this.layers;
    for (const l of this.layers) l.replaceChildren();
    for (const b of this.boxes) {
      const g = make("g", { class: "box" }, boxes);
      make("rect", { x: b.x, y: b.y, width: b.w, height: b.h, rx: 10 }, g);
      make("text", { x: b.x + PAD, y: b.y + PAD + 8 }, g).textContent = clip(b.name, 22);
    }
    // Edges that leave or enter a node spread over its side.
    const drawn = [...this.model.edges.values()].map((e) => [e, ...this.ids(e)]).filter(([, a, b]) => this.nodes.has(a) && this.nodes.has(b));
    const slots = new Map();
    const slot = (id, side, key, other) => {
      const k = `${id} ${side}`;
      if (!slots.has(k)) slots.set(k, []);
      slots.get(k).push([key, this.nodes.get(other).y]);
    };
    for (const [e, a, b] of drawn) { slot(a, "out", e.key, b); slot(b, "in", e.key, a); }
    for (const list of slots.values()) list.sort((x, y) => x[1] - y[1] || (x[0] < y[0] ? -1 : 1));
    const at = (id, side, key) => {
      const list = slots.get(`${id} ${side}`), i = list.findIndex(([k]) => k === key);
      return this.nodes.get(id).y + (H * (i + 1)) / (list.length + 1);
    };
    this.lines = new Map();
    for (const [e, a, b] of drawn) {
      const from = this.nodes.get(a), to = this.nodes.get(b);
      const y1 = at(a, "out", e.key), y2 = at(b, "in", e.key);
      const g = make("g", { class: `edge ${e.verdict}`, "data-edge": e.key, tabindex: 0 }, edges);
      make("title", {}, g).textContent = `${e.from.name} → ${e.to.name}: ${{ allow: "allowed", deny: "denied", audit: "audited" }[e.verdict]}`;
      const x1 = from.x + W, x2 = to.x - 7;
      let d;
      if (to.c > from.c) {
        // What passes columns by goes around their nodes: allowed above, denied below.
        const bend = Math.max(36, (x2 - x1) * 0.42), span = to.c - from.c - 1;
        const bow = span ? (e.verdict === "allow" ? -1 : 1) * (58 + 34 * span) : 0;
        d = `M${x1},${y1} C${x1 + bend},${y1 + bow} ${x2 - bend},${y2 + bow} ${x2},${y2}`;
      } else { // back, or within a column: around below
        const r = 40, low = Math.max(y1, y2) + (a === b ? 34 : 44 + 12 * (from.c - to.c));
        d = `M${x1},${y1} C${x1 + r},${y1} ${x1 + r},${low} ${(x1 + x2) / 2},${low} S${x2 - r},${y2} ${x2},${y2}`;
      }
      make("path", { class: "hit", d }, g);
      make("path", { class: "line", d, "stroke-width": 1.5 }, g);
      make("path", { class: "head", d: `M${to.x},${y2} l-9,-4.5 l0,9 z` }, g);
      this.lines.set(e.key, g);
    }
    for (const [id, node] of this.nodes) {
      const g = make("g", { class: "card", "data-node": nodeKey(node.n), tabindex: 0, transform: `translate(${node.x},${node.y})` }, cards);
      make("title", {}, g).textContent = node.n.namespace ? `${node.n.namespace}/${node.n.name}` : node.n.name;
      make("rect", { width: W, height: H, rx: 8 }, g);
      make("text", { x: 12, y: H / 2 + 4 }, g).textContent = clip(node.n.name, 19);
      g.dataset.id = id;
    }
    this.select(this.selected);
  }

  select(what) {
    this.selected = what;
    const near = new Set();
    for (const [key, g] of this.lines ?? []) {
      const e = this.model.edges.get(key);
      const on = what.edge ? key === what.edge : what.node ? e && (nodeKey(e.from) === what.node || nodeKey(e.to) === what.node) : true;
      g.classList.toggle("faded", !on);
      g.classList.toggle("on", Boolean(on && (what.edge || what.node)));
      if (on && e) { near.add(nodeKey(e.from)); near.add(nodeKey(e.to)); }
    }
    const any = Boolean(what.edge || what.node);
    for (const g of this.layers[2].children) {
      g.classList.toggle("faded", any && !near.has(g.dataset.node));
      g.classList.toggle("on", any && (g.dataset.node === what.node || (Boolean(what.edge) && near.has(g.dataset.node))));
    }
  }

  apply() { this.root.setAttribute("transform", `translate(${this.view.x},${this.view.y}) scale(${this.view.k})`); }

  fit() {
    this.auto = true;
    if (!this.size) return;
    const r = this.svg.getBoundingClientRect();
    const k = Math.max(0.25, Math.min(1.15, r.width / this.size.w, r.height / this.size.h));
    this.view = { k, x: (r.width - this.size.w * k) / 2 - this.size.x * k, y: (r.height - this.size.h * k) / 2 - this.size.y * k };
    this.apply();
  }

  zoom(by, x = this.svg.clientWidth / 2, y = this.svg.clientHeight / 2) {
    this.auto = false;
    const k = Math.max(0.15, Math.min(3, this.view.k * by)), f = k / this.view.k;
    this.view = { k, x: x - (x - this.view.x) * f, y: y - (y - this.view.y) * f };
    this.apply();
  }
}
